import { execFileSync } from 'node:child_process';
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import * as path from 'node:path';
import fc from 'fast-check';
import { afterEach, expect, test, vi } from 'vitest';
import { launch } from '../../tools/guestfish.ts';
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

// A guestfish that knows two folders: /srv/home and /home, an absolute link to it.
const FAKE = `#!/bin/sh
while read -r line; do
  case $line in
  echo*) echo "\${line#echo }" ;;
  *) printf '%s\\n' "$line" >> "$0.log" ;;
  esac
  case $line in
  '-rm-f "/home/folder"') echo 'libguestfs: error: rm_f: /home/folder: Is a directory' >&2 ;;
  '-rm-f "/file/below"') echo 'libguestfs: error: rm_f: /file/below: Not a directory' >&2 ;;
  '-realpath "/home"') echo /srv/home ;;
  esac
done
`;

afterEach(() => vi.unstubAllEnvs());

test('what is removed or linked below an absolute link is named by its real place in the guest', async () => {
  const dir = mkdtempSync(path.join(tmpdir(), 'guestfish-'));
  try {
    const fake = path.join(dir, 'guestfish');
    writeFileSync(fake, FAKE);
    chmodSync(fake, 0o755);
    vi.stubEnv('PATH', `${dir}:${process.env.PATH}`);
    const session = await launch({
      overlays: [],
      tmpDir: path.join(dir, 'tmp'),
      env: {},
      signal: new AbortController().signal,
      sourceFile: () => Promise.reject(new Error('none')),
    });
    writeFileSync(`${fake}.log`, '');
    await session.remove('/home/file');
    await session.remove('/home/folder');
    await session.remove('/file/below');
    await session.symlink('/target', '/home/link');
    await session.symlink('/target', '/top');
    await session.abort();
    expect(readFileSync(`${fake}.log`, 'utf8').trim().split('\n')).toEqual([
      '-rm-f "/home/file"',
      '-rm-f "/home/folder"',
      '-realpath "/home"',
      '-rm-rf "/srv/home/folder"',
      '-rm-f "/file/below"',
      '-realpath "/home"',
      '-ln-sf "/target" "/srv/home/link"',
      '-ln-sf "/target" "/top"',
    ]);
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
});
