import { execFileSync } from 'node:child_process';
import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { ByteRange } from '../../../core/disk-source.ts';
import type { Filesystem } from '../../../core/facts.ts';
import { badRangeFacts, badRangeText, placesOf } from '../../../stages/inspect/bad-ranges.ts';
import { cannotMount, diskGuest } from '../../support/disk-guest.ts';
import { requires } from '../../support/requires.ts';

const filesystem = (
  device: string,
  type: string,
  map: [at: number, length: number, onDisk: number][],
): Filesystem => ({
  device,
  type,
  uuid: '',
  label: '',
  sizeBytes: 0,
  map: map.map(([startBytes, lengthBytes, diskOffsetBytes]) => ({
    startBytes,
    lengthBytes,
    disk: 0,
    diskOffsetBytes,
  })),
});

test('a range is cut where file systems begin and end, and follows volumes in pieces', () => {
  const places = placesOf(
    0,
    [{ startBytes: 500, lengthBytes: 2000 }],
    [
      filesystem('/dev/sda2', 'ext4', [
        [0, 400, 1000],
        [400, 400, 3000],
      ]),
      filesystem('/dev/sda1', 'xfs', [[0, 700, 0]]),
    ],
  );
  expect(
    places.map((p) => [p.range.startBytes, p.range.lengthBytes, p.filesystem?.device, p.deviceBytes]),
  ).toEqual([
    [500, 200, '/dev/sda1', 500],
    [700, 300, undefined, 0],
    [1000, 400, '/dev/sda2', 0],
    [1400, 1100, undefined, 0],
  ]);
  expect(placesOf(1, [{ startBytes: 0, lengthBytes: 9 }], []).map((p) => p.filesystem)).toEqual([undefined]);
});

describe.skipIf(cannotMount() ?? requires('filefrag', 'mkfs.ext4'))('on a real file system', () => {
  let guest: Awaited<ReturnType<typeof diskGuest>>;
  beforeAll(async () => {
    guest = await diskGuest(
      'ext4',
      async (root) => {
        await fs.mkdir(path.join(root, 'srv'));
        await fs.writeFile(path.join(root, 'srv/one'), Buffer.alloc(300_000, 'one'));
        await fs.writeFile(path.join(root, 'srv/two: 0: 1..2: 3..4'), Buffer.alloc(300_000, 'two'));
      },
      64,
    );
  });
  afterAll(() => guest?.close());

  /** What a source that was shut down shows: the mounted image has a journal to be replayed. */
  async function cleanCopy(): Promise<string> {
    const copy = path.join(guest.dir, 'clean.raw');
    execFileSync('sync', ['-f', guest.session.root]);
    await fs.copyFile(guest.session.image, copy);
    execFileSync('e2fsck', ['-fy', copy], {
      env: { ...process.env, PATH: `${process.env.PATH}:/usr/sbin` },
      stdio: 'ignore',
    });
    return copy;
  }

  /** Where a file's first bytes lie on the disk. */
  function placeOf(name: string): number {
    const out = execFileSync('filefrag', ['-v', '-b1', path.join(guest.session.root, name)], {
      encoding: 'utf8',
      env: { ...process.env, PATH: `${process.env.PATH}:/usr/sbin` },
    });
    return Number(/^\s*0:\s*0\.\.\s*\d+:\s*(\d+)\.\./m.exec(out)?.[1]);
  }

  async function facts(badRanges: ByteRange[], source?: string) {
    const warnings: string[] = [];
    const session = Object.create(guest.session) as typeof guest.session;
    if (source !== undefined) session.sourceFile = () => Promise.resolve(source);
    const found = await badRangeFacts(
      {
        guest: session,
        disks: [{ badRanges }],
        signal: new AbortController().signal,
        warn: (text) => warnings.push(text),
        progress: () => {},
      },
      [guest.filesystem],
      [{ path: '/', device: '/dev/sda' }],
    );
    return { found, warnings };
  }

  test('files are named, whatever they are called; free space and metadata are told apart', async () => {
    const free = 60 * 2 ** 20;
    const ranges = [
      { startBytes: placeOf('srv/one') + 4096, lengthBytes: 512 },
      { startBytes: placeOf('srv/two: 0: 1..2: 3..4'), lengthBytes: 4096 },
      { startBytes: 2048, lengthBytes: 512 }, // group descriptors
      { startBytes: free, lengthBytes: 512 },
    ];
    const { found, warnings } = await facts(ranges, await cleanCopy());
    expect(found.map((f) => [f.hit, f.files])).toEqual([
      ['files', ['/srv/one']],
      ['files', ['/srv/two: 0: 1..2: 3..4']],
      ['metadata', []],
      ['free', []],
    ]);
    expect(warnings).toEqual([badRangeText(found)]);
    expect(warnings[0]).toContain('2 hit /srv/one, /srv/two');
  });

  test('what cannot be told is not claimed', async () => {
    const { found } = await facts([{ startBytes: 60 * 2 ** 20, lengthBytes: 512 }]);
    expect(found.map((f) => f.hit)).toEqual(['unknown']);
  });

  test('nothing bad, nothing said', async () => {
    expect(await facts([])).toEqual({ found: [], warnings: [] });
  });
});
