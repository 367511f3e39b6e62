import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { PortError } from '../../core/errors.ts';
import { parseBytes } from '../../core/sizes.ts';
import { parseSource, sourceText } from '../../core/source.ts';

describe('what is understood', () => {
  test.each<[string, object]>([
    [
      'ssh://shop01/dev/sda',
      { kind: 'ssh', host: 'shop01', user: undefined, port: undefined, devices: ['/dev/sda'] },
    ],
    [
      'ssh://root@10.0.0.7:2222/dev/sda,/dev/nvme0n1',
      { kind: 'ssh', host: '10.0.0.7', user: 'root', port: 2222, devices: ['/dev/sda', '/dev/nvme0n1'] },
    ],
    ['ssh://[fe80::1]:22/dev/vda', { kind: 'ssh', host: 'fe80::1', port: 22, devices: ['/dev/vda'] }],
    ['ssh://shop01', { kind: 'ssh', devices: [] }],
    ['ssh://shop01/', { kind: 'ssh', devices: [] }],
    ['host:/dev/sda', { kind: 'host', devices: ['/dev/sda'] }],
    ['nbd://h/export name', { kind: 'nbd', host: 'h', port: 10_809, exportName: 'export name' }],
    ['nbd://[::1]:5000', { kind: 'nbd', host: '::1', port: 5000, exportName: '' }],
    ['nbd+unix:///a?socket=/run/x.sock', { kind: 'nbd', socket: '/run/x.sock', exportName: 'a' }],
    ['https://h/disk.qcow2?sig=1', { kind: 'http', url: 'https://h/disk.qcow2?sig=1' }],
    [
      'glance://prod/8c1f6a1e-8f2b-4a3a-9d39-1f5a2a6f4c11',
      { kind: 'glance', cloud: 'prod', id: '8c1f6a1e-8f2b-4a3a-9d39-1f5a2a6f4c11' },
    ],
    ['ebs://eu-central-1/snap-0abc', { kind: 'ebs', region: 'eu-central-1', snapshot: 'snap-0abc' }],
    ['/srv/a b\n-c.raw', { kind: 'path', path: '/srv/a b\n-c.raw' }],
    // These are file names, not options, protocols or JSON.
    ['/x/json:{}', { kind: 'path' }],
    ['nbd:localhost:1', { kind: 'path' }],
    ['json:{"driver":"nbd"}', { kind: 'path' }],
    ['-rf', { kind: 'path' }],
  ])('%s', (text, expected) => {
    expect(parseSource(text)).toMatchObject(expected);
  });
});

test.each([
  '',
  'ssh://',
  'ssh://-oProxyCommand=x/dev/sda',
  'ssh://a@-b/dev/sda',
  'ssh://user:secret@h/dev/sda',
  'ssh://h:0/dev/sda',
  'ssh://h/etc/shadow',
  'ssh://h/dev/../etc/shadow',
  'ssh://h/dev/sda,/dev/sda',
  'ssh://h h/dev/sda',
  'host:',
  'host:/etc/passwd',
  'nbd+unix:///x?socket=relative',
  'nbd:///x',
  'https://u:secret@h/x',
  'glance://prod/not-an-id',
  'ebs://eu/vol-1',
  'ftp://h/x',
  'vpx://h/x',
])('refused with USAGE: %s', (text) => {
  let code: string | undefined;
  try {
    parseSource(text);
  } catch (error) {
    code = (error as PortError).code;
    expect((error as PortError).message).not.toContain('secret');
  }
  expect(code).toBe('USAGE');
});

test('paths become absolute, URLs stay as they were written', () => {
  expect(sourceText('a/../b.raw')).toBe(`${process.cwd()}/b.raw`);
  expect(sourceText('ssh://h/dev/sda')).toBe('ssh://h/dev/sda');
});

test('the query of a URL, which may be a signature, is known in this process only', () => {
  const kept = sourceText('https://h/disk.qcow2?sig=secret#top');
  expect(kept).toBe('https://h/disk.qcow2?…');
  expect(parseSource(kept)).toEqual({ kind: 'http', url: 'https://h/disk.qcow2?sig=secret#top' });
  expect(() => parseSource('https://other/disk.qcow2?…')).toThrow(/not kept/);
});

test.each([
  'nbd://a:hunter2@127.0.0.1/x',
  'https://u:hunter2 x@[bad/x',
  'https://u:a/hunter2@[bad/x',
  'https://[bad/x?sig=hunter2',
  'ssh://root:p@hunter2@h/dev/sda',
])('a password or signature is not repeated: %s', (text) => {
  let message = '';
  try {
    parseSource(text);
  } catch (error) {
    message = (error as Error).message;
  }
  expect(message).not.toBe('');
  expect(message).not.toContain('hunter2');
});

test('two sources that differ in their query alone are refused: only one query could be found again', () => {
  expect(sourceText('https://h/by-query?id=1')).toBe('https://h/by-query?…');
  expect(() => sourceText('https://h/by-query?id=2')).toThrow(/query alone/);
  expect(parseSource('https://h/by-query?…')).toEqual({ kind: 'http', url: 'https://h/by-query?id=1' });
});

test('any text is a source or a USAGE error', () => {
  fc.assert(
    fc.property(
      fc.oneof(
        fc.string(),
        fc
          .tuple(
            fc.constantFrom('ssh://', 'host:', 'nbd://', 'nbd+unix://', 'http://', 'glance://', 'ebs://'),
            fc.string(),
          )
          .map(([a, b]) => a + b),
      ),
      (text) => {
        try {
          const source = parseSource(text);
          if (source.kind === 'ssh') expect(source.host.startsWith('-') || source.host === '').toBe(false);
        } catch (error) {
          expect(error).toBeInstanceOf(PortError);
          expect((error as PortError).code).toBe('USAGE');
        }
      },
    ),
    { numRuns: 3000 },
  );
});

test('sizes as people write them', () => {
  expect([
    parseBytes('50M'),
    parseBytes('1.5GiB'),
    parseBytes('800k'),
    parseBytes('4096'),
    parseBytes('2 TB'),
  ]).toEqual([50 * 1024 ** 2, 1.5 * 1024 ** 3, 800 * 1024, 4096, 2 * 1024 ** 4]);
  expect(['', '0', '-1', '5X', 'M', '1e3', '99999999T'].map(parseBytes)).toEqual(Array(7).fill(undefined));
});
