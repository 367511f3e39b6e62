/**
 * Editing a generated `grub.cfg` in place. Running the guest's update-grub in the appliance is a trap: it looks at the
 * appliance's firmware and disks. So only words that must change are replaced; every other byte stays.
 */
import { addArguments, QUIET_WORDS } from './kernel-arguments.ts';

interface Word {
  text: string;
  start: number;
  end: number;
}

/** A `linux` command of a menu entry. */
export interface LinuxLine {
  /** Place of the whole line in the text, without white space at its end. */
  start: number;
  end: number;
  /** Kernel path as written. */
  kernel: string;
  /** The words after the kernel, as written. */
  words: Word[];
  /** True when the same entry loads an initramfs. */
  hasInitrd: boolean;
}

/** Splits a grub.cfg command into words with their places; quotes and backslashes stay in the words. */
export function grubWords(line: string): Word[] {
  const pattern = /(?:[^\s"'\\]|\\[\s\S]?|'[^']*'?|"(?:[^"\\]|\\[\s\S])*"?)+/g;
  return [...line.matchAll(pattern)].map((m) => ({
    text: m[0],
    start: m.index,
    end: m.index + m[0].length,
  }));
}

/** Finds the commands that boot Linux (not memory tests or Xen modules). */
export function linuxLines(text: string): LinuxLine[] {
  const found: LinuxLine[] = [];
  let offset = 0;
  const lines = text.split('\n');
  for (const [number, line] of lines.entries()) {
    const start = offset;
    offset += line.length + 1;
    if (!/^[ \t]*linux(?:16|efi)?[ \t]/.test(line)) continue;
    const [, kernel, ...words] = grubWords(line).map((w) => ({
      text: w.text,
      start: w.start + start,
      end: w.end + start,
    }));
    if (kernel === undefined) continue;
    if (!/vmlinu/.test(kernel.text) && !words.some((w) => w.text.startsWith('root='))) continue;
    const end = words.at(-1)?.end ?? kernel.end;
    found.push({ start, end, kernel: kernel.text, words, hasInitrd: loadsInitrd(lines.slice(number + 1)) });
  }
  return found;
}

function loadsInitrd(following: readonly string[]): boolean {
  for (const line of following) {
    if (/^[ \t]*initrd(?:16|efi)?[ \t]/.test(line)) return true;
    if (/^[ \t]*(?:\}|menuentry\b|linux(?:16|efi)?[ \t])/.test(line)) return false;
  }
  return false;
}

/** What to do with the words of a kernel command line. */
export interface ArgumentChange {
  /** New text of a word, or undefined to drop it. */
  replace(word: string, hasInitrd: boolean): string | undefined;
  /** Arguments every entry gets. */
  add: readonly string[];
  /** Drop `quiet` and its like. */
  verbose: boolean;
}

/** Applies a change to a list of words. */
export function changeWords(words: readonly string[], change: ArgumentChange, hasInitrd: boolean): string[] {
  const kept = words
    .filter((w) => !(change.verbose && QUIET_WORDS.includes(w)))
    .map((w) => change.replace(w, hasInitrd))
    .filter((w) => w !== undefined);
  return addArguments(kept, change.add);
}

/** Applies a change to every Linux entry of a grub.cfg. */
export function editLinuxLines(text: string, change: ArgumentChange): string {
  let edited = text;
  for (const line of linuxLines(text).reverse()) {
    const before = line.words.map((w) => w.text);
    const after = changeWords(before, change, line.hasInitrd);
    if (after.join('\n') === before.join('\n')) continue;
    const start = line.words[0]?.start ?? line.end;
    const lead = line.words.length === 0 ? ' ' : '';
    edited = edited.slice(0, start) + lead + keepSpacing(text, line, after) + edited.slice(line.end);
  }
  return edited;
}

/** Joins words with the white space that stood between each pair where the pair is still there. */
function keepSpacing(text: string, line: LinuxLine, after: readonly string[]): string {
  const gaps = new Map<string, string>();
  for (const [i, word] of line.words.entries()) {
    const next = line.words[i + 1];
    if (next !== undefined) gaps.set(`${word.text}\n${next.text}`, text.slice(word.end, next.start));
  }
  return after.map((w, i) => (i === 0 ? w : (gaps.get(`${after[i - 1]}\n${w}`) ?? ' ') + w)).join('');
}

/** Command that gives GRUB the first serial port. */
export const SERIAL_COMMAND = 'serial --speed=115200 --unit=0 --word=8 --parity=no --stop=1';

/**
 * Makes the menu appear on plain consoles: `serial` adds the serial port, for BIOS machines; on UEFI the firmware's
 * console already reaches it. Graphics terminals are dropped, nobody sees them.
 */
export function editTerminal(text: string, serial: boolean): string {
  const lines = text.split('\n');
  const at = lines.findIndex((l) => /^[ \t]*terminal_output[ \t]/.test(l));
  if (at === -1) return text;
  const names = serial ? 'console serial' : 'console';
  const block = [...(serial ? [SERIAL_COMMAND] : []), `terminal_input ${names}`, `terminal_output ${names}`];
  return lines
    .flatMap((line, i) => {
      if (i === at) return block;
      return /^[ \t]*(?:terminal_input|terminal_output|serial)[ \t]/.test(line) ? [] : [line];
    })
    .join('\n');
}

/** Longest menu wait kept, in seconds. */
const MAX_TIMEOUT_SECONDS = 30;
/** Menu wait where the guest's is absurd, in seconds. */
export const DEFAULT_TIMEOUT_SECONDS = 5;

/** True when a menu wait would keep an unattended machine from booting: forever, or very long. */
export function isAbsurdTimeout(value: string): boolean {
  return /^-?\d+$/.test(value) && (Number(value) < 0 || Number(value) > MAX_TIMEOUT_SECONDS);
}

/** Replaces absurd `set timeout=` values. */
export function editTimeout(text: string): string {
  return text.replace(
    /^([ \t]*set timeout=)(["']?)(-?\d+)\2/gm,
    (all, lead: string, quote: string, value: string) =>
      isAbsurdTimeout(value) ? `${lead}${quote}${DEFAULT_TIMEOUT_SECONDS}${quote}` : all,
  );
}
