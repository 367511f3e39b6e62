import { execFileSync } from 'node:child_process';
import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import { Readable } from 'node:stream';
import { afterEach, describe, expect, test } from 'vitest';
import { FileStore } from '../../../drivers/stores/file.ts';
import { readEntries, readManifest } from '../../../drivers/stores/read-back.ts';
import { restoreDataSet } from '../../../drivers/stores/restore.ts';
import type { GetOptions } from '../../../drivers/stores/store.ts';
import { reusableSet } from '../../../stages/strip/reuse.ts';
import { writeDataSet } from '../../../stages/strip/write-set.ts';
import { chooseSamples, proveContent } from '../../../tools/content-proof.ts';
import { openContent, plainMap } from '../../../tools/tree-content.ts';
import { walkTree } from '../../../tools/tree-walk.ts';
import { cannotMount, diskGuest } from '../../support/disk-guest.ts';
import { blocksOf, describeTree, makeOddTree } from '../../support/odd-tree.ts';
import { requires } from '../../support/requires.ts';

const missing =
  cannotMount() ??
  requires('mkfs.ext4', 'mkfs.xfs', 'mkfs.btrfs', 'filefrag', 'setfattr', 'setfacl', 'tar', 'mknod');
const signal = new AbortController().signal;

type Guest = Awaited<ReturnType<typeof diskGuest>>;
let guest: Guest | undefined;
afterEach(async () => {
  await guest?.close();
  guest = undefined;
});

async function prepare(
  type: 'ext4' | 'xfs' | 'btrfs',
  fill: (root: string) => void | Promise<void> = makeOddTree,
) {
  const g = await diskGuest(type, fill);
  guest = g;
  const tree = await walkTree(g.session, '/app', g.dir);
  const content = () =>
    openContent({ guest: g.session, root: '/app', map: plainMap(g.filesystem), tmpDir: g.dir });
  const options = {
    id: 'x',
    path: '/app',
    entries: tree.entries,
    openContent: content,
    signal,
    segmentBytes: 1 << 21,
  };
  return { g, tree, content, options, store: new FileStore(path.join(g.dir, 'store')) };
}

