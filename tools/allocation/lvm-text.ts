/** The text LVM keeps its metadata in: sections, assignments, strings, numbers, lists. Grammar: LVM2 libdm/libdm-config.c. */

/** A value: lists hold strings and numbers only. */
export type LvmValue = string | number | (string | number)[];

/** A section. Maps, because names come from the disk. */
export interface LvmSection {
  values: Map<string, LvmValue>;
  sections: Map<string, LvmSection>;
}

// a comment takes its line whole: one that could end anywhere would make matching exponential
const TOKEN = /(?:[\s\0]|#[^\n]*(?:\n|$))*(?:"((?:[^"\\]|\\.)*)"|([{}[\],=])|([A-Za-z0-9_.+-]+))/sy;
/** Sections inside sections; LVM itself uses four. */
const MAX_DEPTH = 16;
const NUMBER = /^[+-]?\d+(?:\.\d+)?$/;

interface Token {
  kind: 'string' | 'mark' | 'word';
  text: string;
}

function* tokens(text: string): Generator<Token, undefined> {
  TOKEN.lastIndex = 0;
  let at = 0;
  while (at < text.length) {
    TOKEN.lastIndex = at;
    const match = TOKEN.exec(text);
    if (match === null) {
      if (/^(?:[\s\0]|#[^\n]*(?:\n|$))*$/.test(text.slice(at))) return;
      throw new SyntaxError(`LVM metadata is not understood at ${at}`);
    }
    at = TOKEN.lastIndex;
    const [, string, mark, word] = match;
    if (string !== undefined) yield { kind: 'string', text: string.replace(/\\(.)/gs, '$1') };
    else if (mark !== undefined) yield { kind: 'mark', text: mark };
    else yield { kind: 'word', text: word ?? '' };
  }
}

function scalar(token: Token | undefined): string | number {
  if (token?.kind === 'string') return token.text;
  if (token?.kind === 'word' && NUMBER.test(token.text)) return Number(token.text);
  throw new SyntaxError('LVM metadata: a value is missing');
}

/** Parses metadata text. Throws SyntaxError; a name given twice in a section is one too. */
export function parseLvmText(text: string): LvmSection {
  const source = tokens(text);
  const next = (): Token | undefined => source.next().value;
  const root: LvmSection = { values: new Map(), sections: new Map() };
  const open: LvmSection[] = [root];
  for (let token = next(); token !== undefined; token = next()) {
    const section = open.at(-1) ?? root;
    if (token.kind === 'mark' && token.text === '}' && open.length > 1) {
      open.pop();
      continue;
    }
    if (token.kind === 'mark') throw new SyntaxError(`LVM metadata: unexpected ${token.text}`);
    const name = token.text;
    if (section.values.has(name) || section.sections.has(name)) {
      throw new SyntaxError('LVM metadata: a name stands twice in one section');
    }
    const mark = next();
    if (mark?.kind !== 'mark' || (mark.text !== '{' && mark.text !== '=')) {
      throw new SyntaxError('LVM metadata: a name is followed by nothing');
    }
    if (mark.text === '{') {
      const inner: LvmSection = { values: new Map(), sections: new Map() };
      section.sections.set(name, inner);
      open.push(inner);
      if (open.length > MAX_DEPTH) throw new SyntaxError('LVM metadata is nested too deep');
    } else section.values.set(name, readValue(next));
  }
  if (open.length > 1) throw new SyntaxError('LVM metadata ends in the middle');
  return root;
}

function readValue(next: () => Token | undefined): LvmValue {
  const first = next();
  if (first?.kind !== 'mark' || first.text !== '[') return scalar(first);
  const list: (string | number)[] = [];
  let token = next();
  while (!(token?.kind === 'mark' && token.text === ']')) {
    list.push(scalar(token));
    token = next();
    if (token?.kind === 'mark' && token.text === ',') token = next();
    else if (!(token?.kind === 'mark' && token.text === ']')) {
      throw new SyntaxError('LVM metadata: a list does not end');
    }
  }
  return list;
}
