/** mkinitfs of Alpine Linux: `features="…"` in mkinitfs.conf, and files that say what a feature holds. */
import { lastAssignment, setVariable } from './shell-variables.ts';

/** Name of our feature. */
export const FEATURE = 'port-image';
/** Configuration of mkinitfs. */
export const MKINITFS_CONF = '/etc/mkinitfs/mkinitfs.conf';
/** Folder of features; each is a list of paths or patterns below `/lib/modules/VERSION`. */
export const FEATURES_DIR = '/etc/mkinitfs/features.d';

/** Stock features with drivers of the target platforms (alpinelinux/mkinitfs: features.d). */
const STOCK: readonly string[] = ['base', 'ata', 'nvme', 'scsi', 'virtio'];

/**
 * Adds our feature and the stock ones that are there. Returns undefined when `features` is written in a way that is
 * not understood.
 */
export function editMkinitfsConf(text: string, available: readonly string[]): string | undefined {
  const found = lastAssignment(text, 'features');
  if (found !== undefined && found.value === undefined) return undefined;
  const words = (found?.value ?? '').split(/\s+/).filter((word) => word !== '');
  const wanted = [...STOCK.filter((name) => available.includes(name)), FEATURE];
  const missing = wanted.filter((name) => !words.includes(name));
  return missing.length === 0 ? text : setVariable(text, 'features', [...words, ...missing].join(' '));
}

/**
 * Our feature's file: where in the kernel's tree the modules are, as `modules.dep` has them. Paths differ between kernels,
 * so every kernel's path is listed; mkinitfs adds dependencies and passes over what a kernel lacks.
 */
export function featureFile(modulesDep: readonly string[], modules: readonly string[]): string {
  const wanted = new Set(modules.map((m) => m.replaceAll('-', '_')));
  const paths = new Set<string>();
  for (const text of modulesDep) {
    for (const line of text.split('\n')) {
      const path = line.split(':')[0] ?? '';
      const match = /^(kernel\/[\w./+-]*?([\w+-]+)\.ko)(?:\.\w+)?$/.exec(path);
      // The end is a pattern: modules are packed or not, as the kernel was built.
      if (match !== null && wanted.has((match[2] ?? '').replaceAll('-', '_'))) paths.add(`${match[1]}*`);
    }
  }
  return paths.size === 0 ? '' : `${[...paths].sort().join('\n')}\n`;
}
