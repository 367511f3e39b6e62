/** Units, drop-ins and links that bring a data set back: plain files, so nothing has to run in the guest. */
import type { DataMode } from '../core/data-set.ts';
import { parseUnit } from './unit-file.ts';

/** A file or a symbolic link to put into the guest. */
export interface GuestFile {
  path: string;
  content?: string;
  link?: string;
}

const UNIT_DIR = '/etc/systemd/system';
/** The template in the image. */
export const FETCH_TEMPLATE = '/usr/lib/systemd/system/port-image-data@.service';
/** The unit that fetches lazy data sets after the boot. */
export const PREFETCH_UNIT = '/usr/lib/systemd/system/port-image-prefetch.service';
// Everything a fetch is ordered behind, itself or through network-online.target.
const BEFORE_FETCH =
  /^(network-online|network|network-pre|sysinit|basic|local-fs|local-fs-pre|cloud-init)\.target$|^cloud-init(-local|-network)?\.service$/;
// Letters that need no quoting in What=, Where= and no escaping by systemd.
const PLAIN_PATH = /^\/[A-Za-z0-9_./@:+-]+$/;

/** A path as a unit name, as `systemd-escape --path` does. */
export function escapePath(path: string): string {
  const parts = path.split('/').filter((p) => p !== '');
  if (parts.length === 0) return '-';
  const bytes = Buffer.from(parts.join('/'));
  return Array.from(bytes, (byte, i) => {
    const c = String.fromCharCode(byte);
    if (c === '/') return '-';
    if (/[A-Za-z0-9:_]/.test(c) || (c === '.' && i > 0)) return c;
    return `\\x${byte.toString(16).padStart(2, '0')}`;
  }).join('');
}

/** True when lazy mode can serve this path by a mount unit. */
export function canAutomount(path: string): boolean {
  return PLAIN_PATH.test(path);
}

/** True for a unit that has to be up before data can be fetched, by what its file says. */
export function isEarlyUnit(text: string): boolean {
  const settings = parseUnit(text).filter((s) => s.section === 'Unit');
  const off = settings.some((s) => s.key === 'DefaultDependencies' && /^(no|false|off|0)$/i.test(s.value));
  const before = settings.filter((s) => s.key === 'Before').flatMap((s) => s.value.split(/\s+/));
  return off || before.some((unit) => BEFORE_FETCH.test(unit));
}

/** Link that starts the prefetch with the boot. */
export function prefetchLink(): GuestFile {
  return wants('multi-user.target', 'port-image-prefetch.service', PREFETCH_UNIT);
}

const wants = (target: string, unit: string, file: string): GuestFile => ({
  path: `${UNIT_DIR}/${target}.wants/${unit}`,
  link: file,
});

function eagerFiles(id: string, neededBy: readonly string[]): GuestFile[] {
  const unit = `port-image-data@${id}.service`;
  const files = [wants('multi-user.target', unit, FETCH_TEMPLATE)];
  for (const needing of neededBy) {
    if (needing === 'multi-user.target') continue;
    if (needing.endsWith('.target')) {
      files.push(wants(needing, unit, FETCH_TEMPLATE));
      continue;
    }
    files.push({
      path: `${UNIT_DIR}/${needing}.d/50-port-image-${id}.conf`,
      content: `# Without its data this unit must not start; it is started when the data has arrived.\n[Unit]\nRequires=${unit}\nAfter=${unit}\n`,
    });
  }
  return files;
}

function lazyFiles(id: string, path: string, neededBy: readonly string[]): GuestFile[] {
  const fetch = `port-image-data@${id}.service`;
  const name = escapePath(path);
  const parent = path.slice(0, path.lastIndexOf('/'));
  const automount = `${UNIT_DIR}/${name}.automount`;
  return [
    {
      path: automount,
      content: `[Unit]\nDescription=First access to ${path} fetches data set ${id}\nDefaultDependencies=no\n# Whoever looked inside before the network is up would wait for the network, and it perhaps for him.\nAfter=network-online.target\nConflicts=umount.target\nBefore=umount.target\n\n[Automount]\nWhere=${path}\n`,
    },
    {
      path: `${UNIT_DIR}/${name}.mount`,
      content: `[Unit]\nDescription=Data set ${id} on ${path}\nDefaultDependencies=no\nRequires=${fetch}\nAfter=${fetch}\nConflicts=umount.target\nBefore=umount.target\n\n[Mount]\nWhat=${parent}/.port-image-data.${id}/tree\nWhere=${path}\nType=none\nOptions=bind\n`,
    },
    wants('multi-user.target', `${name}.automount`, automount),
    ...neededBy
      .filter((unit) => !unit.endsWith('.target'))
      .map((unit) => ({
        path: `${UNIT_DIR}/${unit}.d/50-port-image-${id}.conf`,
        content: `# Its first access to ${path} waits until the data is there.\n[Unit]\nWants=${name}.automount\nAfter=${name}.automount\n`,
      })),
  ];
}

/** Files for one data set. Nothing for `manual`. */
export function dataSetUnits(
  id: string,
  path: string,
  mode: DataMode,
  neededBy: readonly string[],
): GuestFile[] {
  if (mode === 'manual') return [];
  return mode === 'lazy' ? lazyFiles(id, path, neededBy) : eagerFiles(id, neededBy);
}
