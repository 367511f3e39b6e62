/**
 * Blocks of a sync in the target's own Swift, one container for all its images:
 *
 *     packs/SHA256                          blocks in a row, named by content
 *     tables/SERIES/VERSION/RAW             what a finished image is made of
 *     partial/RAW/PACK                      the same of a pack of an image under way, for whoever goes on with it
 *     images/UUID/…                         the composed file while Glance reads it
 *     zeros                                 zeros, for the tables of images, which are full of them
 */

import { createHash } from 'node:crypto';
import PQueue from 'p-queue';
import { PortError } from '../../../core/errors.ts';
import { pause } from '../../../core/pause.ts';
import { MIB } from '../../../core/sizes.ts';
import { BLOCK_BYTES, type BlockIndex } from '../../../core/sync/block-index.ts';
import type { SyncContext } from '../../../core/sync/types.ts';
import { type Pack, packsOf } from '../../../tools/blocks/pack.ts';
import { BlockTable } from '../../../tools/blocks/table.ts';
import type { SwiftApi } from '../../../tools/openstack/swift.ts';
import type { SwiftObject } from '../../../tools/openstack/swift-object.ts';
import { putObject } from '../../../tools/openstack/swift-put.ts';
import type { RangePart } from '../../../tools/openstack/swift-ranges.ts';
import { ZERO_BYTES } from './zeros.ts';

const CONTAINER_MARK = 'image-sync';
/** Packs under way at a time; each is held in memory, 16 MiB. */
const LANES = 4;
/** Tables of other images that are looked through for blocks: servers of one kind share most of their system. */
const MOST_OTHERS = 16;
/** And no more than fit into memory: some 70 bytes a block here are ten times as many there. */
const MOST_OTHER_BYTES = 64 * MIB;
const CHUNK_BYTES = 256 * 1024;
const ZEROS = 'zeros';

/** Counts what is sent and slows it down where a limit is set. */
export interface Meter {
  sent(bytes: number): void;
  /** Milliseconds to wait after so many bytes. */
  waitMs(bytes: number): number;
}

/** Name of a finished image's table. */
export function tableName(image: { series: string; version: string; rawSha256: string }): string {
  return `tables/${image.series}/${image.version}/${image.rawSha256}`;
}

/** The container of a sync. */
export class BlockStore {
  readonly container: string;
  readonly #swift: SwiftApi;
  readonly #signal: AbortSignal;

  private constructor(swift: SwiftApi, container: string, signal: AbortSignal) {
    this.#swift = swift;
    this.container = container;
    this.#signal = signal;
  }

  /** Opens it; made when `make` says so, else undefined when there is none. Throws CLOUD_CONFLICT, CLOUD_REFUSED, CLOUD. */
  static async open(
    swift: SwiftApi,
    sync: string,
    options: { make: boolean; signal: AbortSignal },
  ): Promise<BlockStore | undefined> {
    const container = `port-image-sync-${sync}`;
    const { make, signal } = options;
    if (!make && (await swift.headContainer(container, signal)) === undefined) return undefined;
    await swift.ensureContainer(container, CONTAINER_MARK, signal);
    return new BlockStore(swift, container, signal);
  }

  /** Objects whose name begins so. */
  async list(prefix: string): Promise<SwiftObject[]> {
    const found: SwiftObject[] = [];
    for await (const object of this.#swift.listObjects(this.container, prefix, this.#signal))
      found.push(object);
    return found;
  }

  async #read(name: string): Promise<Buffer> {
    const chunks: Buffer[] = [];
    const body = await this.#swift.getObject(this.container, name, { signal: this.#signal });
    for await (const chunk of body) chunks.push(chunk as Buffer);
    return Buffer.concat(chunks);
  }

