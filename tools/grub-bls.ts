/**
 * Boot Loader Specification entries (`/boot/loader/entries/*.conf`), which GRUB of the RHEL family reads in place of a
 * generated menu (uapi-group.org/specifications/specs/boot_loader_specification, rhboot/grub2: blscfg.c).
 */
import { type ArgumentChange, changeWords } from './grub-edit.ts';
import { splitArguments } from './kernel-arguments.ts';

/** One entry. */
export interface BlsEntry {
  /** File name without `.conf`, which is GRUB's id of the entry. */
  id: string;
  title: string;
  version: string;
  /** Kernel path as written. */
  linux: string;
  /** Initramfs paths as written; variables such as `$tuned_initrd` are left out. */
  initrd: string[];
  /** Words of all `options` lines. */
  options: string[];
}

const KEY_LINE = /^([A-Za-z][\w-]*)[ \t]+(.*?)[ \t]*$/;

/** Reads an entry; undefined when it boots no Linux. */
export function parseBlsEntry(id: string, text: string): BlsEntry | undefined {
  const values = new Map<string, string[]>();
  for (const line of text.split('\n')) {
    const match = KEY_LINE.exec(line);
    if (match === null) continue;
    const key = match[1] ?? '';
    values.set(key, [...(values.get(key) ?? []), match[2] ?? '']);
  }
  const linux = values.get('linux')?.at(-1)?.split(/\s/)[0];
  if (linux === undefined || linux === '') return undefined;
  const initrd = (values.get('initrd') ?? [])
    .flatMap((v) => v.split(/\s+/))
    .filter((v) => !v.startsWith('$'));
  return {
    id,
    title: values.get('title')?.at(-1) ?? '',
    version: values.get('version')?.at(-1) ?? '',
    linux,
    initrd,
    options: (values.get('options') ?? []).flatMap(splitArguments),
  };
}

/**
 * Applies a change to the entry's `options`; every other line and word stays, variables included. `kernelopts` are put
 * where the entry names `$kernelopts` when the environment block has no room for them.
 */
export function editBlsEntry(text: string, change: ArgumentChange, kernelopts?: readonly string[]): string {
  const entry = parseBlsEntry('', text);
  if (entry === undefined) return text;
  const lines = text.split('\n');
  const at = lines.findIndex((line) => /^options[ \t]/.test(line));
  const words = entry.options.flatMap((word) =>
    isKernelopts(word) && kernelopts !== undefined ? kernelopts : [word],
  );
  // What the environment block holds is added there, once for all entries.
  const shared = words.some(isKernelopts);
  const after = changeWords(words, shared ? { ...change, add: [] } : change, entry.initrd.length > 0);
  if (after.join(' ') === entry.options.join(' ')) return text;
  const line = `options ${after.join(' ')}`;
  if (at === -1) return `${text.replace(/([^\n])$/, '$1\n')}${line}\n`;
  return lines.flatMap((old, i) => (i === at ? [line] : /^options[ \t]/.test(old) ? [] : [old])).join('\n');
}

/** True for the word that stands for grubenv's `kernelopts`. */
export function isKernelopts(word: string): boolean {
  return word === '$kernelopts' || word === `\${kernelopts}`;
}

/**
 * Order of GRUB's menu: newest first, by the file name as rpm compares versions (blscfg.c). Digits count as numbers,
 * `~` sorts before everything.
 */
export function compareBls(a: BlsEntry, b: BlsEntry): number {
  const parts = (id: string) => id.match(/\d+|[A-Za-z]+|~/g) ?? [];
  const [left, right] = [parts(a.id), parts(b.id)];
  for (let i = 0; i < Math.max(left.length, right.length); i++) {
    const [l, r] = [left[i], right[i]];
    if (l === r) continue;
    if (l === '~' || r === '~') return l === '~' ? 1 : -1;
    if (l === undefined || r === undefined) return l === undefined ? 1 : -1;
    const [lNumber, rNumber] = [/^\d/.test(l), /^\d/.test(r)];
    if (lNumber !== rNumber) return lNumber ? -1 : 1;
    if (lNumber && BigInt(l) !== BigInt(r)) return BigInt(l) > BigInt(r) ? -1 : 1;
    if (!lNumber) return l > r ? -1 : 1;
  }
  return 0;
}

/** Changes the fallback `set kernelopts="…"` and `set default_kernelopts="…"` of grub.cfg. */
export function editDefaultKernelopts(text: string, change: ArgumentChange): string {
  return text.replace(
    /^([ \t]*set (?:default_)?kernelopts=)"([^"\n]*)"/gm,
    (_all, head: string, value: string) =>
      `${head}"${changeWords(splitArguments(value), change, true).join(' ')}${value.endsWith(' ') ? ' ' : ''}"`,
  );
}
