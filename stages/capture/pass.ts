/**
 * One pass over a disk: reads what is in use on the source, stores what is not here yet, and leaves a copy that
 * equals the source as it was read, with zeros where nothing is in use. A connection that breaks is opened again;
 * what was stored is not read twice.
 */
import * as path from 'node:path';
import type { BlockAnswer, ByteRange, DiskSource, WantedBlock } from '../../core/disk-source.ts';
import { asPortError, PortError } from '../../core/errors.ts';
import { requireFreeSpace } from '../../core/files.ts';
import { pause } from '../../core/pause.ts';
import { formatBytes } from '../../core/sizes.ts';
import { printable } from '../../core/text.ts';
import type { DiskCopy } from '../../tools/disk-copy/index.ts';
import { isAnswerTo, isWhole, notAsked } from './pass-answers.ts';
import { intersection, sumBytes, tidyRanges, type UsedBlock, usedBlocks } from './pass-blocks.ts';
import { type OnPassProgress, Pace, PassProgress } from './pass-pace.ts';

/** How long and how often a broken connection is opened again. */
export interface PassRetry {
  /** Gives up when no block came for this long; default ten minutes. */
  giveUpMs?: number;
  /** First pause; each further one without progress is twice as long. Default one second. */
  firstDelayMs?: number;
  /** Longest pause; default 30 seconds. */
  maxDelayMs?: number;
  /** Told before each pause. */
  onRetry?: (error: PortError, delayMs: number) => void;
}

/** What a pass is made of. */
export interface PassOptions {
  /** Opens the source; again after the connection broke. The pass closes what it opened. */
  open: () => Promise<DiskSource>;
  copy: DiskCopy;
  /** Which bytes of the disk are in use; asked once for a pass. */
  allocation: (disk: DiskSource) => Promise<{ ranges: readonly ByteRange[] }>;
  /** Number of the pass, from 1. */
  pass: number;
  /**
   * `resume` goes on with a pass of this number that was stopped; `full` reads all that is in use and takes what
   * changed.
   */
  mode: 'resume' | 'full';
  signal?: AbortSignal | undefined;
  onProgress?: OnPassProgress | undefined;
  /** For sources that know no limit of their own. */
  limitBytesPerSecond?: number | undefined;
  retry?: PassRetry | undefined;
}

/** What a pass did. */
export interface PassResult {
  pass: number;
  /** ISO 8601, UTC. */
  startedAt: string;
  seconds: number;
  diskBytes: number;
  /** In use on the source: what is read. */
  allocatedBytes: number;
  /** Blocks that were read in this run. */
  readBlocks: number;
  /** Blocks of the copy that are other than before, with those that became zeros. */
  changedBlocks: number;
  /** Content that came, before compression. */
  sentBytes: number;
  /** What travelled. */
  wireBytes: number;
  /** Blocks that were read and hold zeros. */
  zeroBlocks: number;
  /** Blocks that were read and are as before. */
  sameBlocks: number;
  /** Offsets on the disk that could not be read. */
  badRanges: ByteRange[];
  /** How often the source was opened again. */
  reconnects: number;
  /** sha256 over the sha256 of all blocks of the copy, in order, in hex. */
  treeSha256: string;
}

/** A disk with more unreadable places than this is not copied: no list of them would help anybody. */
const MOST_BAD_PLACES = 100_000;
/**
 * So many blocks in a row of which nothing can be read (128 MiB): the disk is gone. What is here of it must not all
 * be written over with zeros.
 */
const MOST_DEAD_BLOCKS = 32;

/**
 * Makes a pass.
 * Throws SOURCE_REMOTE when the source stays away, SOURCE_CHANGED when it has another size, DISK_SPACE, HOST_IO,
 * BAD_SECTORS when next to nothing can be read, INTERRUPTED. What was stored is kept, and a pass with `resume` goes
 * on from there.
 */
export async function runPass(options: PassOptions): Promise<PassResult> {
  return new Pass(options).run();
}

/** What a source was asked for. */
interface Asked {
  /** Blocks on their way, in order. */
  blocks: { wanted: WantedBlock; usedBytes: number }[];
  /** True when there are no more to ask for. */
  all: boolean;
}

