/** mkinitcpio.conf of Arch Linux: the arrays MODULES and HOOKS. bash reads the file; nothing is run here. */

/** An array assignment on one or several lines, without quotes or expansions inside. */
function findArray(text: string, name: string): { start: number; end: number; words: string[] } | undefined {
  const pattern = new RegExp(`^[ \\t]*${name}=(?:\\(([^)"'$\`\\\\#]*)\\)|"([^"$\`\\\\\\n]*)")[ \\t]*$`, 'gm');
  const match = [...text.matchAll(pattern)].at(-1);
  if (match === undefined) return undefined;
  const words = (match[1] ?? match[2] ?? '').split(/\s+/).filter((word) => word !== '');
  return { start: match.index, end: match.index + match[0].length, words };
}

/** True when some line assigns the array in a form that is not understood. */
function isOpaque(text: string, name: string): boolean {
  return new RegExp(`^[ \\t]*${name}\\+?=`, 'm').test(text) && findArray(text, name) === undefined;
}

function setArray(text: string, name: string, words: readonly string[]): string {
  const line = `${name}=(${words.join(' ')})`;
  const found = findArray(text, name);
  if (found !== undefined) return text.slice(0, found.start) + line + text.slice(found.end);
  return `${text.replace(/([^\n])$/, '$1\n')}${line}\n`;
}

/** What became of a mkinitcpio.conf. */
export interface MkinitcpioEdit {
  text: string;
  /** Arrays written in a way that is not understood; they stay. */
  opaque: string[];
}

/**
 * Adds what is missing to MODULES and drops the hook `autodetect`, which leaves out what the building machine lacks.
 * Doing it again changes nothing.
 */
export function editMkinitcpio(text: string, modules: readonly string[]): MkinitcpioEdit {
  const opaque = ['MODULES', 'HOOKS'].filter((name) => isOpaque(text, name));
  let edited = text;
  if (!opaque.includes('MODULES')) {
    const present = findArray(edited, 'MODULES')?.words ?? [];
    // A question mark at the end of a module's name means that it may be missing.
    const known = new Set(present.map((word) => word.replace(/\?$/, '').replaceAll('-', '_')));
    const missing = modules.filter((m) => !known.has(m.replaceAll('-', '_')));
    if (missing.length > 0) edited = setArray(edited, 'MODULES', [...present, ...missing]);
  }
  if (!opaque.includes('HOOKS')) {
    const hooks = findArray(edited, 'HOOKS')?.words ?? [];
    if (hooks.includes('autodetect')) {
      edited = setArray(
        edited,
        'HOOKS',
        hooks.filter((hook) => hook !== 'autodetect'),
      );
    }
  }
  return { text: edited, opaque };
}
