import { execFileSync } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import * as fs from 'node:fs/promises';
import * as os from 'node:os';
import * as path from 'node:path';
import { Readable } from 'node:stream';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { Manifest } from '../../../core/data-set.ts';
import { PortError } from '../../../core/errors.ts';
import { FileStore } from '../../../drivers/stores/file.ts';
import type { GetOptions, Store, StoredObject } from '../../../drivers/stores/store.ts';
import { verifySet } from '../../../pipeline/data/verify.ts';
import { carryDataSets } from '../../../pipeline/sync/carry.ts';
import { putSmallSet, SMALL_TREE } from '../../support/small-set.ts';
import { syncContext } from '../../support/sync-context.ts';

let dir: string;
let from: FileStore;
let to: FileStore;
let ctx: ReturnType<typeof syncContext>;
beforeEach(async () => {
  dir = await fs.mkdtemp(path.join(os.tmpdir(), 'sync-carry-'));
  from = new FileStore(path.join(dir, 'from'));
  to = new FileStore(path.join(dir, 'to'));
  ctx = syncContext();
});
afterEach(() => fs.rm(dir, { recursive: true }));

const put = (id: string, tree = SMALL_TREE) => putSmallSet(from, id, { tree, segmentBytes: 300_000 });
const names = (store: FileStore) => fs.readdir(store.dir, { recursive: true });
const same = () => execFileSync('diff', ['-r', from.dir, to.dir], { encoding: 'utf8' });
const bytesOf = async (store: Store, id: string) => {
  let sum = 0;
  for await (const { bytes } of store.list(`${id}/`)) sum += bytes;
  return sum;
};

/** A store with some of its methods replaced; the others are counted by name and key. */
function watched(store: Store, change: Partial<Store> = {}): Store & { calls: string[] } {
  const calls: string[] = [];
  const note = <A extends unknown[], R>(what: string, method: (...args: A) => R) => {
    return (...args: A): R => {
      calls.push(`${what} ${args[0]}`);
      return method(...args);
    };
  };
  return {
    calls,
    url: store.url,
    ids: () => store.ids(),
    check: note('check', change.check ?? ((bytes) => store.check(bytes))),
    put: note('put', change.put ?? ((key, content, options) => store.put(key, content, options))),
    get: note('get', change.get ?? ((key, options) => store.get(key, options))),
    head: note('head', change.head ?? ((key) => store.head(key))),
    list: note('list', change.list ?? ((prefix) => store.list(prefix))),
    remove: note('remove', (key: string) => store.remove(key)),
  };
}

