import { execFileSync } from 'node:child_process';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { quote, shellQuote } from '../../tools/guestfish-quote.ts';

const bytes = fc.uint8Array({ minLength: 0, maxLength: 200, min: 1 }).map((a) => Buffer.from(a));

test('a quoted guestfish argument is one line of harmless characters', () => {
  fc.assert(
    fc.property(bytes, (raw) => {
      expect(quote(raw)).toMatch(/^"(?:[A-Za-z0-9_./=:,+@ -]|\\x[0-9a-f]{2})*"$/);
    }),
  );
});

test('sh gives back every quoted byte', () => {
  const samples = fc.sample(bytes, 200);
  const script = Buffer.concat(
    samples.map((s) => Buffer.concat([Buffer.from("printf '%s\\0' "), shellQuote(s), Buffer.from('\n')])),
  );
  const output = execFileSync('sh', [], { input: script });
  expect(output.equals(Buffer.concat(samples.flatMap((s) => [s, Buffer.from([0])])))).toBe(true);
});

test('NUL is refused', () => {
  expect(() => quote(Buffer.from([0x61, 0]))).toThrow(/NUL/);
  expect(() => shellQuote('a\0b')).toThrow(/NUL/);
});
