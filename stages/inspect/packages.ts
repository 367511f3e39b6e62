/** Installed packages, and agents other platforms left. */
import type { Facts } from '../../core/facts.ts';
import type { GuestSession } from '../../core/guest.ts';
import { APK_DATABASES, parseApkInstalled } from '../../tools/apk-database.ts';
import { rpmPackages } from '../../tools/rpm-database.ts';
import type { Bundle } from './bundle.ts';

/** Reads /var/lib/dpkg/status; only packages whose files are installed. */
export function parseDpkgStatus(text: string): Facts['packages'] {
  return text.split(/\n\n+/).flatMap((paragraph) => {
    const field = (name: string) => new RegExp(`^${name}: *(.*)$`, 'm').exec(paragraph)?.[1]?.trim() ?? '';
    const name = field('Package');
    const state = field('Status').split(' ')[2] ?? '';
    if (
      name === '' ||
      !['installed', 'half-configured', 'triggers-pending', 'triggers-awaited', 'unpacked'].includes(state)
    ) {
      return [];
    }
    return [{ name, version: field('Version'), architecture: field('Architecture') }];
  });
}

/** Reads names of `/var/lib/pacman/local`: `name-version-release`. */
export function parsePacmanFolders(names: readonly string[], architecture: string): Facts['packages'] {
  return names.flatMap((folder) => {
    const [, name, version] = /^(.+)-([^-]+-[^-]+)$/.exec(folder) ?? [];
    return name === undefined || version === undefined ? [] : [{ name, version, architecture }];
  });
}

/** What the package database of the guest's family says. Throws GUEST_BROKEN when rpm cannot read its own. */
export async function packageFacts(
  guest: GuestSession,
  bundle: Bundle,
  os: Facts['os'],
): Promise<Facts['packages']> {
  switch (os.family) {
    case 'rhel':
    case 'suse':
      return rpmPackages(guest);
    case 'alpine':
      return parseApkInstalled(APK_DATABASES.map((f) => bundle.text(f)).find((t) => t !== undefined) ?? '')
        .packages;
    case 'arch':
      return parsePacmanFolders(await guest.list('/var/lib/pacman/local'), os.arch);
    default:
      return parseDpkgStatus(bundle.text('/var/lib/dpkg/status') ?? '');
  }
}

/**
 * Packages that belong to a platform, by name. Sources: cloudbase/coriolis:coriolis/osmorphing,
 * libguestfs/virt-v2v:convert, GoogleCloudPlatform/compute-image-import; `physical` are what vendors of servers ship for their
 * RAID controllers and management processors, which no virtual machine has.
 */
const AGENT_PACKAGES: readonly { platform: string; names: RegExp }[] = [
  {
    platform: 'vmware',
    names: /^(open-vm-tools(-.*)?|vmware-tools-.*|kmod-vmware-tools.*)$/,
  },
  { platform: 'virtualbox', names: /^virtualbox-(ose-)?guest-.*$/ },
  { platform: 'xen', names: /^(xe-guest-utilities.*|xen-guest-agent)$/ },
  { platform: 'azure', names: /^(waagent|walinuxagent|WALinuxAgent.*|python\d*-azure-agent)$/ },
  { platform: 'hyperv', names: /^(hyperv-daemons|hyper-v|linux-cloud-tools-(azure|common|virtual))$/ },
  {
    platform: 'aws',
    names: /^(amazon-ssm-agent|amazon-ec2-utils|amazon-cloudwatch-agent|amazon-efs-utils|ec2-.*)$/,
  },
  {
    platform: 'gcp',
    names:
      /^(google-(guest-.*|compute-engine.*|osconfig-agent|cloud-ops-agent|fluentd)|stackdriver-agent|gce-.*)$/,
  },
  { platform: 'oci', names: /^(oracle-cloud-agent|oci-utils)$/ },
  { platform: 'alibaba', names: /^(aliyun[-_]assist|cloudmonitor)$/ },
  { platform: 'qemu', names: /^qemu-guest-agent$/ },
  {
    platform: 'physical',
    names:
      /^(srvadmin-.*|hp-health|hp-snmp-agents|hponcfg|amsd|(hp)?ssacli|(hp)?ssaducli|megacli|(stor|perc)cli(64)?)$/,
  },
  { platform: 'any', names: /^cloud-init$/ },
];

/** Programs installed without a package, by path. */
const AGENT_PATHS: Readonly<Record<string, string>> = {
  '/usr/bin/VBoxClient': 'virtualbox',
  '/usr/sbin/VBoxService': 'virtualbox',
  '/usr/bin/vmware-uninstall-tools.pl': 'vmware',
  '/usr/bin/vmtoolsd': 'vmware',
  '/usr/sbin/waagent': 'azure',
  '/usr/sbin/xe-daemon': 'xen',
  '/usr/bin/google_guest_agent': 'gcp',
  '/usr/bin/amazon-ssm-agent': 'aws',
  '/usr/lib/parallels-tools/install': 'parallels',
  '/usr/sbin/qemu-ga': 'qemu',
  '/usr/bin/cloud-init': 'any',
};

/** Agents of platforms; one found by package is not named a second time by its path. */
export function agentFacts(bundle: Bundle, packages: Facts['packages']): Facts['agents'] {
  const agents: Facts['agents'] = packages.flatMap((p) =>
    AGENT_PACKAGES.filter((a) => a.names.test(p.name)).map((a) => ({
      platform: a.platform,
      package: p.name,
    })),
  );
  for (const path of bundle.records('agents')) {
    const platform = AGENT_PATHS[path];
    if (platform !== undefined && !agents.some((a) => a.platform === platform))
      agents.push({ platform, path });
  }
  return agents;
}