describe('a copy', () => {
  test('is equal, proves itself, and costs nothing the next night', async () => {
    await put('shop-1');
    const [outcome] = await carryDataSets(['shop-1', 'shop-1'], from, to, ctx);
    expect(same()).toBe('');
    const total = await bytesOf(from, 'shop-1');
    expect(outcome).toEqual({ id: 'shop-1', target: '', result: 'done', sentBytes: total, keptBytes: 0 });
    expect((await verifySet(to, 'shop-1')).readSegments).toBeGreaterThan(3);

    const source = watched(from);
    const target = watched(to);
    const [again] = await carryDataSets(['shop-1'], source, target, ctx);
    expect(again).toEqual({ id: 'shop-1', target: '', result: 'skipped', sentBytes: 0, keptBytes: total });
    expect(source.calls).toEqual(['get shop-1/manifest.json']);
    expect(target.calls).toEqual(['list shop-1/', 'get shop-1/manifest.json']);
    expect(ctx.warnings).toEqual([]);
  });

  test('writes the manifest last, removes nothing, and leaves strangers alone', async () => {
    await put('shop-1');
    await to.put('shop-1/notes.txt', async function* () {
      yield Buffer.from('of somebody else');
    });
    const target = watched(to);
    await carryDataSets(['shop-1'], from, target, ctx);
    const puts = target.calls.filter((call) => call.startsWith('put '));
    expect(puts.at(-1)).toBe('put shop-1/manifest.json');
    expect(puts.filter((call) => call.endsWith('manifest.json'))).toHaveLength(1);
    expect(target.calls.some((call) => call.startsWith('remove'))).toBe(false);
    expect(await names(to)).toContain('shop-1/notes.txt');
  });

  test('sends only what is missing or of another size', async () => {
    await put('shop-1');
    await carryDataSets(['shop-1'], from, to, ctx);
    const total = await bytesOf(from, 'shop-1');
    await fs.rm(to.pathOf('shop-1/segments/000002.tar.zst'));
    await fs.truncate(to.pathOf('shop-1/segments/000003.tar.zst'), 100);
    const lost = (await from.head('shop-1/segments/000002.tar.zst'))?.bytes ?? 0;
    const cut = (await from.head('shop-1/segments/000003.tar.zst'))?.bytes ?? 0;
    const [outcome] = await carryDataSets(['shop-1'], from, to, ctx);
    expect(outcome).toMatchObject({ result: 'done', sentBytes: lost + cut, keptBytes: total - lost - cut });
    expect(same()).toBe('');
  });

  test('of a set that changed sends what changed, and says so', async () => {
    await put('shop-1');
    await carryDataSets(['shop-1'], from, to, ctx);
    await fs.rm(from.dir, { recursive: true });
    await put('shop-1', { ...SMALL_TREE, 'zoo2/': '', 'zoo2/new': randomBytes(50_000) });
    const total = await bytesOf(from, 'shop-1');
    const [outcome] = await carryDataSets(['shop-1'], from, to, ctx);
    expect(outcome?.result).toBe('done');
    expect(outcome?.sentBytes).toBeLessThan(total / 2);
    expect((outcome?.sentBytes ?? 0) + (outcome?.keptBytes ?? 0)).toBe(total);
    expect(ctx.warnings).toEqual([expect.stringContaining('is another state')]);
    await verifySet(to, 'shop-1');
  });

  test('takes no object that is only of the same size', async () => {
    await put('shop-1');
    const key = 'shop-1/segments/000001.tar.zst';
    const size = (await from.head(key))?.bytes ?? 0;
    await to.put(key, async function* () {
      yield randomBytes(size);
    });
    const [outcome] = await carryDataSets(['shop-1'], from, to, ctx);
    expect(outcome).toMatchObject({ result: 'done', keptBytes: 0 });
    expect(same()).toBe('');
  });

  test('replaces a manifest in the target that cannot be read', async () => {
    await put('shop-1');
    await carryDataSets(['shop-1'], from, to, ctx);
    await fs.writeFile(to.pathOf('shop-1/manifest.json'), '{}');
    const [outcome] = await carryDataSets(['shop-1'], from, to, ctx);
    const manifest = (await from.head('shop-1/manifest.json'))?.bytes;
    expect(outcome).toMatchObject({ result: 'done', sentBytes: manifest });
    expect(same()).toBe('');
  });
});

