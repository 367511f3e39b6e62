/** The output of remote/inventory.sh, taken apart. What it says is hostile: bounded, never trusted to be well formed. */

/** Longest value that is kept of anything. */
const MAX_TEXT = 1024;

/** Sections by name; a mark that the machine cannot know separates them. */
export type Sections = ReadonlyMap<string, string>;

/** Splits the output. */
export function splitSections(output: string, mark: string): Sections {
  const sections = new Map<string, string>();
  for (const piece of output.split(`\n@${mark} `).slice(1)) {
    const end = piece.indexOf('\n');
    sections.set(piece.slice(0, end), piece.slice(end + 1));
  }
  return sections;
}

/** A value cut to its longest. */
export function short(text: string): string {
  return text.trim().slice(0, MAX_TEXT);
}

/** A value, or undefined when there is nothing in it. */
export function some(text: string | undefined): string | undefined {
  const cut = short(text ?? '');
  return cut === '' ? undefined : cut;
}

/** Lines that say something. */
export function lines(sections: Sections, name: string): string[] {
  return (sections.get(name) ?? '').split('\n').filter((l) => l.trim() !== '');
}

/** A whole number that is not negative, else `otherwise`. */
export function count(text: string | undefined, otherwise = 0): number {
  const value = Number(text);
  return text !== undefined && text.trim() !== '' && Number.isSafeInteger(value) && value >= 0
    ? value
    : otherwise;
}

/** Values by key of one thing; a key may come several times. */
export type Facts = ReadonlyMap<string, readonly string[]>;

/** Lines `NAME <tab> KEY <tab> VALUE`, gathered by name in the order they came. */
export function factsByName(rows: readonly string[]): Map<string, Map<string, string[]>> {
  const all = new Map<string, Map<string, string[]>>();
  for (const row of rows) {
    const [long = '', key = '', ...value] = row.split('\t');
    const name = short(long);
    const facts = all.get(name) ?? new Map<string, string[]>();
    all.set(name, facts);
    facts.set(key, [...(facts.get(key) ?? []), short(value.join('\t'))]);
  }
  return all;
}

/** JSON of a program, or undefined when it is none. */
export function json(text: string | undefined): unknown {
  try {
    return JSON.parse(text ?? '');
  } catch {
    return undefined;
  }
}
