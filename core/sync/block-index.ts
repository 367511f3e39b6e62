/** Which blocks of a disk hold something, and what: the unit of comparison between two nights. */
import { createHash } from 'node:crypto';
import { PortError } from '../errors.ts';
import { MIB } from '../sizes.ts';

/** Bytes of a block. docs/sync-delta.md has the sweep this number was taken from. */
export const BLOCK_BYTES = MIB;
/** Bytes of a digest, sha256. */
const DIGEST_BYTES = 32;
const MAGIC = 'port-image/blocks/1';
/** 64 TiB in blocks of 1 MiB. */
const MOST_BLOCKS = 2 ** 26;

/** Blocks of one disk. Blocks of zeros are not in it; the last block of a disk may be shorter and counts with zeros behind it. */
export class BlockIndex {
  readonly blockBytes: number;
  readonly virtualBytes: number;
  /** sha256 of the whole disk, hex. */
  readonly rawSha256: string;
  /** Numbers of the blocks, ascending. */
  readonly numbers: Uint32Array;
  /** Digests in the same order, 32 bytes each. */
  readonly digests: Buffer;

  constructor(facts: {
    blockBytes: number;
    virtualBytes: number;
    rawSha256: string;
    numbers: Uint32Array;
    digests: Buffer;
  }) {
    this.blockBytes = facts.blockBytes;
    this.virtualBytes = facts.virtualBytes;
    this.rawSha256 = facts.rawSha256;
    this.numbers = facts.numbers;
    this.digests = facts.digests;
  }

  /** How many blocks hold something. */
  get count(): number {
    return this.numbers.length;
  }

  /** Digest of the block at a position of `numbers`, hex. */
  digestAt(position: number): string {
    return this.digests.toString('hex', position * DIGEST_BYTES, (position + 1) * DIGEST_BYTES);
  }

  /** Bytes of all blocks that hold something. */
  get dataBytes(): number {
    return this.count * this.blockBytes;
  }

  /** sha256 over numbers and digests: two disks of one root are equal. */
  get root(): string {
    const hash = createHash('sha256').update(`${this.blockBytes} ${this.virtualBytes}\n`);
    const number = Buffer.alloc(4);
    for (let at = 0; at < this.count; at++) {
      number.writeUInt32LE(this.numbers[at] ?? 0);
      hash.update(number).update(this.digests.subarray(at * DIGEST_BYTES, (at + 1) * DIGEST_BYTES));
    }
    return hash.digest('hex');
  }

  /** As a file: one line of JSON, then 4 bytes number (little endian) and 32 bytes digest for each block. */
  toBytes(): Buffer {
    const head = Buffer.from(
      `${JSON.stringify({
        magic: MAGIC,
        blockBytes: this.blockBytes,
        virtualBytes: this.virtualBytes,
        rawSha256: this.rawSha256,
        count: this.count,
        root: this.root,
      })}\n`,
    );
    const body = Buffer.alloc(this.count * (4 + DIGEST_BYTES));
    for (let at = 0; at < this.count; at++) {
      const offset = at * (4 + DIGEST_BYTES);
      body.writeUInt32LE(this.numbers[at] ?? 0, offset);
      this.digests.copy(body, offset + 4, at * DIGEST_BYTES, (at + 1) * DIGEST_BYTES);
    }
    return Buffer.concat([head, body]);
  }

  /** Reads what `toBytes` wrote. Throws DAMAGED for anything else, also for a root that does not fit. */
  static fromBytes(bytes: Buffer): BlockIndex {
    const end = bytes.subarray(0, 4096).indexOf(0x0a);
    const head = end < 0 ? undefined : parse(bytes.toString('utf8', 0, end));
    const { blockBytes, virtualBytes, rawSha256, count, root } = head ?? {};
    if (
      head?.magic !== MAGIC ||
      !isCount(blockBytes, 2 ** 30) ||
      !isCount(virtualBytes, 2 ** 46) ||
      !isCount(count, MOST_BLOCKS) ||
      typeof rawSha256 !== 'string' ||
      !/^[0-9a-f]{64}$/.test(rawSha256) ||
      bytes.length !== end + 1 + count * (4 + DIGEST_BYTES)
    )
      throw damaged();
    const numbers = new Uint32Array(count);
    const digests = Buffer.alloc(count * DIGEST_BYTES);
    for (let at = 0; at < count; at++) {
      const offset = end + 1 + at * (4 + DIGEST_BYTES);
      numbers[at] = bytes.readUInt32LE(offset);
      bytes.copy(digests, at * DIGEST_BYTES, offset + 4, offset + 4 + DIGEST_BYTES);
      if (at > 0 && (numbers[at] ?? 0) <= (numbers[at - 1] ?? 0)) throw damaged();
      if ((numbers[at] ?? 0) * blockBytes >= virtualBytes) throw damaged();
    }
    const index = new BlockIndex({ blockBytes, virtualBytes, rawSha256, numbers, digests });
    if (index.root !== root) throw damaged();
    return index;
  }
}

const isCount = (value: unknown, most: number): value is number =>
  typeof value === 'number' && Number.isSafeInteger(value) && value >= 0 && value <= most;

function parse(line: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(line);
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : undefined;
  } catch {
    return undefined;
  }
}

function damaged(): PortError {
  return new PortError('DAMAGED', 'a list of blocks is not what was written');
}
