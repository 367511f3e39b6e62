/** A disk of a source machine: asks its helper for blocks, several ahead, and checks each answer. */
import { hash, webcrypto } from 'node:crypto';
import { promisify } from 'node:util';
import { inflate } from 'node:zlib';
import {
  BLOCK_BYTES,
  type BlockAnswer,
  type ByteRange,
  type DiskSource,
  type WantedBlock,
} from '../../core/disk-source.ts';
import { PortError } from '../../core/errors.ts';
import { printable } from '../../core/text.ts';
import type { BlockMemory } from './block-memory.ts';
import type { Connection } from './connection.ts';
import type { Fields, Frame } from './frames.ts';

const inflated = promisify(inflate);

/** Blocks in flight: what the four workers of the helper have in hand, and some on the way. Bounds the memory of both sides. */
const WINDOW_BLOCKS = 6;

/** Offsets the helper takes; also right for O_DIRECT. */
const GRAIN_BYTES = 4096;

/** The smallest unit of `parts`. */
const SECTOR_BYTES = 512;

const zeroSums = new Map<number, string>();

function zeroSum(lengthBytes: number): string {
  let sum = zeroSums.get(lengthBytes);
  if (sum === undefined) {
    sum = hash('sha256', Buffer.alloc(lengthBytes), 'hex');
    zeroSums.set(lengthBytes, sum);
  }
  return sum;
}

function covers(block: WantedBlock): boolean {
  const [first] = block.parts;
  return block.parts.length === 1 && first?.startBytes === 0 && first.lengthBytes === block.lengthBytes;
}

/** Waits for the promise or the signal. */
function orAborted<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return promise;
  return new Promise((resolve, reject) => {
    const abort = () => reject(new PortError('INTERRUPTED', 'interrupted'));
    if (signal.aborted) return abort();
    signal.addEventListener('abort', abort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', abort));
  });
}

/** A connection that serves one disk at a time. */
export interface Lane {
  connection: Connection;
  /** Memory of the connection's payloads. */
  memory: BlockMemory;
  /** What happens to the connection when the disk is closed. */
  release: () => Promise<void>;
}

/** An opened disk; see openRemoteDisk. */
export class RemoteDisk implements DiskSource {
  readonly name: string;
  readonly sizeBytes: number;
  private readonly connection: Connection;
  private readonly memory: BlockMemory;
  private readonly release: () => Promise<void>;
  private closed = false;

  /** For openRemoteDisk. */
  constructor(lane: Lane, device: string, sizeBytes: number) {
    const { connection, memory, release } = lane;
    this.connection = connection;
    this.release = release;
    this.name = printable(`${device} on ${connection.name}`);
    this.sizeBytes = sizeBytes;
    this.memory = memory;
  }

  async read(offset: number, length: number): Promise<Buffer> {
    const end = Math.min(offset + length, this.sizeBytes);
    if (end <= offset) return Buffer.alloc(0);
    const pieces: Buffer[] = [];
    for (let at = offset - (offset % GRAIN_BYTES); at < end; at += BLOCK_BYTES) {
      const lengthBytes = Math.min(
        BLOCK_BYTES,
        this.sizeBytes - at,
        Math.ceil((end - at) / SECTOR_BYTES) * SECTOR_BYTES,
      );
      const block: WantedBlock = { index: 0, lengthBytes, parts: [{ startBytes: 0, lengthBytes }] };
      const answer = await this.checked(block, await this.ask(block, at));
      if (answer.bad.length > 0) {
        throw new PortError(
          'BAD_SECTORS',
          `${this.name} cannot be read at byte ${at + (answer.bad[0]?.startBytes ?? 0)}`,
          {
            hint: 'the disk is failing',
          },
        );
      }
      pieces.push(
        Buffer.from((answer.data ?? Buffer.alloc(lengthBytes)).subarray(Math.max(0, offset - at), end - at)),
      );
      if (answer.data !== undefined) this.memory.give(answer.data);
    }
    return Buffer.concat(pieces);
  }

  async *readBlocks(
    wanted: Iterable<WantedBlock> | AsyncIterable<WantedBlock>,
    signal?: AbortSignal,
  ): AsyncGenerator<BlockAnswer> {
    const iterator =
      Symbol.asyncIterator in wanted ? wanted[Symbol.asyncIterator]() : wanted[Symbol.iterator]();
    const flying: Promise<BlockAnswer>[] = [];
    let more = true;
    try {
      for (;;) {
        while (more && flying.length < WINDOW_BLOCKS) {
          const next = await iterator.next();
          if (next.done === true) {
            more = false;
          } else {
            const block = next.value;
            // checked as it arrives, beside what the caller does with the ones before
            const answer = this.ask(block, block.index * BLOCK_BYTES).then((f) => this.checked(block, f));
            answer.catch(() => {}); // awaited when it is its turn
            flying.push(answer);
          }
        }
        const first = flying.shift();
        if (first === undefined) return;
        const answer = await orAborted(first, signal);
        yield answer;
        if (answer.data !== undefined) this.memory.give(answer.data);
      }
    } finally {
      for (const answer of flying) {
        answer.then(
          ({ data }) => data !== undefined && this.memory.give(data),
          () => {},
        );
      }
      await iterator.return?.();
    }
  }

