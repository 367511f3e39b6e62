/** The server of fixtures/nightly, as it was on two nights. */
import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import * as path from 'node:path';
import { promisify } from 'node:util';
import { noLoopDevices } from './loop-disk.ts';
import { requires } from './requires.ts';

/** Two disks, one after the other. */
export interface Nights {
  /** Raw disks of night 1 and 2; nobody may write to them. */
  raw: readonly [string, string];
  /** The same as qcow2. */
  qcow2: readonly [string, string];
  package: string;
  older: string;
  newer: string;
  virtualBytes: number;
}

/** Why they cannot be built here, or undefined. */
export const noNights = (): string | undefined =>
  noLoopDevices() ?? requires('mmdebstrap', 'sfdisk', 'mke2fs', 'qemu-img', 'unshare', 'setpriv');

/** Builds them, or takes them from the cache. A minute the first time. */
export async function nights(): Promise<Nights> {
  const script = path.resolve(import.meta.dirname, '../../fixtures/nightly/build');
  const dir = (await promisify(execFile)(script, { maxBuffer: 2 ** 24 })).stdout.trim();
  const facts = JSON.parse(readFileSync(path.join(dir, 'facts.json'), 'utf8')) as Omit<
    Nights,
    'raw' | 'qcow2'
  >;
  const both = (ext: string): [string, string] => [
    path.join(dir, `night-1.${ext}`),
    path.join(dir, `night-2.${ext}`),
  ];
  return { ...facts, raw: both('raw'), qcow2: both('qcow2') };
}

/** Blocks of `blockBytes` of the second file that hold something and that the first one does not have at the same place. */
export async function changedBlocks(before: string, after: string, blockBytes = 2 ** 20): Promise<number> {
  // Another program than ours: what it counts is compared with what we say.
  const { stdout } = await promisify(execFile)(
    'python3',
    [
      '-c',
      `import sys
size = int(sys.argv[3])
count = 0
with open(sys.argv[1], 'rb') as a, open(sys.argv[2], 'rb') as b:
    while True:
        x, y = a.read(size), b.read(size)
        if not y: break
        if x != y and y.count(0) != len(y): count += 1
print(count)`,
      before,
      after,
      `${blockBytes}`,
    ],
    { encoding: 'utf8' },
  );
  return Number(stdout);
}