describe('faults', () => {
  const segment = 'shop-1/segments/000002.tar.zst';

  /** A source that cuts a read once. */
  function cutting(end: 'error' | 'silence') {
    let cuts = 0;
    return watched(from, {
      get: async (key, options?: GetOptions) => {
        const whole = await from.get(key, options);
        if (key !== segment || cuts++ > 0) return whole;
        return Readable.from(
          (async function* () {
            for await (const piece of whole) {
              yield (piece as Buffer).subarray(0, 1000);
              break;
            }
            if (end === 'error') throw new PortError('STORE', 'connection reset', { temporary: true });
          })(),
          { objectMode: false },
        );
      },
    });
  }

  test.each(['error', 'silence'] as const)('a read that is cut heals: %s', async (end) => {
    await put('shop-1');
    const [outcome] = await carryDataSets(['shop-1'], cutting(end), to, ctx);
    expect(outcome).toMatchObject({ result: 'done', sentBytes: await bytesOf(from, 'shop-1') });
    expect(ctx.warnings).toEqual([expect.stringContaining('once more')]);
    expect(same()).toBe('');
  });

  test.each([
    ['a flipped bit', (b: Buffer) => b.fill((b[b.length - 1] ?? 0) ^ 1, b.length - 1), /sha256/],
    ['too short', (b: Buffer) => b.subarray(0, -1), /bytes, not/],
    ['too long', (b: Buffer) => Buffer.concat([b, Buffer.from('x')]), /more than/],
  ])('a rotten segment is named and nothing is published: %s', async (_what, change, why) => {
    await put('shop-1');
    await put('shop-2');
    const file = from.pathOf(segment);
    await fs.writeFile(file, change(await fs.readFile(file)));
    const outcomes = await carryDataSets(['shop-1', 'shop-2'], from, to, ctx);
    expect(outcomes[0]).toMatchObject({ id: 'shop-1', result: 'failed', code: 'STORE_MISMATCH' });
    expect(outcomes[0]?.message).toMatch(why);
    expect(outcomes[0]?.message).toContain(segment);
    expect(await names(to)).not.toContain('shop-1/manifest.json');
    expect(await names(to)).not.toContain(segment);
    expect(outcomes[1]).toMatchObject({ id: 'shop-2', result: 'done' });
    await verifySet(to, 'shop-2');
  });

  test('a full target stops the set; the next night goes on with what is there', async () => {
    await put('shop-1');
    const full = watched(to, {
      put: async (key, content, options) => {
        if (key !== segment) return to.put(key, content, options);
        const cut = () =>
          (async function* () {
            yield Buffer.alloc(10);
            throw Object.assign(new Error('ENOSPC: no space left on device, write'), { code: 'ENOSPC' });
          })();
        return to.put(key, cut, options);
      },
    });
    const [outcome] = await carryDataSets(['shop-1'], from, full, ctx);
    expect(outcome).toMatchObject({ result: 'failed', code: 'DISK_SPACE' });
    expect(await names(to)).not.toContain('shop-1/manifest.json');
    expect((await names(to)).filter((name) => name.endsWith('.tmp'))).toEqual([]);
    const left = await bytesOf(to, 'shop-1');
    const [next] = await carryDataSets(['shop-1'], from, to, ctx);
    expect(next).toMatchObject({ result: 'done', keptBytes: left });
    expect((next?.sentBytes ?? 0) + left).toBe(await bytesOf(from, 'shop-1'));
    expect(same()).toBe('');
  });

  test('a target that refuses before anything is sent', async () => {
    await put('shop-1');
    const refusing = watched(to, {
      check: async () => {
        throw new PortError('CLOUD_REFUSED', 'the quota is used up');
      },
    });
    const [outcome] = await carryDataSets(['shop-1'], from, refusing, ctx);
    expect(outcome).toMatchObject({ result: 'failed', code: 'CLOUD_REFUSED', sentBytes: 0 });
    expect(refusing.calls.filter((call) => call.startsWith('put'))).toEqual([]);
  });

  test('stopped at every object in turn, then gone on with', async () => {
    await put('shop-1');
    const total = await bytesOf(from, 'shop-1');
    for (let stopAt = 1; stopAt < 6; stopAt++) {
      const stopped = syncContext();
      let puts = 0;
      const target = watched(to, {
        put: async (key, content, options) => {
          if (++puts === stopAt) stopped.abort();
          return to.put(key, content, options);
        },
      });
      await expect(carryDataSets(['shop-1'], from, target, stopped)).rejects.toMatchObject({
        code: 'INTERRUPTED',
      });
      expect(await names(to)).not.toContain('shop-1/manifest.json');
      expect((await names(to)).filter((name) => name.endsWith('.tmp'))).toEqual([]);
    }
    const left = await bytesOf(to, 'shop-1');
    expect(left).toBeGreaterThan(0);
    const [outcome] = await carryDataSets(['shop-1'], from, to, ctx);
    expect(outcome).toMatchObject({ result: 'done', keptBytes: left, sentBytes: total - left });
    expect(same()).toBe('');
  });

  test('a target that keeps other bytes than it took publishes no manifest', async () => {
    await put('shop-1');
    const lying = watched(to, {
      put: async (key, content, options) => {
        const done = await to.put(key, content, options);
        await fs.writeFile(to.pathOf(key), randomBytes(done.bytes));
        return done;
      },
    });
    const [outcome] = await carryDataSets(['shop-1'], from, lying, ctx);
    expect(outcome).toMatchObject({ result: 'failed', code: 'STORE_MISMATCH' });
    expect(await names(to)).not.toContain('shop-1/manifest.json');
  });

  test('a source without the set, without its manifest, or with an id that leads out', async () => {
    await put('shop-1');
    await fs.rm(from.pathOf('shop-1/manifest.json'));
    const outcomes = await carryDataSets(['shop-1', 'shop-2', '../etc'], from, to, ctx);
    expect(outcomes.map((o) => [o.result, o.code])).toEqual([
      ['failed', 'STORE'],
      ['failed', 'STORE'],
      ['failed', 'CONFIG'],
    ]);
    expect(await names(from)).toContain(segment);
    await expect(names(to)).rejects.toThrow('ENOENT');
  });

  test.each([
    ['leads out', (m: Manifest) => ({ ...m, entries: { ...m.entries, key: '../../x' } }), 'UNSAFE_PATH'],
    [
      'is the manifest',
      (m: Manifest) => ({ ...m, entries: { ...m.entries, key: 'manifest.json' } }),
      'STORE_MISMATCH',
    ],
    ['other digests', (m: Manifest) => ({ ...m, segmentsSha256: 'a'.repeat(64) }), 'STORE_MISMATCH'],
    ['other set', (m: Manifest) => ({ ...m, id: 'shop-9' }), 'STORE_MISMATCH'],
  ])('a hostile manifest: %s', async (_what, change, code) => {
    await put('shop-1');
    const file = from.pathOf('shop-1/manifest.json');
    await fs.writeFile(
      file,
      JSON.stringify(change(Manifest.parse(JSON.parse(await fs.readFile(file, 'utf8'))))),
    );
    const [outcome] = await carryDataSets(['shop-1'], from, to, ctx);
    expect(outcome).toMatchObject({ result: 'failed', code });
    expect(await fs.readdir(dir)).not.toContain('x');
  });
});

