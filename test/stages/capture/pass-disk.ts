/** A disk in memory that breaks, lies and changes as a test wants it to. */
import {
  BLOCK_BYTES,
  type BlockAnswer,
  type ByteRange,
  type DiskSource,
  type WantedBlock,
} from '../../../core/disk-source.ts';
import { PortError } from '../../../core/errors.ts';
import { isZero } from '../../../tools/disk-copy/index.ts';
import { blockOf, sum } from '../../tools/disk-copy/disk-fixtures.ts';

/** What a disk does wrong. */
export interface Faults {
  /** Breaks off before it answers the n-th block, counted over all openings; each once. */
  cutAt: Set<number>;
  /** Blocks that arrive damaged, and how often. */
  damage: Map<number, number>;
  /** Unreadable parts of blocks. */
  bad: Map<number, ByteRange[]>;
  /** Ends in order before it answers the n-th block; each once. */
  endAt: Set<number>;
}

/** A disk whose blocks are told by seeds; 0 is zeros. */
export class FakeDisk {
  readonly sizeBytes: number;
  readonly seeds: number[];
  readonly faults: Faults = { cutAt: new Set(), damage: new Map(), bad: new Map(), endAt: new Set() };
  opened = 0;
  closed = 0;
  answered = 0;
  /** Numbers of the blocks as they were asked for. */
  readonly asked: number[] = [];

  constructor(seeds: number[], sizeBytes = seeds.length * BLOCK_BYTES) {
    this.seeds = seeds;
    this.sizeBytes = sizeBytes;
  }

  lengthOf(index: number): number {
    return Math.min(BLOCK_BYTES, this.sizeBytes - index * BLOCK_BYTES);
  }

  /** What a copy of this block has to be: what is in use and readable, zeros elsewhere. */
  expected(index: number, parts: readonly ByteRange[]): Buffer {
    const whole = blockOf(this.seeds[index] ?? 0, this.lengthOf(index));
    const data = Buffer.alloc(whole.length);
    for (const { startBytes, lengthBytes } of parts) {
      whole.copy(data, startBytes, startBytes, startBytes + lengthBytes);
    }
    for (const { startBytes, lengthBytes } of this.faults.bad.get(index) ?? []) {
      data.fill(0, startBytes, startBytes + lengthBytes);
    }
    return data;
  }

  readonly open = async (): Promise<DiskSource> => {
    this.opened++;
    return {
      name: 'a disk of the test',
      sizeBytes: this.sizeBytes,
      read: async () => Buffer.alloc(0),
      readBlocks: (wanted) => this.#answers(wanted),
      close: async () => {
        this.closed++;
      },
    };
  };

  async *#answers(wanted: Iterable<WantedBlock> | AsyncIterable<WantedBlock>): AsyncGenerator<BlockAnswer> {
    for await (const block of wanted) {
      this.asked.push(block.index);
      const number = this.answered++;
      if (this.faults.cutAt.delete(number)) {
        throw new PortError('SOURCE_REMOTE', 'the connection broke', { temporary: true });
      }
      if (this.faults.endAt.delete(number)) return;
      yield this.#answer(block);
    }
  }

  #answer({ index, parts, known }: WantedBlock): BlockAnswer {
    const data = this.expected(index, parts);
    const sha256 = sum(data);
    const bad = this.faults.bad.get(index) ?? [];
    const left = this.faults.damage.get(index) ?? 0;
    if (left > 0) {
      this.faults.damage.set(index, left - 1);
      data[17] = (data[17] ?? 0) ^ 1;
      return { index, kind: 'data', data, sha256, bad, sentBytes: data.length, wireBytes: data.length };
    }
    const nothing = { index, sha256, bad, sentBytes: 0, wireBytes: 20 };
    if (isZero(data)) return { ...nothing, kind: 'zero' };
    if (known?.equals(sha256)) return { ...nothing, kind: 'same' };
    return { ...nothing, kind: 'data', data, sentBytes: data.length, wireBytes: data.length };
  }
}
