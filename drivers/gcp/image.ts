/** What an image in Compute Engine is called and claims. */
import { PortError } from '../../core/errors.ts';
import type { Facts } from '../../core/facts.ts';
import { printable } from '../../core/text.ts';

/** Compute Engine's limit of a name (RFC 1035). */
const NAME_CHARS = 63;
/** Labels: lower case, digits, `_` and `-`, at most 63 (docs.cloud.google.com/compute/docs/labeling-resources). */
const LABEL_CHARS = 63;
/** Multiqueue came with Linux 3.17 (docs.cloud.google.com/compute/docs/images/create-custom#guest-os-features). */
const MULTIQUEUE_KERNEL = [3, 17] as const;

/** A name as RFC 1035 has it, `tail` kept whole. Throws USAGE when no letter is left of it. */
export function gceName(name: string, tail = ''): string {
  const plain = (text: string) => text.toLowerCase().replace(/[^a-z0-9]+/g, '-');
  const end = tail === '' ? '' : `-${plain(tail).replace(/^-+|-+$/g, '')}`;
  const start = plain(name)
    .replace(/^[^a-z]+/, '')
    .slice(0, NAME_CHARS - end.length)
    .replace(/-+$/, '');
  if (start === '') {
    throw new PortError('USAGE', `no name for Compute Engine can be made of ${printable(name)}`, {
      hint: 'a letter is needed: --name',
    });
  }
  return `${start}${end}`;
}

/** A value of a label. */
export function labelValue(text: string): string {
  return text
    .toLowerCase()
    .replace(/[^a-z0-9_-]+/g, '-')
    .slice(0, LABEL_CHARS);
}

/** The name of the guest's architecture. Throws CLOUD_REFUSED for one Compute Engine has not. */
export function gceArchitecture(arch: string): 'X86_64' | 'ARM64' {
  if (arch === 'x86_64' || arch === 'amd64') return 'X86_64';
  if (arch === 'aarch64' || arch === 'arm64') return 'ARM64';
  throw new PortError('CLOUD_REFUSED', `Compute Engine has no machines of ${printable(arch)}`);
}

function atLeast(version: string, [major, minor]: readonly [number, number]): boolean {
  const [, a = '0', b = '0'] = /^(\d+)\.(\d+)/.exec(version) ?? [];
  return Number(a) > major || (Number(a) === major && Number(b) >= minor);
}

/**
 * guestOsFeatures that hold for every kernel of the boot menu. What cannot be seen in the guest (SEV, TDX, secure boot, …)
 * is never claimed.
 */
export function guestOsFeatures(facts: Pick<Facts, 'firmware' | 'kernels'>): string[] {
  const kernels = facts.kernels.filter((k) => k.inBootMenu);
  const has = (module: string) =>
    kernels.length > 0 &&
    kernels.every((k) => [k.modules, k.builtin, k.initramfsModules].some((list) => list.includes(module)));
  const features: string[] = [];
  if (facts.firmware === 'uefi') features.push('UEFI_COMPATIBLE');
  if (has('virtio_scsi') && kernels.every((k) => atLeast(k.version, MULTIQUEUE_KERNEL)))
    features.push('VIRTIO_SCSI_MULTIQUEUE');
  if (has('gve')) features.push('GVNIC');
  if (has('idpf')) features.push('IDPF');
  return features;
}
