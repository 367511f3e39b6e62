/** The kernel command line as a list of words. */

/** Splits at white space outside double quotes, as the kernel does. */
export function splitArguments(line: string): string[] {
  return line.match(/(?:[^\s"]|"[^"]*"?)+/g) ?? [];
}

function key(word: string): string {
  return word.replace(/=.*/s, '');
}

function consoleDevice(word: string): string | undefined {
  return /^console=([^,]+)/.exec(word)?.[1];
}

/** True for a virtual terminal; `/dev/console` should be a serial line when there is one. */
function isTerminal(word: string): boolean {
  return /^tty\d*$/.test(consoleDevice(word) ?? '');
}

/** Where a platform wants to wait longer than another, the longer time harms nobody. */
const LARGEST_WINS: ReadonlySet<string> = new Set(['nvme_core.io_timeout', 'nvme.io_timeout']);

/** One argument of a union, and the spellings that gave way to it. */
interface Chosen {
  word: string;
  dropped: string[];
}

/** What decides whether two words say the same: the device of a console, all virtual terminals as one, else the key. */
function identity(word: string): string {
  return isTerminal(word) ? 'console terminal' : (consoleDevice(word) ?? key(word));
}

/** `115200` and `115200n8` are one line setting: no parity and 8 bits are the kernel's default (Documentation/admin-guide/serial-console.rst). */
const plain = (word: string) => (consoleDevice(word) === undefined ? word : word.replace(/(,\d+)n8$/, '$1'));

function choose(lists: readonly (readonly string[])[]): Chosen[] {
  const union = new Map<string, Chosen>();
  for (const word of lists.flat()) {
    const id = identity(word);
    const chosen = union.get(id);
    if (chosen === undefined) {
      union.set(id, { word, dropped: [] });
      continue;
    }
    // Which terminal is shown is no conflict: one is enough, and tty0 is the one in front.
    if (plain(chosen.word) === plain(word) || isTerminal(word)) continue;
    const value = (w: string) => Number(w.slice(w.indexOf('=') + 1));
    if (LARGEST_WINS.has(key(word)) && value(word) > value(chosen.word)) {
      chosen.dropped.push(chosen.word);
      chosen.word = word;
    } else if (!chosen.dropped.includes(word)) chosen.dropped.push(word);
  }
  return [...union.values()];
}

/** Terminals first, then Xen's hvc0, then serial lines: a console nothing is behind must not be the last one. */
function consoleRank(word: string): number {
  if (consoleDevice(word) === undefined) return 0;
  return isTerminal(word) ? 1 : /^console=hvc/.test(word) ? 2 : 3;
}

/**
 * The union of several platforms' arguments: the first spelling of each serial line and of each other key wins (of time
 * limits the longest), one virtual terminal is enough. Terminals come before serial lines, because the last `console=`
 * owns /dev/console.
 */
export function uniteArguments(lists: readonly (readonly string[])[]): string[] {
  const words = choose(lists).map((c) => c.word);
  return words.sort((a, b) => consoleRank(a) - consoleRank(b));
}

/** Arguments the platforms disagree about, one line each: what is taken and what gives way. */
export function argumentConflicts(lists: readonly (readonly string[])[]): string[] {
  return choose(lists)
    .filter((c) => c.dropped.length > 0)
    .map((c) => `the platforms disagree: ${c.word} is taken, not ${c.dropped.join(', ')}`);
}

/** True when one of the arguments is a serial console. */
export function hasSerialConsole(words: readonly string[]): boolean {
  return words.some((w) => /^console=(?:ttyS|ttyAMA|hvc)/.test(w));
}

/** Words that keep the boot messages from the console. */
export const QUIET_WORDS: readonly string[] = ['quiet', 'splash', 'rhgb'];

/**
 * Adds `wanted` to a command line: other values of the same keys give way, the guest's other consoles stay but come
 * before ours. Doing it again changes nothing.
 */
export function addArguments(words: readonly string[], wanted: readonly string[]): string[] {
  const keys = new Set(wanted.filter((w) => consoleDevice(w) === undefined).map(key));
  const devices = new Set(wanted.map(consoleDevice).filter((d) => d !== undefined));
  const kept = words.filter((word) => {
    const device = consoleDevice(word);
    return device === undefined ? !keys.has(key(word)) : !devices.has(device);
  });
  const isWantedConsole = (w: string) => consoleDevice(w) !== undefined;
  return [...kept, ...wanted.filter((w) => !isWantedConsole(w)), ...wanted.filter(isWantedConsole)];
}

/**
 * What is left of a list that comes behind `wanted`, as GRUB_CMDLINE_LINUX_DEFAULT does: nothing of the same key or console,
 * and no virtual terminal where `wanted` ends with a serial line, which would lose /dev/console to it.
 */
export function withoutClashes(words: readonly string[], wanted: readonly string[]): string[] {
  const kept = addArguments(words, wanted).slice(0, -wanted.length || undefined);
  return hasSerialConsole(wanted) ? kept.filter((w) => !isTerminal(w)) : kept;
}
