/** `key=value` files, with or without `[sections]`: changed in place, comments and order kept. */

/** One setting. */
export interface Setting {
  /** Section it belongs to; the part before the first section when absent. */
  section?: string;
  key: string;
  value: string;
}

/** Where the lines of a section are: from the one after its header to the next header. */
function sectionOf(
  lines: readonly string[],
  section: string | undefined,
): { from: number; to: number } | undefined {
  const isHeader = (line: string) => /^\s*\[[^\]]*\]\s*$/.test(line);
  const from =
    section === undefined ? 0 : lines.findIndex((l) => isHeader(l) && l.trim() === `[${section}]`) + 1;
  if (section !== undefined && from === 0) return undefined;
  const next = lines.findIndex((l, i) => i >= from && isHeader(l));
  return { from, to: next === -1 ? lines.length : next };
}

function withSetting(text: string, { section, key, value }: Setting): string {
  const lines = text === '' ? [] : text.replace(/\n$/, '').split('\n');
  const wanted = `${key}=${value}`;
  const place = sectionOf(lines, section);
  if (place === undefined) {
    const gap = lines.length === 0 || lines.at(-1) === '' ? [] : [''];
    return `${[...lines, ...gap, `[${section}]`, wanted].join('\n')}\n`;
  }
  const isKey = (line: string) => /^\s*([^#;=\s][^=]*?)\s*=/.exec(line)?.[1] === key;
  const found = lines.slice(place.from, place.to).flatMap((l, i) => (isKey(l) ? [place.from + i] : []));
  const [first, ...more] = found;
  if (first === undefined) {
    let at = place.to;
    while (at > place.from && lines[at - 1] === '') at--;
    lines.splice(at, 0, wanted);
  } else {
    if (lines[first]?.replace(/\s*=\s*/, '=').trim() !== wanted) lines[first] = wanted;
    for (const index of more.reverse()) lines.splice(index, 1);
  }
  return `${lines.join('\n')}\n`;
}

/** Sets each once; doing it again changes nothing. */
export function setSettings(text: string, settings: readonly Setting[]): string {
  return settings.reduce(withSetting, text);
}
