/** Editing `/etc/fstab` and `/etc/crypttab`: only the fields that must change, every other byte stays. */
import type { DeviceNames } from './device-names.ts';

/** An edited text and what a person should know. */
export interface Edited {
  text: string;
  /** One sentence each: something could not be resolved. */
  warnings: string[];
}

/** One line that is an entry: fields with their places in the line. */
export interface TableLine {
  fields: { text: string; start: number; end: number }[];
}

/** Fields of a whitespace separated line; undefined for blank lines and comments. */
export function parseTableLine(line: string): TableLine | undefined {
  if (/^\s*(?:#|$)/.test(line)) return undefined;
  const fields = [...line.matchAll(/\S+/g)].map((m) => ({
    text: m[0],
    start: m.index,
    end: m.index + m[0].length,
  }));
  return { fields };
}

/** Undoes the octal escapes of fstab(5) (`\040` is a space). */
export function unescapeField(field: string): string {
  return field.replace(/\\([0-7]{3})/g, (_all, octal: string) =>
    String.fromCharCode(Number.parseInt(octal, 8)),
  );
}

/** Escapes what fstab(5) cannot hold literally. */
export function escapeField(text: string): string {
  return text.replace(/[\s\\#]/g, (c) => `\\${c.charCodeAt(0).toString(8).padStart(3, '0')}`);
}

const NO_WAIT = 'x-systemd.device-timeout=10s';

function withOptions(options: string, wanted: readonly string[]): string {
  const present = options.split(',');
  const names = new Set(present.map((o) => o.replace(/=.*/, '')));
  return [...present, ...wanted.filter((o) => !names.has(o.replace(/=.*/, '')))].join(',');
}

/** What becomes of an entry because of the disk it is on: set aside with a reason, or no longer waited for. */
export type EntryFate = { kind: 'set aside'; why: string } | { kind: 'optional' } | undefined;

/** Decides by mount point (undefined for swap) and device. */
export type FateOf = (device: string, mountPoint: string | undefined) => EntryFate;

function editLine(line: string, names: DeviceNames, warnings: string[], fateOf: FateOf): string {
  const fields = parseTableLine(line)?.fields ?? [];
  const [spec, mountPoint, type, options] = fields;
  if (spec === undefined || mountPoint === undefined || type === undefined) return line;
  const point = unescapeField(mountPoint.text);
  const where = type.text === 'swap' ? undefined : point;
  const device = unescapeField(spec.text);
  const fate = fateOf(device, where);
  if (fate?.kind === 'set aside') return `# port-image: ${fate.why}: ${line}`;
  if (fate?.kind === 'optional') {
    const edited = editLine(line, names, warnings, () => undefined);
    return withEntryOptions(edited, ['nofail']);
  }
  const resolved = names.resolve(device, type.text, where);
  if (resolved.kind === 'known') return resolved.spec + line.slice(spec.end);
  if (resolved.kind === 'stable') return line;
  const chosen = options?.text.split(',') ?? [];
  if (chosen.includes('noauto')) return line;
  if (resolved.kind !== 'removable') {
    const missing =
      resolved.kind === 'absent' ? 'no captured disk has it' : 'it is not on the captured disks';
    warnings.push(
      `/etc/fstab: ${device} for ${point} (${type.text}): ${missing}; the entry stays and no longer stops the boot`,
    );
    if (point === '/') return line;
  }
  const wanted = resolved.kind === 'removable' ? ['nofail'] : ['nofail', NO_WAIT];
  return withEntryOptions(line, wanted);
}

/** An entry with more options; one that is mounted only on demand stays. */
function withEntryOptions(line: string, wanted: readonly string[]): string {
  const options = parseTableLine(line)?.fields[3];
  if (options === undefined) return `${line.trimEnd()} ${withOptions('defaults', wanted)}`;
  if (options.text.split(',').includes('noauto')) return line;
  return line.slice(0, options.start) + withOptions(options.text, wanted) + line.slice(options.end);
}

/**
 * Replaces hardware names by UUIDs. Entries of devices that were not captured stay, but get `nofail` and a short
 * wait, so that the boot does not stop at them. `names` learns from the mount points on the way.
 */
export function editFstab(text: string, names: DeviceNames, fateOf: FateOf = () => undefined): Edited {
  const warnings: string[] = [];
  const lines = text.split('\n');
  for (const line of lines) {
    const [spec, mountPoint] = parseTableLine(line)?.fields ?? [];
    if (spec !== undefined && mountPoint !== undefined) {
      names.learn(unescapeField(spec.text), unescapeField(mountPoint.text));
    }
  }
  return { text: lines.map((line) => editLine(line, names, warnings, fateOf)).join('\n'), warnings };
}

/** Replaces hardware names in the second field of `/etc/crypttab`. */
export function editCrypttab(text: string, names: DeviceNames): Edited {
  const warnings: string[] = [];
  const edited = text.split('\n').map((line) => {
    const [target, device] = parseTableLine(line)?.fields ?? [];
    if (target === undefined || device === undefined) return line;
    const resolved = names.resolve(device.text);
    if (resolved.kind === 'known')
      return line.slice(0, device.start) + resolved.spec + line.slice(device.end);
    if (resolved.kind === 'unknown') {
      warnings.push(`/etc/crypttab: ${device.text} for ${target.text} is not on the captured disks`);
    }
    return line;
  });
  return { text: edited.join('\n'), warnings };
}
