/** The answers database of debconf (`/var/cache/debconf/config.dat`): stanzas of `Name: value` lines. */

function stanzaOf(text: string, name: string): { start: number; end: number } | undefined {
  const marker = `Name: ${name}\n`;
  const at = text.startsWith(marker) ? 0 : text.indexOf(`\n\n${marker}`) + 2;
  if (at === 1) return undefined;
  const end = text.indexOf('\n\n', at);
  return { start: at, end: end === -1 ? text.length : end + 1 };
}

/** The stored answer; undefined when the question was never registered. */
export function debconfValue(text: string, name: string): string | undefined {
  const place = stanzaOf(text, name);
  if (place === undefined) return undefined;
  return /^Value:[ ]?(.*)$/m.exec(text.slice(place.start, place.end))?.[1] ?? '';
}

/**
 * Stores an answer and marks it as seen, as `debconf-set-selections` does. A question that does not exist is added
 * for `owner`, or left alone when there is no owner.
 */
export function setDebconfValue(text: string, name: string, value: string, owner?: string): string {
  const place = stanzaOf(text, name);
  if (place === undefined) {
    if (owner === undefined) return text;
    const stanza = `Name: ${name}\nTemplate: ${name}\nValue: ${value}\nOwners: ${owner}\nFlags: seen\n`;
    const separator = text === '' || text.endsWith('\n\n') ? '' : '\n';
    return `${text}${separator}${stanza}\n`;
  }
  let stanza = text.slice(place.start, place.end);
  stanza = /^Value:.*$/m.test(stanza)
    ? stanza.replace(/^Value:.*$/m, () => `Value: ${value}`)
    : stanza.replace(/^(Template:.*\n)/m, (all) => `${all}Value: ${value}\n`);
  const flags = /^Flags:[ ]?(.*)$/m.exec(stanza)?.[1];
  if (flags === undefined) {
    const lead = stanza.endsWith('\n') ? '' : '\n';
    // Flags stand before the multi-line Variables.
    stanza = /^Variables:/m.test(stanza)
      ? stanza.replace(/^Variables:/m, 'Flags: seen\nVariables:')
      : `${stanza}${lead}Flags: seen\n`;
  } else if (!flags.split(/,\s*/).includes('seen')) {
    stanza = stanza.replace(/^Flags:.*$/m, () => `Flags: ${flags === '' ? 'seen' : `${flags}, seen`}`);
  }
  return text.slice(0, place.start) + stanza + text.slice(place.end);
}
