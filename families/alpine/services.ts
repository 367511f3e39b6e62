/** OpenRC: a service starts when a run level's folder has a link to it. Packages of Alpine enable nothing themselves. */
import type { GuestFiles } from '../../core/guest.ts';

/** Services of our packages and their run levels, as Alpine's own `setup-cloud-init` has them. */
const SERVICES: readonly { name: string; level: 'boot' | 'default' }[] = [
  { name: 'cloud-init-ds-identify', level: 'boot' },
  { name: 'cloud-init-local', level: 'boot' },
  { name: 'cloud-init', level: 'default' },
  { name: 'cloud-config', level: 'default' },
  { name: 'cloud-final', level: 'default' },
  { name: 'qemu-guest-agent', level: 'default' },
  { name: 'open-vm-tools', level: 'default' },
  { name: 'xe-guest-utilities', level: 'default' },
  { name: 'hv_kvp_daemon', level: 'default' },
  { name: 'hv_vss_daemon', level: 'default' },
];

/** Links every service that is there and in no run level yet. Returns the names. */
export async function enableServices(guest: GuestFiles): Promise<string[]> {
  const enabled: string[] = [];
  for (const { name, level } of SERVICES) {
    if ((await guest.kind(`/etc/init.d/${name}`)) === 'missing') continue;
    if ((await guest.glob(`/etc/runlevels/*/${name}`)).length > 0) continue;
    const folder = `/etc/runlevels/${level}`;
    if ((await guest.kind(folder)) === 'missing') await guest.mkdir(folder, 0o755);
    await guest.symlink(`/etc/init.d/${name}`, `${folder}/${name}`);
    enabled.push(name);
  }
  return enabled;
}