/** A store that makes or takes large objects without keeping them; it has digests of its own. */
class EndlessStore extends FileStore {
  readonly kept = new Map<string, StoredObject>();
  large: { key: string; bytes: number; piece: Buffer } | undefined;

  override async get(key: string, options?: GetOptions): Promise<Readable> {
    const { large } = this;
    if (large?.key !== key) return super.get(key, options);
    return Readable.from(
      (function* () {
        for (let at = 0; at < large.bytes; at += large.piece.length) yield Buffer.from(large.piece);
      })(),
      { objectMode: false },
    );
  }

  override async put(key: string, content: () => AsyncIterable<Uint8Array>): Promise<StoredObject> {
    if (key.endsWith('manifest.json')) return super.put(key, content);
    const hash = createHash('sha256');
    let bytes = 0;
    for await (const piece of content()) {
      hash.update(piece);
      bytes += piece.byteLength;
    }
    const object = { key, bytes, sha256: hash.digest('hex') };
    this.kept.set(key, object);
    return object;
  }

  override async head(key: string): Promise<StoredObject | undefined> {
    return this.kept.get(key) ?? super.head(key);
  }

  override async *list(prefix: string): AsyncIterable<StoredObject> {
    yield* this.kept.values();
    yield* super.list(prefix);
  }
}

test('memory stays flat, and a store’s own digests spare reading back', { timeout: 30_000 }, async () => {
  const source = new EndlessStore(from.dir);
  const target = new EndlessStore(to.dir);
  await putSmallSet(from, 'shop-1');
  const key = 'shop-1/segments/000001.tar.zst';
  const piece = randomBytes(1 << 18);
  source.large = { key, bytes: 1 << 29, piece };
  const hash = createHash('sha256');
  for (let at = 0; at < source.large.bytes; at += piece.length) hash.update(piece);
  const file = from.pathOf('shop-1/manifest.json');
  const manifest = Manifest.parse(JSON.parse(await fs.readFile(file, 'utf8')));
  const [first] = manifest.segments;
  if (first === undefined) throw new Error('no segment');
  Object.assign(first, { bytes: source.large.bytes, sha256: hash.digest('hex') });
  const sums = manifest.segments.map((s) => `${s.sha256}  ${s.key}\n`).join('');
  manifest.segmentsSha256 = createHash('sha256').update(sums).digest('hex');
  await fs.writeFile(file, JSON.stringify(manifest));

  const before = process.memoryUsage().rss;
  let most = 0;
  const timer = setInterval(() => {
    most = Math.max(most, process.memoryUsage().rss - before);
  }, 20);
  const [outcome] = await carryDataSets(['shop-1'], source, target, ctx);
  clearInterval(timer);
  expect(outcome).toMatchObject({ result: 'done' });
  expect(most).toBeLessThan(150 * 2 ** 20);

  await fs.rm(to.pathOf('shop-1/manifest.json'));
  const again = watched(target);
  const [resumed] = await carryDataSets(['shop-1'], source, again, ctx);
  expect(resumed?.sentBytes).toBe(Buffer.byteLength(JSON.stringify(manifest)));
  expect(again.calls.filter((call) => /^(get|put) .*segment/.test(call))).toEqual([]);
});
