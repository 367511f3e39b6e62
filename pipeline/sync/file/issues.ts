/** What a schema finds wrong, in words, with the nearest name that exists. */
import type * as z from 'zod';
import { printable } from '../../../core/text.ts';

/** One wrong place. */
export interface Wrong {
  path: PropertyKey[];
  text: string;
}

/** Kinds of source: each has the one key that says which it is. */
const KINDS = ['glance', 'job', 'folder', 'servers'];

/** Of one place; whoever has more knows by then. */
const MOST_KEYS = 500;

type Issue = z.core.$ZodIssue;

/** Each issue as one or more wrong places; `value` is what was checked, `known` tells the keys a place may have. */
export function wrongPlaces(
  issues: readonly Issue[],
  value: unknown,
  known: (path: readonly PropertyKey[]) => readonly string[],
): Wrong[] {
  return issues.flatMap((issue) => places(issue, [], value, known));
}

function places(
  issue: Issue,
  before: readonly PropertyKey[],
  root: unknown,
  known: (path: readonly PropertyKey[]) => readonly string[],
): Wrong[] {
  const path = [...before, ...issue.path];
  if (issue.code === 'unrecognized_keys') {
    const there = known(path);
    return issue.keys
      .slice(0, MOST_KEYS)
      .map((key) => ({ path: [...path, key], text: unknownKey(key, there) }));
  }
  if (issue.code === 'invalid_key') {
    return [{ path, text: `not a name here: ${issue.issues[0]?.message ?? issue.message}` }];
  }
  if (issue.code === 'invalid_union') return ofUnion(issue, path, root, known);
  return [{ path, text: textOf(issue, valueAt(root, path)) }];
}

/** A source is wrong in the kind it says it is; of other unions every form is named. */
function ofUnion(
  issue: Extract<Issue, { code: 'invalid_union' }>,
  path: PropertyKey[],
  root: unknown,
  known: (path: readonly PropertyKey[]) => readonly string[],
): Wrong[] {
  const value = valueAt(root, path);
  if (path.length === 2 && path[0] === 'sources') {
    const given = typeof value === 'object' && value !== null ? Object.keys(value) : [];
    const kinds = KINDS.filter((kind) => given.includes(kind));
    const [kind] = kinds;
    if (kind === undefined) {
      const close = given.map((key) => nearest(key, KINDS)).find((near) => near !== undefined);
      return [{ path, text: `one of ${KINDS.join(', ')} is missing${maybe(close)}` }];
    }
    if (kinds.length > 1) return [{ path, text: `${kinds.join(' and ')}: only one kind in one source` }];
    const own = issue.errors[KINDS.indexOf(kind)] ?? [];
    return own.flatMap((inner) => places(inner, path, root, known));
  }
  const forms = issue.errors.map(([first]) => (first === undefined ? '' : textOf(first, value)));
  return [{ path, text: [...new Set(forms)].filter((form) => form !== '').join(', or ') }];
}

const NOUNS: Readonly<Record<string, string>> = {
  string: 'text',
  number: 'a number',
  int: 'a whole number',
  boolean: 'true or false',
  array: 'a list',
  tuple: 'a list',
  object: 'keys and values',
  record: 'keys and values',
};

function textOf(issue: Issue, value: unknown): string {
  switch (issue.code) {
    case 'invalid_type': {
      if (value === undefined) return 'is missing';
      const noun = NOUNS[issue.expected] ?? issue.expected;
      const isPlain = typeof value === 'number' || typeof value === 'boolean';
      return `must be ${noun}${issue.expected === 'string' && isPlain ? ': put it in quotes' : ''}`;
    }
    case 'invalid_value': {
      const words = issue.values.map(String);
      const text = words.length === 1 ? `must be ${words[0]}` : `must be one of ${words.join(', ')}`;
      return value === undefined ? `is missing; ${text}` : `${text}${maybe(nearest(String(value), words))}`;
    }
    case 'too_small':
      if (issue.origin === 'array' || issue.origin === 'set') return 'the list is empty';
      if (issue.origin === 'string') return Number(issue.minimum) > 1 ? 'too short' : 'is empty';
      return `must be at least ${issue.minimum}`;
    case 'too_big':
      if (issue.origin === 'string') return `longer than ${issue.maximum} characters`;
      return `must be at most ${issue.maximum}`;
    default:
      return printable(issue.message);
  }
}

function unknownKey(key: string, known: readonly string[]): string {
  const near = nearest(key, known);
  if (near !== undefined) return `there is no such key${maybe(near)}`;
  return known.length === 0 ? 'there is no such key' : `there is no such key; there are ${known.join(', ')}`;
}

function maybe(near: string | undefined): string {
  return near === undefined ? '' : `; did you mean ${near}?`;
}

/** The value at a path; undefined when it ends before. */
export function valueAt(root: unknown, path: readonly PropertyKey[]): unknown {
  let value = root;
  for (const step of path) {
    if (typeof value !== 'object' || value === null || !Object.hasOwn(value, step)) return undefined;
    value = (value as Record<PropertyKey, unknown>)[step];
  }
  return value;
}

/** Longest word whose neighbours are looked for; the work grows with its square. */
const MOST_CHARS = 40;

/** The word that is written almost like this one. */
export function nearest(word: string, words: readonly string[]): string | undefined {
  if (word.length > MOST_CHARS) return undefined;
  const plain = (text: string) => text.toLowerCase().replace(/[-_ ]/g, '');
  let best: string | undefined;
  let least = Math.ceil(word.length / 3) + 1;
  for (const candidate of words) {
    const far = distance(plain(word), plain(candidate));
    if (far < least) {
      best = candidate;
      least = far;
    }
  }
  return best;
}

/** Letters to add, drop, change or swap (optimal string alignment). */
function distance(a: string, b: string): number {
  let beforeLast: number[] = [];
  let last = Array.from({ length: b.length + 1 }, (_, at) => at);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const change = (last[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1);
      let least = Math.min((last[j] ?? 0) + 1, (row[j - 1] ?? 0) + 1, change);
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1])
        least = Math.min(least, (beforeLast[j - 2] ?? 0) + 1);
      row.push(least);
    }
    beforeLast = last;
    last = row;
  }
  return last[b.length] ?? 0;
}
