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

/**
 * The union of several platforms' arguments: the first spelling of each console device and of each other key wins,
 * terminals come before serial lines, because the last `console=` owns /dev/console.
 */
export function uniteArguments(lists: readonly (readonly string[])[]): string[] {
  const union = new Map<string, string>();
  for (const word of lists.flat()) {
    const id = consoleDevice(word) ?? key(word);
    if (!union.has(id)) union.set(id, word);
  }
  const words = [...union.values()];
  const consoles = words.filter((w) => consoleDevice(w) !== undefined);
  return [
    ...words.filter((w) => consoleDevice(w) === undefined),
    ...consoles.filter(isTerminal),
    ...consoles.filter((w) => !isTerminal(w)),
  ];
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