  private ask(block: WantedBlock, offset: number): Promise<Frame> {
    if (this.closed) return Promise.reject(new PortError('BUG', `${this.name} is read after it was closed`));
    const parts = block.parts.map((p) => `${p.startBytes}-${p.lengthBytes}`).join(',');
    const fields: Fields = [
      ['op', 'block'],
      ['o', offset],
      ['n', block.lengthBytes],
      ['p', parts],
      ...(block.known === undefined ? [] : [['k', block.known.toString('hex')] as const]),
    ];
    return this.connection.ask(fields);
  }

  private wrong(what: string): PortError {
    return new PortError('SOURCE_REMOTE', `what came of ${this.name} is not what was read there: ${what}`, {
      temporary: true,
    });
  }

  /** The answer to `block`, compared with the sum that was made at the source. */
  private async checked(block: WantedBlock, frame: Frame): Promise<BlockAnswer> {
    const { fields, payload } = frame;
    const error = fields.get('error');
    if (error !== null) throw new PortError('SOURCE_REMOTE', `${this.name}: ${printable(error)}`);
    const kind = fields.get('kind');
    const sum = fields.get('sha') ?? '';
    const head = {
      index: block.index,
      sha256: Buffer.from(sum, 'hex'),
      bad: this.badRanges(block, fields.get('bad')),
      wireBytes: payload.length + fields.toString().length,
    };
    if (kind === 'zero' || kind === 'same') {
      const right = kind === 'zero' ? zeroSum(block.lengthBytes) : block.known?.toString('hex');
      if (sum !== right) throw this.wrong(`a block of the kind ${kind} has another sum`);
      return { ...head, kind, sentBytes: 0 };
    }
    if (kind !== 'data') throw this.wrong('an answer of an unknown kind');
    const sentBytes = block.parts.reduce((total, p) => total + p.lengthBytes, 0);
    const content = fields.get('z') === '1' ? await this.unpacked(payload, sentBytes) : payload;
    if (content.length !== sentBytes) throw this.wrong(`${content.length} instead of ${sentBytes} bytes`);
    const data = this.whole(block, content);
    // in libuv's threads: the main one has the streams to serve
    const arrived = Buffer.from(await webcrypto.subtle.digest('SHA-256', data)).toString('hex');
    if (arrived !== sum) throw this.wrong('another checksum');
    return { ...head, kind, data, sentBytes };
  }

  private async unpacked(payload: Buffer, lengthBytes: number): Promise<Buffer> {
    try {
      return await inflated(payload, { maxOutputLength: lengthBytes, chunkSize: Math.max(64, lengthBytes) });
    } catch {
      throw this.wrong('damaged compression');
    } finally {
      this.memory.give(payload);
    }
  }

  private whole(block: WantedBlock, content: Buffer): Buffer {
    if (covers(block)) return content;
    const data = this.memory.take(block.lengthBytes).fill(0);
    let at = 0;
    for (const { startBytes, lengthBytes } of block.parts) {
      content.copy(data, startBytes, at, at + lengthBytes);
      at += lengthBytes;
    }
    this.memory.give(content);
    return data;
  }

  private badRanges(block: WantedBlock, text: string | null): ByteRange[] {
    if (text === null) return [];
    return text.split(',').map((range) => {
      const [startBytes = Number.NaN, lengthBytes = Number.NaN] = range.split('-').map(Number);
      if (!(startBytes >= 0 && lengthBytes > 0 && startBytes + lengthBytes <= block.lengthBytes)) {
        throw this.wrong('bad ranges outside the block');
      }
      return { startBytes, lengthBytes };
    });
  }

  async close(): Promise<void> {
    if (this.closed) return;
    this.closed = true;
    await this.release();
  }
}

/** Opens a device over a connection that serves no disk now. Throws NOT_A_DISK, SOURCE_REMOTE. */
export async function openRemoteDisk(
  lane: Lane,
  device: string,
  options: { compress: 'auto' | 'never' | 'always'; allowRegularFiles: boolean },
): Promise<RemoteDisk> {
  const { connection } = lane;
  const frame = await connection.ask([
    ['op', 'open'],
    ['path', device],
    ['compress', options.compress],
    ['regular', options.allowRegularFiles ? 1 : 0],
  ]);
  const error = frame.fields.get('error');
  if (error !== null) {
    throw new PortError(
      'NOT_A_DISK',
      `${printable(`${device} on ${connection.name}`)}: ${printable(error)}`,
      {
        hint: 'name a block device of the machine, such as /dev/sda',
      },
    );
  }
  const sizeBytes = Number(frame.fields.get('size'));
  if (!Number.isSafeInteger(sizeBytes) || sizeBytes < 0) {
    throw new PortError('SOURCE_REMOTE', `${printable(device)} has no usable size`);
  }
  return new RemoteDisk(lane, device, sizeBytes);
}
