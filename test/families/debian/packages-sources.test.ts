import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  keyring,
  parseDeb822,
  parseList,
  readSources,
  renderSources,
} from '../../../families/debian/packages-sources.ts';
import { FolderGuest } from './folder-guest.ts';

describe('one-line sources', () => {
  test('keeps http and https deb lines', () => {
    const { sources, warnings } = parseList(
      '# c\ndeb http://deb.debian.org/debian bookworm main contrib # x\ndeb-src http://deb.debian.org/debian bookworm main\n',
      'amd64',
    );
    expect(warnings).toEqual([]);
    expect(sources).toEqual([
      {
        uri: 'http://deb.debian.org/debian',
        suites: ['bookworm'],
        components: ['main', 'contrib'],
        signedBy: { kind: 'default' },
        ignoreExpiry: false,
      },
    ]);
  });
  test('options: arch, signed-by, check-valid-until', () => {
    const { sources } = parseList(
      'deb [arch=amd64,i386 signed-by=/usr/share/keyrings/a.gpg check-valid-until=no] https://x.org/d/ ./\n' +
        'deb [ arch=arm64 ] https://x.org/d stable main\n',
      'amd64',
    );
    expect(sources).toHaveLength(1);
    expect(sources[0]).toMatchObject({
      ignoreExpiry: true,
      components: [],
      signedBy: { kind: 'paths', paths: ['/usr/share/keyrings/a.gpg'] },
    });
  });
  test.each([
    'deb file:/srv/repo ./',
    'deb copy:/x ./',
    'deb cdrom:[Debian]/ bookworm main',
    'deb mirror+file:/etc/m bookworm main',
    'deb ssh://h/x bookworm main',
    'deb [trusted=yes] http://x.org/d stable main',
    'deb [allow-insecure=yes] http://x.org/d stable main',
    'deb http://user:secret@x.org/d stable main',
    'deb http://x.org/../../etc stable main',
    'deb http://x.org/d ../../etc main',
    'deb [signed-by=/../../etc/shadow;x] http://x.org/d stable main',
    'deb http://x.org/d stable ma$in',
    'deb http://x.org/d stable',
  ])('leaves out: %s', (line) => {
    const { sources, warnings } = parseList(line, 'amd64');
    expect(sources).toEqual([]);
    expect(warnings).toHaveLength(1);
    expect(warnings[0]).not.toContain('secret');
  });
});

describe('deb822 sources', () => {
  test('several suites, inline key, disabled stanza', () => {
    const text = [
      'Types: deb deb-src',
      'URIs: http://a.org/debian https://b.org/debian',
      'Suites: bookworm bookworm-updates',
      'Components: main',
      'Signed-By:',
      ' -----BEGIN PGP PUBLIC KEY BLOCK-----',
      ' .',
      ' mQENBF==',
      ' -----END PGP PUBLIC KEY BLOCK-----',
      '',
      'Enabled: no',
      'Types: deb',
      'URIs: http://c.org/',
      'Suites: x',
      'Components: y',
    ].join('\n');
    const { sources } = parseDeb822(text, 'amd64');
    expect(sources.map((s) => s.uri)).toEqual(['http://a.org/debian', 'https://b.org/debian']);
    expect(sources[0]?.signedBy).toEqual({
      kind: 'inline',
      armored: '-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nmQENBF==\n-----END PGP PUBLIC KEY BLOCK-----\n',
    });
  });
});

test('whatever a guest writes, what comes out is one clean stanza per source', () => {
  const word = fc.oneof(
    fc.string({ unit: 'binary', maxLength: 30 }),
    fc.constantFrom(
      'deb',
      '[trusted=yes]',
      'http://a.org/d',
      'main',
      './',
      '\n',
      'Types: deb',
      'URIs: http://b.org',
    ),
  );
  fc.assert(
    fc.property(fc.array(word, { maxLength: 12 }), fc.constantFrom(' ', '\n', '\n '), (parts, joint) => {
      const text = parts.join(joint);
      for (const parsed of [parseList(text, 'amd64'), parseDeb822(text, 'amd64')]) {
        const rendered = renderSources(parsed.sources.map((source) => ({ source, signedBy: [] })));
        for (const line of rendered.split('\n')) {
          expect(line).toMatch(
            /^$|^(Types: deb$|URIs: https?:\/\/|Suites: |Components: |Check-Valid-Until: no$)/,
          );
          expect(line).toMatch(/^[\x20-\x7e]*$/);
        }
        // Reading it again gives the same: nothing slipped into another field.
        expect(parseDeb822(rendered, 'amd64').sources.map((s) => s.uri)).toEqual(
          parsed.sources.map((s) => s.uri),
        );
      }
    }),
    { numRuns: 100 },
  );
});

test('keyrings get a name of ours by content', () => {
  expect(keyring(Buffer.from('-----BEGIN PGP PUBLIC KEY BLOCK-----\n')).name).toMatch(/^[0-9a-f]{24}\.asc$/);
  expect(keyring(Buffer.from([0x99, 1, 2])).name).toMatch(/^[0-9a-f]{24}\.gpg$/);
});

test('a guest without sources has none', async () => {
  expect(await readSources(new FolderGuest('/nonexistent'), 'amd64')).toEqual({ sources: [], warnings: [] });
});