describe.skipIf(missing)('a data set', () => {
  test.each(['ext4', 'xfs', 'btrfs'] as const)('of %s comes back with every property', async (type) => {
    const { g, tree, content, options, store } = await prepare(type);
    const reader = await content();
    expect(await proveContent(g.session, '/app', chooseSamples(tree.entries), reader, g.dir)).toBe(true);
    await reader.close();
    const { manifest, sha256 } = await writeDataSet({ ...options, store });
    expect(manifest.segments.length).toBeGreaterThan(2);
    await restoreDataSet(store, 'x', path.join(g.dir, 'back'), { manifestSha256: sha256 });
    expect(describeTree(path.join(g.dir, 'back'))).toBe(describeTree(path.join(g.session.root, 'app')));
    for (const name of ['sparse', 'hole', 'sparse-end']) {
      expect(blocksOf(path.join(g.dir, 'back', name))).toBeLessThanOrEqual(
        blocksOf(path.join(g.session.root, 'app', name)) + 8,
      );
    }
    // Nothing is left beside the store and the mounted image.
    expect((await fs.readdir(g.dir)).sort()).toEqual(['back', 'disk.raw', 'root', 'store']);
    // What sha256sum says is what the list says.
    const random = execFileSync('sha256sum', [path.join(g.session.root, 'app/random')], {
      encoding: 'utf8',
    }).slice(0, 64);
    const listed: Record<string, string | undefined> = {};
    for await (const entry of readEntries(store, manifest)) listed[atob(entry.path)] = entry.sha256;
    expect(listed.random).toBe(random);
    expect(Object.keys(listed)).toContain('new\nline');
  });

  test('the place of a file is its own, whatever the names around it hold', async () => {
    const { tree } = await prepare('ext4', (root) => {
      const script =
        'mkdir app; for i in 1 2 3 4 5 6 7 8; do truncate -s 8M app/sparse$i; printf x >> app/sparse$i; ' +
        'head -c 2M /dev/urandom > "app/$(printf "carriage\\rreturn$i")"; done';
      execFileSync('sh', ['-euc', script], { cwd: root });
    });
    expect(tree.entries.length).toBe(17);
    for (const { path: name, map } of tree.entries.filter((e) => e.type === 'file')) {
      const placed = map?.extents.reduce((sum, e) => sum + e.lengthBytes, 0) ?? 0;
      expect(placed, JSON.stringify(name)).toBe(name.startsWith('sparse') ? 4096 : 2 << 20);
    }
  });

  test('is used again when nothing changed, and only then', async () => {
    const { g, tree, options, store } = await prepare('ext4');
    expect(await reusableSet(store, 'x', '/app', tree.entries, signal)).toBeUndefined();
    const first = await writeDataSet({ ...options, store });
    expect((await reusableSet(store, 'x', '/app', tree.entries, signal))?.sha256).toBe(first.sha256);
    const again = await writeDataSet({ ...options, store });
    expect(again.sha256).toBe(first.sha256);
    execFileSync('touch', [path.join(g.session.root, 'app/plain')]);
    const changed = await walkTree(g.session, '/app', g.dir);
    expect(await reusableSet(store, 'x', '/app', changed.entries, signal)).toBeUndefined();
    const segment = store.pathOf(`x/${first.manifest.segments[0]?.key}`);
    const bytes = await fs.readFile(segment);
    bytes[50] = (bytes[50] ?? 0) ^ 1;
    await fs.writeFile(segment, bytes);
    expect(await reusableSet(store, 'x', '/app', tree.entries, signal)).toBeUndefined();
    await expect(restoreDataSet(store, 'x', path.join(g.dir, 'bad'))).rejects.toMatchObject({
      code: 'STORE_MISMATCH',
    });
  });

  test('a store that changes what it was given is caught before the manifest appears', async () => {
    const { options, store } = await prepare('ext4');
    class Liar extends FileStore {
      override async get(key: string, get: GetOptions = {}): Promise<Readable> {
        const good = await super.get(key, get);
        if (!key.endsWith('000002.tar.zst')) return good;
        const all = Buffer.concat(await good.toArray());
        all[all.length >> 1] = (all[all.length >> 1] ?? 0) ^ 4;
        return Readable.from([all]);
      }
    }
    const liar = new Liar(store.dir);
    await expect(writeDataSet({ ...options, store: liar })).rejects.toMatchObject({ code: 'STORE_MISMATCH' });
    await expect(readManifest(store, 'x')).rejects.toMatchObject({ code: 'STORE' });
  });

  test('sampled reading back asks for every segment, and reads the first and the last whole', async () => {
    const { options, store } = await prepare('ext4');
    const read = new Set<string>();
    const asked = new Set<string>();
    class Watched extends FileStore {
      override async get(key: string, get: GetOptions = {}): Promise<Readable> {
        read.add(key);
        return super.get(key, get);
      }
      override async head(key: string) {
        asked.add(key);
        return super.head(key);
      }
    }
    const small = { ...options, segmentBytes: 64 * 1024, verify: 'sampled' as const };
    const { manifest } = await writeDataSet({ ...small, store: new Watched(store.dir) });
    const keys = manifest.segments.map((s) => `x/${s.key}`);
    expect(keys.length).toBeGreaterThan(4);
    for (const key of keys) expect([key, read.has(key) || asked.has(key)]).toEqual([key, true]);
    expect(read.has(keys[0] ?? '')).toBe(true);
    expect(read.has(keys.at(-1) ?? '')).toBe(true);
    expect(keys.filter((key) => read.has(key)).length).toBeLessThan(keys.length);

    class Loser extends FileStore {
      override async head(key: string) {
        const found = await super.head(key);
        return found !== undefined && key.endsWith('000002.tar.zst')
          ? { ...found, bytes: found.bytes - 1 }
          : found;
      }
    }
    await fs.rm(store.dir, { recursive: true });
    await expect(writeDataSet({ ...small, store: new Loser(store.dir) })).rejects.toMatchObject({
      code: 'STORE_MISMATCH',
    });
    await expect(readManifest(store, 'x')).rejects.toMatchObject({ code: 'STORE' });
  });

  test('a full store ends with DISK_SPACE, a stop with INTERRUPTED or an abort', async () => {
    const { g, options } = await prepare('ext4');
    const full = path.join(g.dir, 'full');
    await fs.mkdir(full);
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=4m', 'tmpfs', full]);
    try {
      await expect(writeDataSet({ ...options, store: new FileStore(full) })).rejects.toMatchObject({
        code: 'DISK_SPACE',
      });
    } finally {
      execFileSync('umount', [full]);
    }
    const stop = new AbortController();
    const writing = writeDataSet({
      ...options,
      store: new FileStore(path.join(g.dir, 'other')),
      signal: stop.signal,
      onBytes: () => stop.abort(),
    });
    await expect(writing).rejects.toMatchObject({ name: 'AbortError' });
    expect((await fs.readdir(g.dir)).filter((n) => n.startsWith('content-'))).toEqual([]);
  });

  test('a wrong map to the disks is noticed by the proof', async () => {
    const { g, tree } = await prepare('xfs');
    const map = (plainMap(g.filesystem) ?? []).map((part) => ({
      ...part,
      diskOffsetBytes: 4096,
      lengthBytes: part.lengthBytes - 4096,
    }));
    const reader = await openContent({ guest: g.session, root: '/app', map, tmpDir: g.dir });
    expect(await proveContent(g.session, '/app', chooseSamples(tree.entries), reader, g.dir)).toBe(false);
    await reader.close();
  });

  test('a restore that stops half-way leaves the folder empty and can be run again', async () => {
    const { g, options, store } = await prepare('ext4');
    const { manifest } = await writeDataSet({ ...options, store });
    const last = store.pathOf(`x/${manifest.segments.at(-1)?.key}`);
    await fs.rename(last, `${last}.away`);
    const target = path.join(g.dir, 'back');
    await expect(restoreDataSet(store, 'x', target)).rejects.toMatchObject({ code: 'STORE' });
    expect(await fs.readdir(target)).toEqual([]);
    await fs.rename(`${last}.away`, last);
    // what a killed one left; no process has this number
    const stale = path.join(g.dir, '.port-image-restore-back-99999999-abcdef');
    await fs.mkdir(path.join(stale, 'tree'), { recursive: true });
    await restoreDataSet(store, 'x', target);
    expect(describeTree(target)).toBe(describeTree(path.join(g.session.root, 'app')));
    expect((await fs.readdir(g.dir)).sort()).toEqual(['back', 'disk.raw', 'root', 'store']);
  });

  test('an empty folder is a data set too', async () => {
    const { g, options, store } = await prepare('ext4', (root) =>
      fs.mkdir(path.join(root, 'app')).then(() => {}),
    );
    const { manifest } = await writeDataSet({ ...options, store });
    expect(manifest).toMatchObject({ files: 0, bytes: 0, entryCount: 1 });
    await restoreDataSet(store, 'x', path.join(g.dir, 'back'));
    expect(await fs.readdir(path.join(g.dir, 'back'))).toEqual([]);
  });
});
