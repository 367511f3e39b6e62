/**
 * The sweep behind the size of a block: pairs of nights of real file systems, compared in blocks of several sizes and in pieces cut by
 * content. Prints a table of its own; the rows of `npm run bench` are those of the size that is used.
 *
 *   npm run bench -- --only blocks
 */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { appendFileSync, cpSync, mkdirSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import { promisify } from 'node:util';
import * as zlib from 'node:zlib';
import { formatBytes, KIB, MIB } from '../core/sizes.ts';
import { BLOCK_BYTES } from '../core/sync/block-index.ts';
import { loopDisk, noLoopDevices } from '../test/support/loop-disk.ts';
import { nights } from '../test/support/nightly.ts';
import { PACK_BYTES } from '../tools/blocks/pack.ts';
import { map } from '../tools/qemu-img.ts';
import type { Row } from './bench-cloud.ts';

const SIZES = [64 * KIB, 256 * KIB, 512 * KIB, MIB, 4 * MIB];
/** Number and digest of a block in an index, bytes. */
const ENTRY_BYTES = 36;
const CLUSTER_BYTES = 64 * KIB;
const compress = promisify(zlib.zstdCompress);

interface Pair {
  what: string;
  before: string;
  after: string;
  /** Removes what was made for it. */
  end(): void;
}

interface Measured {
  grain: string;
  dataBytes: number;
  changedBytes: number;
  storedBytes: number;
  indexBytes: number;
  requests: number;
}

/** Pieces of a disk that hold something, in order. */
async function* pieces(file: string, bytes: number): AsyncGenerator<Buffer> {
  const handle = await fs.open(file, 'r');
  const { size } = await handle.stat();
  try {
    let next = 0;
    for (const extent of await map({ path: file, format: 'raw' })) {
      if (!extent.data) continue;
      const end = Math.min(extent.startBytes + extent.lengthBytes, size);
      for (let at = Math.max(next, Math.floor(extent.startBytes / bytes) * bytes); at < end; at += bytes) {
        const buffer = Buffer.alloc(bytes);
        await handle.read(buffer, 0, bytes, at);
        if (buffer.some((byte) => byte !== 0)) yield buffer;
        next = at + bytes;
      }
    }
  } finally {
    await handle.close();
  }
}

/** Gear hash: the numbers are arbitrary, and the same in every run. */
const GEAR = Uint32Array.from({ length: 256 }, (_, i) =>
  createHash('sha256').update(`${i}`).digest().readUInt32LE(0),
);
const CUT_MASK = 0xffff_0000 >>> 0;
const LEAST_CUT = 16 * KIB;
const MOST_CUT = 256 * KIB;

/** The same, cut where the content says so: 16 to 256 KiB, 64 KiB on average behind the least. */
async function* cuts(file: string): AsyncGenerator<Buffer> {
  let rest = Buffer.alloc(0);
  for await (const piece of pieces(file, 4 * MIB)) {
    rest = Buffer.concat([rest, piece]);
    let start = 0;
    while (rest.length - start > MOST_CUT) {
      let hash = 0;
      let at = start + LEAST_CUT;
      for (const end = start + MOST_CUT; at < end; at++) {
        hash = ((hash << 1) + (GEAR[rest[at] ?? 0] ?? 0)) >>> 0;
        if ((hash & CUT_MASK) >>> 0 === 0) break;
      }
      yield rest.subarray(start, at);
      start = at;
    }
    rest = Buffer.from(rest.subarray(start));
  }
  if (rest.length > 0) yield rest;
}

const digestOf = (piece: Buffer): string => createHash('sha256').update(piece).digest('base64');

/** Bytes of a piece as it is stored: a frame for each cluster. */
async function stored(piece: Buffer): Promise<number> {
  let total = 0;
  for (let at = 0; at < piece.length; at += CLUSTER_BYTES)
    total += (await compress(piece.subarray(at, at + CLUSTER_BYTES))).length;
  return total;
}

async function measure(
  grain: string,
  before: AsyncIterable<Buffer>,
  after: AsyncIterable<Buffer>,
): Promise<Measured> {
  const known = new Set<string>();
  for await (const piece of before) known.add(digestOf(piece));
  const found: Measured = {
    grain,
    dataBytes: 0,
    changedBytes: 0,
    storedBytes: 0,
    indexBytes: 0,
    requests: 0,
  };
  for await (const piece of after) {
    found.dataBytes += piece.length;
    found.indexBytes += ENTRY_BYTES;
    const digest = digestOf(piece);
    if (known.has(digest)) continue;
    known.add(digest);
    found.changedBytes += piece.length;
    found.storedBytes += await stored(piece);
  }
  found.requests = Math.ceil(found.storedBytes / PACK_BYTES);
  return found;
}

/** A file system with the tree of night 1, changed as a busy day changes it. */
function busyDay(type: 'ext4' | 'xfs', tree: string, dir: string): Pair {
  const disk = loopDisk(type, 2 ** 31);
  try {
    cpSync(tree, disk.mountPoint, { recursive: true, verbatimSymlinks: true, preserveTimestamps: true });
    const data = path.join(disk.mountPoint, 'var/lib/shop');
    mkdirSync(data, { recursive: true });
    const rows = Array.from(
      { length: 400_000 },
      (_, i) => `${i},customer ${i % 977},${(i * 7919) % 100_003}\n`,
    ).join('');
    writeFileSync(path.join(data, 'orders.db'), rows.repeat(4));
    for (let i = 0; i < 500; i++)
      writeFileSync(path.join(data, `session-${i}`), `${digestOf(Buffer.from(`${i}`))}\n`.repeat(40));
    execFileSync('sync', ['-f', disk.mountPoint]);
    const before = path.join(dir, `${type}-before.raw`);
    execFileSync('cp', ['--sparse=always', disk.file, before]);
    // a day: pages of a database in place, logs go on and are rotated, sessions come and go, one package is unpacked anew
    const database = path.join(data, 'orders.db');
    const script = `import os,sys
f=open(sys.argv[1],'r+b'); size=os.path.getsize(sys.argv[1])
for i in range(120):
    f.seek((i*104729*8192)%(size-8192)//8192*8192); f.write((b'page %d changed ' % i)*16)
f.close()`;
    execFileSync('python3', ['-c', script, database]);
    for (let i = 0; i < 500; i += 3) rmSync(path.join(data, `session-${i}`));
    for (let i = 500; i < 700; i++)
      writeFileSync(path.join(data, `session-${i}`), `${digestOf(Buffer.from(`${i}`))}\n`.repeat(40));
    const log = path.join(disk.mountPoint, 'var/log/syslog');
    mkdirSync(path.dirname(log), { recursive: true });
    appendFileSync(log, 'Aug 21 01:02:03 shop nginx: request served in 12 ms\n'.repeat(60_000));
    renameSync(log, `${log}.1`);
    appendFileSync(log, 'Aug 22 00:00:01 shop rsyslogd: rotated\n'.repeat(2000));
    // dpkg writes beside a file and renames: new places for every file of the package
    const library = path.join(disk.mountPoint, 'usr/lib/x86_64-linux-gnu');
    for (const name of readdirSync(library).filter((n) => /^lib(ssl|crypto|z|c)\.so/.test(n))) {
      const file = path.join(library, name);
      cpSync(file, `${file}.dpkg-new`, { verbatimSymlinks: true });
      renameSync(`${file}.dpkg-new`, file);
    }
    execFileSync('sync', ['-f', disk.mountPoint]);
    const after = path.join(dir, `${type}-after.raw`);
    execFileSync('cp', ['--sparse=always', disk.file, after]);
    return {
      what: `${type}, a busy day`,
      before,
      after,
      end: () => {
        for (const file of [before, after]) rmSync(file, { force: true });
      },
    };
  } finally {
    disk.remove();
  }
}

/** Copies the tree of a raw disk's first partition into a folder. */
function treeOf(raw: string, dir: string): string {
  const [start = 0] = JSON.parse(execFileSync('sfdisk', ['--json', raw], { encoding: 'utf8' }))
    .partitiontable.partitions.filter((p: { size: number }) => p.size > 1_000_000)
    .map((p: { start: number }) => p.start);
  const mount = path.join(dir, 'mnt');
  const tree = path.join(dir, 'tree');
  mkdirSync(mount);
  execFileSync('mount', ['-o', `loop,ro,noload,offset=${start * 512}`, raw, mount]);
  try {
    execFileSync('cp', ['-a', mount, tree]);
  } finally {
    execFileSync('umount', [mount]);
  }
  return tree;
}

/** Rows of the table; the sweep itself goes to stderr. */
export async function blockRows(dir: string): Promise<Row[]> {
  const why = noLoopDevices();
  const skipped = {
    what: 'changed blocks, stored against changed',
    ours: '',
    theirs: why ?? '',
    ratio: 'skipped',
    goal: '≤ 1.1',
  };
  if (why !== undefined) return [skipped];
  const { raw, package: name } = await nights();
  const tree = treeOf(raw[0], dir);
  const makers: (() => Pair)[] = [
    () => ({ what: `ext4, ${name} upgraded`, before: raw[0], after: raw[1], end: () => {} }),
    () => busyDay('ext4', tree, dir),
    () => busyDay('xfs', tree, dir),
  ];
  const rows: Row[] = [];
  for (const make of makers) {
    const pair = make();
    try {
      const results: Measured[] = [];
      for (const size of SIZES)
        results.push(await measure(formatBytes(size), pieces(pair.before, size), pieces(pair.after, size)));
      results.push(await measure('by content, 64 KiB', cuts(pair.before), cuts(pair.after)));
      process.stderr.write(`\n${pair.what}\n`);
      for (const m of results)
        process.stderr.write(
          `${m.grain.padEnd(20)} data ${formatBytes(m.dataBytes).padStart(9)}  changed ${formatBytes(m.changedBytes).padStart(9)}  stored ${formatBytes(m.storedBytes).padStart(9)}  index ${formatBytes(m.indexBytes).padStart(9)}  packs ${m.requests}\n`,
        );
      const used = results[SIZES.indexOf(BLOCK_BYTES)];
      if (used === undefined) continue;
      rows.push({
        what: `${pair.what}: stored of changed blocks`,
        ours: formatBytes(used.storedBytes),
        theirs: formatBytes(used.changedBytes),
        ratio: (used.storedBytes / Math.max(1, used.changedBytes)).toFixed(2),
        goal: '≤ 1.1',
      });
    } finally {
      pair.end();
    }
  }
  return rows;
}
