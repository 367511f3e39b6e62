/** Which blocks are stored where: one table per image, with all blocks of the packs it uses, also those no image needs any more. */
import * as zlib from 'node:zlib';
import { PortError } from '../../core/errors.ts';
import { MIB } from '../../core/sizes.ts';
import { CLUSTER_BYTES, CLUSTERS_PER_BLOCK, type Pack, type StoredBlock, storedBytes } from './pack.ts';

const MAGIC = 'port-image/table/1';
/** digest, sha256 of the stored bytes, and 32 bits for the length of each frame. */
const RECORD_BYTES = 32 + 32 + 4 * CLUSTERS_PER_BLOCK;
/** 16 TiB of blocks. */
const MOST_BLOCKS = 2 ** 24;
/** A frame is never much longer than what it holds (zstd's ZSTD_COMPRESSBOUND of 64 KiB is 0.5 KiB more). */
const MOST_FRAME_BYTES = CLUSTER_BYTES + 1024;
/** Digests, half of a record, do not compress; only a file made to fill the memory would come to this. */
const MOST_RATIO = 64;
const HEX = /^[0-9a-f]{64}$/;

/** Stored blocks by digest and by pack. */
export class BlockTable {
  readonly #packs = new Map<string, readonly StoredBlock[]>();
  readonly #byDigest = new Map<string, StoredBlock>();

  /** Adds a pack with its blocks in the order they lie in it. One that is known already changes nothing. */
  add(id: string, blocks: readonly StoredBlock[]): void {
    if (this.#packs.has(id)) return;
    this.#packs.set(id, blocks);
    for (const block of blocks)
      if (!this.#byDigest.has(block.digest)) this.#byDigest.set(block.digest, block);
  }

  /** Adds a pack that was made. */
  addPack({ id, blocks }: Pick<Pack, 'id' | 'blocks'>): void {
    this.add(id, blocks);
  }

  /** Adds all packs of another table. */
  merge(other: BlockTable): void {
    for (const [id, blocks] of other.packs()) this.add(id, blocks);
  }

  /** Where a block is stored; the one added first when it is in several packs. */
  find(digest: string): StoredBlock | undefined {
    return this.#byDigest.get(digest);
  }

  /** Packs with their blocks. */
  packs(): ReadonlyMap<string, readonly StoredBlock[]> {
    return this.#packs;
  }

  /** A table of some of the packs. */
  only(ids: ReadonlySet<string>): BlockTable {
    const table = new BlockTable();
    for (const [id, blocks] of this.#packs) if (ids.has(id)) table.add(id, blocks);
    return table;
  }

  /** As a file: a line of JSON and a record per block, in one zstd frame. */
  toBytes(): Buffer {
    const packs = [...this.#packs];
    const head = JSON.stringify({ magic: MAGIC, packs: packs.map(([id, blocks]) => [id, blocks.length]) });
    const count = packs.reduce((sum, [, blocks]) => sum + blocks.length, 0);
    const body = Buffer.alloc(count * RECORD_BYTES);
    let at = 0;
    for (const [, blocks] of packs) {
      for (const { digest, sha256, lengths } of blocks) {
        body.write(digest, at, 'hex');
        body.write(sha256, at + 32, 'hex');
        for (const [i, length] of lengths.entries()) body.writeUInt32LE(length, at + 64 + 4 * i);
        at += RECORD_BYTES;
      }
    }
    return zlib.zstdCompressSync(Buffer.concat([Buffer.from(`${head}\n`), body]), {
      params: { [zlib.constants.ZSTD_c_checksumFlag]: 1 },
    });
  }

  /** Reads what `toBytes` wrote. Throws DAMAGED for anything else. */
  static fromBytes(bytes: Buffer): BlockTable {
    let plain: Buffer;
    try {
      const most = Math.min(MOST_BLOCKS * RECORD_BYTES, bytes.length * MOST_RATIO + MIB);
      plain = zlib.zstdDecompressSync(bytes, { maxOutputLength: most });
    } catch (cause) {
      throw damaged(cause);
    }
    const end = plain.indexOf(0x0a);
    const heads = headsOf(end < 0 ? '' : plain.toString('utf8', 0, end));
    const count = heads.reduce((sum, [, length]) => sum + length, 0);
    if (plain.length !== end + 1 + count * RECORD_BYTES) throw damaged();
    const table = new BlockTable();
    let at = end + 1;
    for (const [pack, length] of heads) {
      const blocks: StoredBlock[] = [];
      let offset = 0;
      for (let i = 0; i < length; i++, at += RECORD_BYTES) {
        const lengths = Array.from({ length: CLUSTERS_PER_BLOCK }, (_, n) =>
          plain.readUInt32LE(at + 64 + 4 * n),
        );
        // A block of zeros is never stored.
        if (lengths.some((n) => n > MOST_FRAME_BYTES) || lengths.every((n) => n === 0)) throw damaged();
        const block: StoredBlock = {
          digest: plain.toString('hex', at, at + 32),
          pack,
          offset,
          lengths,
          sha256: plain.toString('hex', at + 32, at + 64),
        };
        blocks.push(block);
        offset += storedBytes(block);
      }
      table.add(pack, blocks);
    }
    return table;
  }
}

function headsOf(line: string): [string, number][] {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch (cause) {
    throw damaged(cause);
  }
  const { magic, packs } = (value ?? {}) as { magic?: unknown; packs?: unknown };
  if (magic !== MAGIC || !Array.isArray(packs)) throw damaged();
  let total = 0;
  const seen = new Set<string>();
  return packs.map((entry: unknown) => {
    const [id, count] = Array.isArray(entry) ? (entry as unknown[]) : [];
    if (typeof id !== 'string' || !HEX.test(id) || seen.has(id)) throw damaged();
    if (typeof count !== 'number' || !Number.isSafeInteger(count) || count < 1) throw damaged();
    seen.add(id);
    total += count;
    if (total > MOST_BLOCKS) throw damaged();
    return [id, count];
  });
}

function damaged(cause?: unknown): PortError {
  return new PortError('DAMAGED', 'a table of stored blocks is not what was written', { cause });
}