class Pass {
  readonly #options: PassOptions;
  readonly #copy: DiskCopy;
  readonly #progress: PassProgress;
  readonly #pace: Pace;
  readonly #startedAt = new Date();
  readonly #start = performance.now();
  /** 1 for blocks that are dealt with. */
  readonly #done: Uint8Array;
  /** Blocks that arrived damaged once. */
  readonly #damaged = new Set<number>();
  #ranges: ByteRange[] | undefined;
  #lastProgressAt = performance.now();
  #badPlaces = 0;
  #deadBlocks = 0;
  #count = {
    readBlocks: 0,
    changedBlocks: 0,
    sentBytes: 0,
    wireBytes: 0,
    zeroBlocks: 0,
    sameBlocks: 0,
    reconnects: 0,
  };

  constructor(options: PassOptions) {
    this.#options = options;
    this.#copy = options.copy;
    this.#progress = new PassProgress(options.onProgress);
    this.#pace = new Pace(options.limitBytesPerSecond);
    this.#done = new Uint8Array(options.copy.blockCount);
  }

  async run(): Promise<PassResult> {
    await this.#untilDone();
    await this.#copy.flush();
    this.#progress.now();
    return {
      pass: this.#options.pass,
      startedAt: this.#startedAt.toISOString(),
      seconds: (performance.now() - this.#start) / 1000,
      diskBytes: this.#copy.sizeBytes,
      allocatedBytes: sumBytes(this.#ranges ?? []),
      ...this.#count,
      badRanges: this.#copy.badRanges(),
      treeSha256: this.#copy.treeDigest(),
    };
  }

  /** Opens the source and reads, again and again while what goes wrong may heal. */
  async #untilDone(): Promise<void> {
    const { signal, retry = {} } = this.#options;
    const giveUpMs = retry.giveUpMs ?? 600_000;
    let failuresInARow = 0;
    for (;;) {
      const progressBefore = this.#lastProgressAt;
      try {
        await this.#attempt();
        return;
      } catch (thrown) {
        const error = asPortError(thrown);
        if (signal?.aborted) throw new PortError('INTERRUPTED', 'the copy stopped', { cause: error });
        if (!error.temporary) throw error;
        const silentMs = performance.now() - this.#lastProgressAt;
        if (silentMs >= giveUpMs) throw error;
        failuresInARow = this.#lastProgressAt > progressBefore ? 0 : failuresInARow + 1;
        const longest = Math.min(
          retry.maxDelayMs ?? 30_000,
          (retry.firstDelayMs ?? 1_000) * 2 ** failuresInARow,
        );
        // many disks of a server that comes back must not all knock at once
        const delayMs = Math.min(longest * (0.5 + Math.random() / 2), giveUpMs - silentMs);
        retry.onRetry?.(error, delayMs);
        // what came so far is safe, however long this takes
        await this.#copy.flush();
        await pause(delayMs, signal);
        this.#count.reconnects++;
      }
    }
  }

  async #attempt(): Promise<void> {
    this.#options.signal?.throwIfAborted();
    const disk = await this.#options.open();
    try {
      if (disk.sizeBytes !== this.#copy.sizeBytes) {
        throw new PortError(
          'SOURCE_CHANGED',
          `${disk.name} has ${disk.sizeBytes} bytes now, ${this.#copy.sizeBytes} when its copy began`,
          { hint: 'a disk that was resized is captured into a new job' },
        );
      }
      this.#ranges ??= await this.#prepare(disk);
      // once more for what arrived damaged; what does so twice ends the pass
      while (this.#isOpen(this.#ranges)) await this.#read(disk, this.#ranges);
    } finally {
      await disk.close().catch(() => {}); // a broken connection may not close in order
    }
  }

  #isOpen(ranges: readonly ByteRange[]): boolean {
    for (const { index } of usedBlocks(ranges)) if (this.#done[index] === 0) return true;
    return false;
  }

  /** Finds out what is in use, frees what is not, and looks whether there is room for the rest. */
  async #prepare(disk: DiskSource): Promise<ByteRange[]> {
    const { sizeBytes } = this.#copy;
    const used = tidyRanges((await this.#options.allocation(disk)).ranges, sizeBytes);
    const stored = disk.dataRanges === undefined ? used : tidyRanges(await disk.dataRanges(), sizeBytes);
    const ranges = intersection(used, stored);
    await this.#clearUnused(ranges);
    let neededBytes = 0;
    for (const block of usedBlocks(ranges)) {
      const { state, pass } = this.#copy.block(block.index);
      if (state === 'missing') neededBytes += sumBytes(block.parts);
      else if (this.#options.mode === 'resume' && pass === this.#options.pass) {
        this.#done[block.index] = 1;
        this.#progress.skip(sumBytes(block.parts));
      }
    }
    this.#progress.totalBytes = sumBytes(ranges);
    this.#progress.now();
    await requireFreeSpace(
      path.dirname(this.#copy.rawPath),
      neededBytes,
      `the copy of ${printable(disk.name)}`,
    );
    return ranges;
  }

  async #clearUnused(ranges: readonly ByteRange[]): Promise<void> {
    const used = new Uint8Array(this.#copy.blockCount);
    for (const { index } of usedBlocks(ranges)) used[index] = 1;
    for (let i = 0; i < used.length; i++) {
      if (used[i] === 1 || this.#copy.isHole(i) || this.#copy.state(i) === 'zero') continue;
      if (this.#copy.state(i) !== 'missing') this.#count.changedBlocks++;
      await this.#copy.zero(i, this.#options.pass);
    }
  }

  async #read(disk: DiskSource, ranges: readonly ByteRange[]): Promise<void> {
    const stop = new AbortController();
    const signal = AbortSignal.any([stop.signal, ...(this.#options.signal ? [this.#options.signal] : [])]);
    const asked: Asked = { blocks: [], all: false };
    try {
      for await (const answer of disk.readBlocks(this.#wanted(ranges, asked, signal), signal)) {
        const first = asked.blocks.shift();
        if (first === undefined || !isAnswerTo(answer, first.wanted)) throw notAsked(disk.name, answer.index);
        if (!(await this.#store(answer, first.wanted, disk.name))) continue;
        this.#done[answer.index] = 1;
        this.#lastProgressAt = performance.now();
        this.#progress.add(first.usedBytes);
      }
      if (asked.blocks.length > 0 || !asked.all) {
        throw new PortError('SOURCE_REMOTE', `${disk.name} ended before it sent all blocks`, {
          temporary: true,
        });
      }
    } finally {
      stop.abort();
    }
  }

  async *#wanted(
    ranges: readonly ByteRange[],
    asked: Asked,
    signal: AbortSignal,
  ): AsyncGenerator<WantedBlock> {
    for (const block of usedBlocks(ranges)) {
      if (this.#done[block.index] === 1) continue;
      const usedBytes = sumBytes(block.parts);
      await this.#pace.take(usedBytes, signal);
      const wanted = this.#wantedOf(block);
      asked.blocks.push({ wanted, usedBytes });
      yield wanted;
    }
    asked.all = true;
  }

  #wantedOf({ index, parts }: UsedBlock): WantedBlock {
    const { sha256 } = this.#copy.block(index);
    const known = sha256 === undefined ? undefined : Buffer.from(sha256);
    return { index, lengthBytes: this.#copy.lengthOf(index), parts, known };
  }

  /** Stores a block; false when it arrived damaged and is to be asked for again. */
  async #store(answer: BlockAnswer, wanted: WantedBlock, name: string): Promise<boolean> {
    const { index, bad, data, sha256 } = answer;
    const { pass } = this.#options;
    this.#count.sentBytes += answer.sentBytes;
    this.#count.wireBytes += answer.wireBytes;
    if (!isWhole(answer, wanted)) {
      if (this.#damaged.has(index)) {
        throw new PortError('SOURCE_REMOTE', `block ${index} of ${name} arrived damaged twice`, {
          hint: 'check network and memory of both machines, then run it again: it goes on from here',
        });
      }
      this.#damaged.add(index);
      return false;
    }
    this.#countBad(bad, name);
    this.#countDead(sumBytes(bad) >= sumBytes(wanted.parts), name);
    this.#count.readBlocks++;
    const before = this.#copy.state(index);
    if (wanted.known?.equals(sha256)) {
      this.#count.sameBlocks++;
      await this.#copy.keep(index, pass, bad);
    } else if (answer.kind === 'zero') {
      if (before === 'data' || before === 'bad') this.#count.changedBlocks++;
      await this.#copy.zero(index, pass, bad);
    } else if (data !== undefined) {
      this.#count.changedBlocks++;
      await this.#copy.write({ index, data, sha256, pass, bad });
    }
    if (answer.kind === 'zero') this.#count.zeroBlocks++;
    return true;
  }

  #countDead(isDead: boolean, name: string): void {
    this.#deadBlocks = isDead ? this.#deadBlocks + 1 : 0;
    if (this.#deadBlocks < MOST_DEAD_BLOCKS) return;
    throw new PortError('BAD_SECTORS', `${name} does not answer any more: nothing of it can be read`, {
      hint: 'all but the last 128 MiB of what was copied before is kept; check the disk, or copy what can be saved with ddrescue',
    });
  }

  #countBad(bad: readonly ByteRange[], name: string): void {
    this.#badPlaces += bad.length;
    if (this.#badPlaces <= MOST_BAD_PLACES) return;
    throw new PortError('BAD_SECTORS', `${name}: more than ${MOST_BAD_PLACES} places cannot be read`, {
      hint: 'copy what can be saved with ddrescue, then capture that copy',
    });
  }
}

/** Throws BAD_SECTORS when a disk has more unreadable places than the operator accepts. */
export function requireFewBad(name: string, badRanges: readonly ByteRange[], allowBad: number): void {
  if (badRanges.length <= allowBad) return;
  const places = badRanges.slice(0, 3).map((r) => r.startBytes);
  const more = badRanges.length > places.length ? ', …' : '';
  const count = badRanges.length === 1 ? 'one place' : `${badRanges.length} places`;
  throw new PortError(
    'BAD_SECTORS',
    `${printable(name)}: ${formatBytes(sumBytes(badRanges))} in ${count} cannot be read, at byte ${places.join(', ')}${more}`,
    {
      hint: `--allow-bad ${badRanges.length} takes the disk with zeros there; run it again to try once more`,
    },
  );
}
