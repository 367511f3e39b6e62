import { spawnSync } from 'node:child_process';
import * as path from 'node:path';
import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { requires } from '../support/requires.ts';

const SCRIPT = path.resolve('guest/json-get.awk');
const AWKS = [['mawk'], ['gawk'], ['busybox', 'awk']].filter(
  ([program = '']) => requires(program) === undefined,
);

function get(awk: string[], json: string, pointer: string): { status: number | null; out: string } {
  const [program = '', ...args] = awk;
  const result = spawnSync(program, [...args, '-f', SCRIPT], {
    input: json,
    encoding: 'utf8',
    env: { ...process.env, LC_ALL: 'C', JSON_POINTER: pointer },
  });
  return { status: result.status, out: result.stdout.replace(/\n$/, '') };
}

const pointerPart = (key: string) => key.replaceAll('~', '~0').replaceAll('/', '~1');

// Arbitrary JSON without NUL, which awk cannot hold and no document of ours contains.
const text = fc.string({ unit: 'binary', maxLength: 12 }).map((s) => s.replaceAll('\0', '').toWellFormed());

describe.each(AWKS.map((awk) => [awk.join(' '), awk] as const))('json-get.awk in %s', (_name, awk) => {
  test('finds any string in any document', () => {
    fc.assert(
      fc.property(text, text, fc.jsonValue({ maxDepth: 3 }), fc.boolean(), (key, value, other, indent) => {
        const noise = JSON.parse(JSON.stringify(other).replaceAll('\\u0000', '')) as unknown;
        const document = JSON.stringify({ noise, a: [1, { [key]: value }] }, null, indent ? 2 : 0);
        const found = get(awk, document, `/a/1/${pointerPart(key)}`);
        expect(found.out).toBe(value);
        expect(found.status).toBe(0);
      }),
      { numRuns: 60 },
    );
  });

  test('escapes, surrogates, numbers, last of equal keys', () => {
    const json =
      '{"u":"h\\u00e9\\ud83d\\ude00\\/","n":-1.5e3,"t":true,"k":1,"k":2,"o":{"x":1},"e":{},"l":[]}';
    expect(get(awk, json, '/u').out).toBe('hé😀/');
    expect(get(awk, json, '/n').out).toBe('-1.5e3');
    expect(get(awk, json, '/t').out).toBe('true');
    expect(get(awk, json, '/k').out).toBe('2');
    expect(get(awk, json, '/o').status).toBe(1);
    expect(get(awk, json, '/missing').status).toBe(1);
  });

  test.each([
    '',
    '{',
    '{"a":1',
    '{"a":}',
    '[1,]',
    '{"a":1}}',
    '"\\ud800x"',
    '{"a":"\\q"}',
    '01',
    '{"a" 1}',
    '\u0001',
  ])('refuses %j', (json) => {
    expect(get(awk, json, '/a').status).toBe(2);
  });

  test('bounded on deep nesting', () => {
    expect(get(awk, `${'['.repeat(5000)}${']'.repeat(5000)}`, '/0').status).toBe(2);
  });
});