  /** A table; undefined when it is damaged or gone: its blocks are then sent again. */
  async table(name: string): Promise<BlockTable | undefined> {
    try {
      return BlockTable.fromBytes(await this.#read(name));
    } catch (error) {
      if (error instanceof PortError && (error.code === 'DAMAGED' || error.code === 'STORE'))
        return undefined;
      throw error;
    }
  }

  /** Everything known about stored blocks that may help an image: of its own run, its series, and the newest others. */
  async known(image: {
    series: string;
    rawSha256: string;
  }): Promise<{ table: BlockTable; packs: Map<string, SwiftObject> }> {
    const packs = new Map(
      (await this.list('packs/')).map((object) => [object.name.slice('packs/'.length), object]),
    );
    const tables = await this.list('tables/');
    const own = tables.filter(({ name }) => name.startsWith(`tables/${image.series}/`));
    let room = MOST_OTHER_BYTES;
    const others = tables
      .filter((object) => !own.includes(object))
      .sort((a, b) => (b.modifiedMs ?? 0) - (a.modifiedMs ?? 0))
      .slice(0, MOST_OTHERS)
      .filter(({ bytes }) => {
        room -= bytes;
        return room >= 0;
      });
    const partial = await this.list(`partial/${image.rawSha256}/`);
    const all = new BlockTable();
    for (const { name } of [...partial, ...own, ...others]) {
      const found = await this.table(name);
      if (found === undefined) continue;
      // A pack that is not there any more helps nobody, whatever a table says.
      all.merge(found.only(new Set(packs.keys())));
    }
    return { table: all, packs };
  }

  /**
   * Stores the blocks `table` lacks, and adds them to it. Each pack is remembered in the store as soon as it is there, so that a run that
   * is cut off, or another host, goes on with the next one. Throws CLOUD, CLOUD_REFUSED, CLOUD_MISMATCH, INTERRUPTED.
   */
  async fill(
    index: BlockIndex,
    table: BlockTable,
    packs: Map<string, SwiftObject>,
    read: (number: number) => Promise<Buffer>,
    ctx: SyncContext,
    meter: Meter,
  ): Promise<{ changedBytes: number }> {
    const missing: { digest: string; number: number }[] = [];
    for (let at = 0; at < index.count; at++) {
      const digest = index.digestAt(at);
      if (table.find(digest) === undefined) missing.push({ digest, number: index.numbers[at] ?? 0 });
    }
    const totalBytes = missing.length * BLOCK_BYTES;
    let doneBytes = 0;
    const queue = new PQueue({ concurrency: LANES });
    let failure: unknown;
    const put = async (pack: Pack): Promise<void> => {
      await this.#putPack(pack, packs, meter);
      const alone = new BlockTable();
      alone.addPack(pack);
      await this.put(`partial/${index.rawSha256}/${pack.id}`, alone.toBytes(), meter);
      doneBytes += pack.blocks.length * BLOCK_BYTES;
      ctx.progress({ text: 'sending blocks', doneBytes, totalBytes });
    };
    for await (const pack of packsOf(missing, read)) {
      if (failure !== undefined || ctx.signal.aborted) break;
      table.addPack(pack);
      queue
        .add(() => put(pack))
        .catch((error: unknown) => {
          failure ??= error;
        });
      // Packs that wait are held in memory.
      await queue.onSizeLessThan(2);
    }
    await queue.onIdle();
    if (ctx.signal.aborted) throw new PortError('INTERRUPTED', 'interrupted');
    if (failure !== undefined) throw failure;
    return { changedBytes: new Set(missing.map((m) => m.digest)).size * BLOCK_BYTES };
  }

  async #putPack({ id, bytes }: Pack, packs: Map<string, SwiftObject>, meter: Meter): Promise<void> {
    const md5 = createHash('md5').update(bytes).digest('hex');
    const there = packs.get(id);
    if (there?.etag === md5 && there.bytes === bytes.length) return;
    await this.put(`packs/${id}`, bytes, meter, md5);
    packs.set(id, { name: `packs/${id}`, bytes: bytes.length, etag: md5, isLarge: false });
  }

  /** Puts a small object or a pack; the service compares its md5. */
  async put(
    name: string,
    bytes: Buffer,
    meter: Meter,
    md5 = createHash('md5').update(bytes).digest('hex'),
  ): Promise<void> {
    const signal = this.#signal;
    const content = async function* () {
      for (let at = 0; at < bytes.length; at += CHUNK_BYTES) {
        const chunk = bytes.subarray(at, at + CHUNK_BYTES);
        meter.sent(chunk.length);
        yield chunk;
        const waitMs = meter.waitMs(chunk.length);
        if (waitMs > 1) await pause(waitMs, signal);
      }
    };
    await putObject(this.#swift, {
      container: this.container,
      name,
      content,
      bytes: bytes.length,
      md5,
      signal,
    });
  }

  /** Reads packs and removes those that are not what their names say. Returns their names. */
  async removeDamaged(packs: Iterable<string>): Promise<string[]> {
    const damaged: string[] = [];
    for (const id of packs) {
      const hash = createHash('sha256');
      const body = await this.#swift.getObject(this.container, `packs/${id}`, { signal: this.#signal });
      for await (const chunk of body) hash.update(chunk as Buffer);
      if (hash.digest('hex') !== id) damaged.push(id);
    }
    await this.remove(damaged.map((id) => `packs/${id}`));
    return damaged;
  }

  /** The object with zeros, made when it is not there. */
  async zeros(meter: Meter): Promise<RangePart> {
    const bytes = Buffer.alloc(ZERO_BYTES);
    const etag = createHash('md5').update(bytes).digest('hex');
    const there = await this.#swift.headObject(this.container, ZEROS, this.#signal);
    if (there?.etag !== etag || there.bytes !== bytes.length) await this.put(ZEROS, bytes, meter, etag);
    return { name: ZEROS, bytes: bytes.length, etag };
  }

  /** Bytes of a pack. */
  async range(pack: string, offset: number, length: number): Promise<Buffer> {
    const chunks: Buffer[] = [];
    const body = await this.#swift.getObject(this.container, `packs/${pack}`, {
      offsetBytes: offset,
      lengthBytes: length,
      signal: this.#signal,
    });
    for await (const chunk of body) chunks.push(chunk as Buffer);
    return Buffer.concat(chunks);
  }

  /** Removes objects by name; no error for those that are gone. */
  async remove(names: Iterable<string>): Promise<void> {
    const queue = new PQueue({ concurrency: LANES });
    await queue.addAll(
      [...names].map((name) => () => this.#swift.removePlain(this.container, name, this.#signal)),
    );
  }
}
