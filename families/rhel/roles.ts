/** Package names of the RHEL family per role, as data. EPEL and vendor repositories are marked. */
import type { AgentRole } from '../../core/platform.ts';

/** Names per role; `fetch` is what port-image-data needs. */
export const ROLES: Readonly<Record<AgentRole, readonly string[]>> = {
  'cloud-init': ['cloud-init'],
  growpart: ['cloud-utils-growpart', 'gdisk'],
  // curl-minimal of RHEL 9 does not give `curl`, but the program; rpm takes paths as well.
  fetch: ['/usr/bin/curl', 'tar', 'zstd', 'ca-certificates'],
  'qemu-guest-agent': ['qemu-guest-agent'],
  // Device links of EBS volumes come with Amazon Linux only.
  'amazon-ec2-utils': [],
  'azure-agent': ['WALinuxAgent'],
  'hyperv-daemons': ['hyperv-daemons'],
  // Google's own repository has them; cloud-init does without.
  'google-guest-agent': [],
  'google-oslogin': [],
  'open-vm-tools': ['open-vm-tools'],
  // EPEL only; Xen guests run without.
  'xe-guest-utilities': [],
};
