/** The text of a sync file as a value, and where in the text each part of it stands. */
import * as yaml from 'yaml';

/** Something wrong, at a place of the file. */
export interface Problem {
  /** From 1. */
  line: number;
  /** From 1. */
  column: number;
  /** `targets.b.lanes`; '' for the text itself. */
  path: string;
  text: string;
  /** What to do, where the text does not say it. */
  hint?: string | undefined;
}

/** A file that could be read as YAML. */
export interface YamlText {
  value: unknown;
  /** Wrong in the text itself. With one of them that is `fatal` the value is undefined. */
  problems: Problem[];
  /** Place of a key, or of an item of a list; of what holds it when there is none. */
  at(path: readonly PropertyKey[]): { line: number; column: number };
}

/** Errors after which the rest of the file still means what it says. */
const HARMLESS = new Set(['TAG_RESOLVE_FAILED']);

const MISSING = 'something is missing here: a quote, a bracket, a comma or a colon';
/** What the parser calls wrong, in words for people who do not know its grammar. */
const WORDS: Readonly<Record<string, string>> = {
  TAB_AS_INDENT: 'a tab; YAML is indented with spaces',
  MULTIPLE_DOCS: 'a second document begins here; a sync is one file',
  BAD_INDENT: 'this line is not indented as the lines it belongs to',
  MISSING_CHAR: MISSING,
  MULTILINE_IMPLICIT_KEY: 'a colon is missing here, or the line before goes on where it should not',
  BLOCK_AS_IMPLICIT_KEY: 'two keys in one line, or a value that needs quotes',
  UNEXPECTED_TOKEN: 'this fits nowhere here',
  TAG_RESOLVE_FAILED: 'tags (!…) are not read here',
};

/** Reads it. Never throws; nothing of the text is quoted but names of keys, for it may hold what it should not. */
export function readYaml(text: string): YamlText {
  try {
    return read(text);
  } catch (error) {
    // parser and visitor call themselves for each level
    if (error instanceof RangeError) return unreadable([{ ...START, path: '', text: TOO_DEEP }]);
    throw error;
  }
}

const TOO_DEEP = 'nested too deeply';
const START = { line: 1, column: 1 };

function unreadable(problems: Problem[]): YamlText {
  return { value: undefined, problems, at: () => START };
}

function read(text: string): YamlText {
  const lines = new yaml.LineCounter();
  const place = (offset: number): { line: number; column: number } => {
    const { line, col } = lines.linePos(offset);
    return { line: Math.max(line, 1), column: Math.max(col, 1) };
  };
  const doc = yaml.parseDocument(text, {
    version: '1.2',
    schema: 'core',
    merge: false,
    // its own test compares each key with each; ours is below
    uniqueKeys: false,
    prettyErrors: false,
    lineCounter: lines,
  });
  const problems: Problem[] = [...doc.errors, ...doc.warnings].map(({ code, message, pos }) => ({
    ...place(pos[0]),
    path: '',
    text: words(code, message),
  }));
  const exhausted = doc.errors.find(({ code }) => code === 'RESOURCE_EXHAUSTION');
  if (exhausted !== undefined) return unreadable([{ ...place(exhausted.pos[0]), path: '', text: TOO_DEEP }]);
  if (doc.errors.some(({ code }) => !HARMLESS.has(code))) return unreadable(problems);
  const unread = references(doc, place);
  if (unread.length > 0) return unreadable([...problems, ...unread]);
  return {
    value: doc.toJS({ maxAliasCount: 0 }),
    problems: [...problems, ...twice(doc, place)],
    at: (path) => place(offsetOf(doc, path)),
  };
}

const REFERENCE = 'anchors and aliases (&…, *…) are not read here; write it out';

/** A few lines of aliases unfold to gigabytes; files of this kind need none. */
function references(
  doc: yaml.Document.Parsed,
  place: (offset: number) => { line: number; column: number },
): Problem[] {
  const found: Problem[] = [];
  const tell = (node: { range?: yaml.Range | null | undefined }) => {
    found.push({ ...place(node.range?.[0] ?? 0), path: '', text: REFERENCE });
  };
  yaml.visit(doc, {
    Alias: (_, node) => tell(node),
    Value: (_, node) => {
      if (node.anchor !== undefined) tell(node);
    },
    Pair: (_, { key }) => {
      if (yaml.isCollection(key))
        found.push({ ...place(key.range?.[0] ?? 0), path: '', text: 'a key is a word' });
    },
  });
  return found;
}

function twice(
  doc: yaml.Document.Parsed,
  place: (offset: number) => { line: number; column: number },
): Problem[] {
  const found: Problem[] = [];
  yaml.visit(doc, {
    Map: (_, { items }) => {
      const seen = new Set<string>();
      for (const { key } of items) {
        if (!yaml.isScalar(key)) continue;
        const name = String(key.value);
        if (seen.has(name))
          found.push({
            ...place(key.range?.[0] ?? 0),
            path: '',
            text: `${name.slice(0, 80)} stands here twice`,
          });
        seen.add(name);
      }
    },
  });
  return found;
}

function words(code: string, message: string): string {
  // an open bracket runs into the next line, which is then called badly indented
  if (code === 'BAD_INDENT' && message.startsWith('Flow')) return MISSING;
  return WORDS[code] ?? withoutQuotes(message);
}

/** The parser's own message as far as it quotes nothing. */
function withoutQuotes(message: string): string {
  const [first = ''] = message.split(/[:\n]? *["'`\n]/);
  return first.trim() === '' ? 'not YAML' : first.trim().slice(0, 120);
}

/** Where the deepest part of the path that exists begins. */
function offsetOf(doc: yaml.Document.Parsed, path: readonly PropertyKey[]): number {
  let node: unknown = doc.contents;
  let offset = yaml.isNode(node) ? (node.range?.[0] ?? 0) : 0;
  for (const step of path) {
    if (yaml.isMap(node)) {
      const pair = node.items.find(({ key }) => yaml.isScalar(key) && String(key.value) === String(step));
      if (pair === undefined) return offset;
      if (yaml.isNode(pair.key)) offset = pair.key.range?.[0] ?? offset;
      node = pair.value;
    } else if (yaml.isSeq(node)) {
      node = node.items[Number(step)];
      if (!yaml.isNode(node)) return offset;
      offset = node.range?.[0] ?? offset;
    } else {
      return offset;
    }
  }
  return offset;
}
