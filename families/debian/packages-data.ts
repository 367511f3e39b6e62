/** What differs between distributions of the Debian family about packages, as data. */
import type { AgentRole } from '../../core/platform.ts';

/** Packages of a role; `of` overrides it for one distribution. */
interface RoleRow {
  packages: readonly string[];
  of?: Readonly<Record<string, readonly string[]>>;
}

/** Names per role. `fetch` is what port-image-data needs to get data sets over HTTPS. */
export const ROLE_PACKAGES: Readonly<Record<AgentRole, RoleRow>> = {
  'cloud-init': { packages: ['cloud-init'] },
  growpart: { packages: ['cloud-guest-utils'] },
  'qemu-guest-agent': { packages: ['qemu-guest-agent'] },
  fetch: { packages: ['curl', 'zstd', 'ca-certificates'] },
  'amazon-ec2-utils': { packages: ['amazon-ec2-utils'] },
  'azure-agent': { packages: ['waagent'], of: { ubuntu: ['walinuxagent'] } },
  'hyperv-daemons': { packages: ['hyperv-daemons'], of: { ubuntu: ['linux-cloud-tools-common'] } },
  'google-guest-agent': { packages: ['google-guest-agent'] },
  'google-oslogin': { packages: ['google-compute-engine-oslogin'] },
  'open-vm-tools': { packages: ['open-vm-tools'] },
  'xe-guest-utilities': { packages: [], of: { ubuntu: ['xe-guest-utilities'] } },
};

/** Host keyrings that sign a distribution's own archive, for guests whose own keyrings are missing. */
export const HOST_KEYRINGS: Readonly<Record<string, readonly string[]>> = {
  debian: ['/usr/share/keyrings/debian-archive-keyring.gpg'],
  ubuntu: ['/usr/share/keyrings/ubuntu-archive-keyring.gpg'],
};
