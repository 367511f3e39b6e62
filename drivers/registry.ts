/** Every platform this program knows. A new platform is one line here. */
import { PortError } from '../core/errors.ts';
import type { Platform } from '../core/platform.ts';
import { alibaba } from './alibaba/index.ts';
import { aws } from './aws/index.ts';
import { azure } from './azure/index.ts';
import { gcp } from './gcp/index.ts';
import { hyperv } from './hyperv/index.ts';
import { oci } from './oci/index.ts';
import { openstack } from './openstack/index.ts';
import { qemu } from './qemu/index.ts';
import { vmware } from './vmware/index.ts';
import { xen } from './xen/index.ts';

/** Known platforms, in the order they are listed. */
export const platforms: readonly Platform[] = [
  openstack,
  aws,
  azure,
  gcp,
  vmware,
  xen,
  hyperv,
  oci,
  alibaba,
  qemu,
];

/**
 * Platforms by name, each once, in the order asked for. `all` means every known platform.
 * Throws USAGE for an unknown name or an empty list.
 */
export function platformsNamed(list: readonly string[]): Platform[] {
  const found = new Set<Platform>();
  for (const name of list) {
    if (name === 'all') {
      for (const platform of platforms) found.add(platform);
      continue;
    }
    const platform = platforms.find((p) => p.name === name);
    if (platform === undefined) throw new PortError('USAGE', `unknown platform: ${name}`, { hint: known() });
    found.add(platform);
  }
  if (found.size === 0) throw new PortError('USAGE', 'no platform named', { hint: known() });
  return [...found];
}

function known(): string {
  return `known platforms: ${platforms.map((p) => p.name).join(', ')}, all`;
}
