/**
 * Agents of one platform in an image for many: each starts where it belongs and nowhere else, and none takes over what a
 * moved server keeps: host keys, accounts, network, swap.
 */
import type { GuestFiles } from '../../core/guest.ts';
import type { AgentRole } from '../../core/platform.ts';
import { textEdit } from '../../families/edits.ts';
import type { FileEdit } from '../../families/family.ts';
import { type Setting, setSettings } from '../../tools/plain-settings.ts';

/** When a unit may start. systemd.unit(5) knows the virtualisation; DMI tells clouds on the same hypervisor apart. */
type Belongs =
  | { virtualization: 'vmware' | 'microsoft' | 'xen' }
  | { dmi: 'chassis_asset_tag' | 'product_name'; equals: string };

/** One setting of an agent's own configuration. */
interface Configuration {
  path: string;
  /** `key=value` lines; for `ini` below the section. */
  settings: readonly Setting[];
  /** What only a moved server gets: its accounts are its own. */
  moved?: readonly Setting[];
  why: string;
}

interface AgentRow {
  /** Units by the names distributions give them. */
  units: readonly string[];
  belongs: Belongs;
  configuration?: Configuration;
}

/** cloud-init tools/ds-identify: how Azure and GCE show in DMI. */
const AZURE: Belongs = { dmi: 'chassis_asset_tag', equals: '7783-7084-3265-9085-8269-3286-77' };
const GCE: Belongs = { dmi: 'product_name', equals: 'Google Compute Engine' };

const AGENTS: Readonly<Partial<Record<AgentRole, AgentRow>>> = {
  'azure-agent': {
    // The last three are of Debian 11.
    units: [
      'walinuxagent.service',
      'waagent.service',
      'waagent-apt.service',
      'waagent-provision.service',
      'waagent-resourcedisk.service',
    ],
    belongs: AZURE,
    configuration: {
      path: '/etc/waagent.conf',
      // Azure/WALinuxAgent README, "Configuration File Options".
      settings: [
        { key: 'Provisioning.Agent', value: 'cloud-init' },
        { key: 'Provisioning.DeleteRootPassword', value: 'n' },
        { key: 'Provisioning.RegenerateSshHostKeyPair', value: 'n' },
        { key: 'ResourceDisk.Format', value: 'n' },
        { key: 'ResourceDisk.EnableSwap', value: 'n' },
      ],
      why: 'cloud-init provisions; the agent changes neither keys, root nor disks of the server',
    },
  },
  'hyperv-daemons': {
    units: [
      'hv-fcopy-daemon.service',
      'hv-kvp-daemon.service',
      'hv-vss-daemon.service',
      'hypervfcopyd.service',
      'hypervkvpd.service',
      'hypervvssd.service',
    ],
    belongs: { virtualization: 'microsoft' },
  },
  'google-guest-agent': {
    units: [
      'google-guest-agent.service',
      'google-guest-agent-manager.service',
      'google-guest-compat-manager.service',
      'google-startup-scripts.service',
      'google-shutdown-scripts.service',
    ],
    belongs: GCE,
    configuration: {
      path: '/etc/default/instance_configs.cfg',
      // GoogleCloudPlatform/guest-agent README, "Configuration".
      settings: [
        { section: 'InstanceSetup', key: 'set_host_keys', value: 'false' },
        { section: 'InstanceSetup', key: 'set_boto_config', value: 'false' },
        { section: 'NetworkInterfaces', key: 'setup', value: 'false' },
      ],
      // cloud-init gives the key of the cloud to the default account; here metadata would make more, with sudo.
      moved: [{ section: 'Daemons', key: 'accounts_daemon', value: 'false' }],
      why: 'host keys, accounts and network stay what the server and cloud-init made them',
    },
  },
  'google-oslogin': { units: ['google-oslogin-cache.service', 'google-oslogin-cache.timer'], belongs: GCE },
  'open-vm-tools': {
    units: ['open-vm-tools.service', 'vgauth.service', 'vmtoolsd.service', 'vgauthd.service'],
    belongs: { virtualization: 'vmware' },
  },
  'xe-guest-utilities': {
    units: ['xe-daemon.service', 'xe-linux-distribution.service'],
    belongs: { virtualization: 'xen' },
  },
};

const UNIT_FOLDERS = ['/usr/lib/systemd/system', '/lib/systemd/system', '/etc/systemd/system'];

function condition(belongs: Belongs, unit: string): string {
  if ('virtualization' in belongs) return `[Unit]\nConditionVirtualization=${belongs.virtualization}\n`;
  const file = `/sys/class/dmi/id/${belongs.dmi}`;
  // Timers have no ExecCondition; what they start has one.
  if (!unit.endsWith('.service')) return `[Unit]\nConditionPathExists=${file}\n`;
  // systemd.service(5): a unit whose ExecCondition= ends with 1 to 254 is skipped, not failed (since version 243).
  return `[Service]\nExecCondition=grep -qsxF "${belongs.equals}" ${file}\n`;
}

async function hasUnit(guest: GuestFiles, unit: string): Promise<boolean> {
  for (const folder of UNIT_FOLDERS) {
    if ((await guest.kind(`${folder}/${unit}`)) === 'file') return true;
  }
  return false;
}

/** Drop-ins and settings for the agents that are in the guest; reads only. */
export async function agentEdits(
  guest: GuestFiles,
  roles: readonly AgentRole[],
  generalize: boolean,
): Promise<FileEdit[]> {
  const edits: FileEdit[] = [];
  for (const role of roles) {
    const row = AGENTS[role];
    if (row === undefined) continue;
    let found = false;
    for (const unit of row.units) {
      if (!(await hasUnit(guest, unit))) continue;
      found = true;
      const path = `/etc/systemd/system/${unit}.d/50-port-image.conf`;
      const text = `# Written by port-image: the image runs on several platforms, this belongs to one.\n${condition(row.belongs, unit)}`;
      edits.push(
        ...textEdit(
          path,
          await guest.readText(path),
          text,
          `${unit} starts where it belongs and nowhere else`,
        ),
      );
    }
    if (!found || row.configuration === undefined) continue;
    const { path, settings, moved = [], why } = row.configuration;
    const wanted = generalize ? settings : [...settings, ...moved];
    const before = await guest.readText(path);
    edits.push(...textEdit(path, before, setSettings(before ?? '', wanted), why));
  }
  return edits;
}
