/** Reads through an NBD connection, many at once. Nothing but reading is spoken here. */
import type { ByteRange } from '../../core/disk-source.ts';
import { asPortError, PortError } from '../../core/errors.ts';
import { printable } from '../../core/text.ts';
import { type NbdExport, negotiate, nonsense } from './nbd-handshake.ts';
import { broken, type NbdAddress, NbdStream } from './nbd-stream.ts';

const REQUEST_MAGIC = 0x25609513;
const SIMPLE_MAGIC = 0x67446698;
const CHUNK_MAGIC = 0x668e33ef;
const CMD_READ = 0;
const CMD_DISC = 2;
const CMD_BLOCK_STATUS = 7;
const CHUNK_DONE = 1;
const CHUNK_NONE = 0;
const CHUNK_DATA = 1;
const CHUNK_HOLE = 2;
const CHUNK_STATUS = 5;
const CHUNK_ERROR = 0x8000;
/** The content reads as zeros (NBD_STATE_ZERO). */
const STATE_ZERO = 2;
const EIO = 5;
const ESHUTDOWN = 108;
/** Longest list of extents nbdkit and qemu send: a million. */
const MAX_STATUS_BYTES = 4 + 8 * 1024 * 1024;
/** Most pieces one read is answered in, and most runs one question: servers stay far below, an endless answer does not. */
const MAX_PIECES = 16 * 1024;
const MAX_EXTENTS = MAX_STATUS_BYTES / 8;
/** A failing disk may need minutes to say that it cannot read a sector. */
const SILENCE_MS = 180_000;
const NEGOTIATION_SILENCE_MS = 20_000;
const MAX_ERROR_BYTES = 64 * 1024;

/** A run as the server tells it. */
export interface NbdExtent {
  lengthBytes: number;
  zero: boolean;
}

/** The server could not read these sectors. */
export class UnreadableSectors extends Error {}

interface Pending {
  offset: number;
  length: number;
  /** For reads; filled as answers come. */
  target: Buffer | undefined;
  /** Runs of `target` that came, none twice. */
  came: ByteRange[];
  extents: NbdExtent[];
  error: Error | undefined;
  resolve: () => void;
  reject: (error: Error) => void;
}

/** A connection ready for reading. */
export class NbdClient {
  readonly about: NbdExport;
  readonly #stream: NbdStream;
  readonly #name: string;
  readonly #pending = new Map<bigint, Pending>();
  #next = 1n;
  #failure: PortError | undefined;

  private constructor(stream: NbdStream, name: string, about: NbdExport) {
    this.#stream = stream;
    this.#name = name;
    this.about = about;
    void this.#receive();
  }

  /** Connects and negotiates. Throws SOURCE_REMOTE, INTERRUPTED. */
  static async connect(
    address: NbdAddress,
    exportName: string,
    name: string,
    signal?: AbortSignal,
  ): Promise<NbdClient> {
    const stream = await NbdStream.connect(address, name, signal);
    const stop = () => stream.destroy(new PortError('INTERRUPTED', 'connecting stopped'));
    signal?.addEventListener('abort', stop);
    try {
      stream.expect(NEGOTIATION_SILENCE_MS);
      const about = await negotiate(stream, name, exportName);
      stream.expect(0);
      return new NbdClient(stream, name, about);
    } catch (error) {
      stream.destroy();
      throw error;
    } finally {
      signal?.removeEventListener('abort', stop);
    }
  }

  /** Fills `target`; offset and length as the server wants them. Throws UnreadableSectors, SOURCE_REMOTE. */
  async read(offset: number, target: Buffer): Promise<void> {
    await this.#request(CMD_READ, offset, target.length, target);
  }

  /** What is stored from `offset` on; at least one run, the last may end beyond `length`. */
  async status(offset: number, length: number): Promise<NbdExtent[]> {
    const { extents } = await this.#request(CMD_BLOCK_STATUS, offset, length, undefined);
    if (extents.length === 0) throw nonsense(this.#name, 'it says nothing about what is stored');
    return extents;
  }

  /** Ends the connection; what is still asked for fails. */
  close(error?: PortError): void {
    if (this.#failure === undefined && error === undefined) this.#send(CMD_DISC, 0n, 0, 0);
    this.#fail(error ?? broken(this.#name, 'the connection is closed'));
  }

  #request(command: number, offset: number, length: number, target: Buffer | undefined): Promise<Pending> {
    return new Promise((resolve, reject) => {
      if (this.#failure !== undefined) {
        reject(this.#failure);
        return;
      }
      const pending: Pending = {
        ...{ offset, length, target, came: [], extents: [], error: undefined, reject },
        resolve: () => resolve(pending),
      };
      const cookie = this.#next++;
      this.#pending.set(cookie, pending);
      this.#stream.expect(SILENCE_MS);
      this.#send(command, cookie, offset, length);
    });
  }

  #send(command: number, cookie: bigint, offset: number, length: number): void {
    const request = Buffer.alloc(28);
    request.writeUInt32BE(REQUEST_MAGIC, 0);
    request.writeUInt16BE(command, 6);
    request.writeBigUInt64BE(cookie, 8);
    request.writeBigUInt64BE(BigInt(offset), 16);
    request.writeUInt32BE(length, 24);
    this.#stream.send(request);
  }

  #fail(error: PortError): void {
    this.#failure ??= error;
    this.#stream.destroy(this.#failure);
    for (const pending of this.#pending.values()) pending.reject(this.#failure);
    this.#pending.clear();
  }

  async #receive(): Promise<void> {
    try {
      for (;;) await this.#reply();
    } catch (error) {
      this.#fail(asPortError(error));
    }
  }

  async #reply(): Promise<void> {
    const head = await this.#stream.take(16);
    const magic = head.readUInt32BE(0);
    const cookie = head.readBigUInt64BE(8);
    const pending = this.#pending.get(cookie);
    if (pending === undefined) throw nonsense(this.#name, 'it answers what it was not asked');
    if (magic === SIMPLE_MAGIC) {
      const error = head.readUInt32BE(4);
      if (error !== 0) pending.error = this.#errorOf(error, '');
      else if (pending.target !== undefined) await this.#data(pending, 0, pending.length);
      this.#finish(cookie, pending);
      return;
    }
    if (magic !== CHUNK_MAGIC) throw nonsense(this.#name, 'its answers have another form');
    const length = (await this.#stream.take(4)).readUInt32BE(0);
    await this.#chunk(pending, head.readUInt16BE(6), length);
    if ((head.readUInt16BE(4) & CHUNK_DONE) !== 0) this.#finish(cookie, pending);
  }

  async #chunk(pending: Pending, type: number, length: number): Promise<void> {
    if (type === CHUNK_NONE && length === 0) return;
    if (type === CHUNK_DATA && pending.target !== undefined && length > 8) {
      const offset = Number((await this.#stream.take(8)).readBigUInt64BE(0));
      await this.#data(pending, offset - pending.offset, length - 8);
    } else if (type === CHUNK_HOLE && pending.target !== undefined && length === 12) {
      const hole = await this.#stream.take(12);
      const start = Number(hole.readBigUInt64BE(0)) - pending.offset;
      this.#claim(pending, start, hole.readUInt32BE(8)).fill(0);
    } else if (
      type === CHUNK_STATUS &&
      pending.target === undefined &&
      length >= 12 &&
      length <= MAX_STATUS_BYTES
    ) {
      this.#status(pending, await this.#stream.take(length));
    } else if (type >= CHUNK_ERROR && length >= 6 && length <= MAX_ERROR_BYTES) {
      const data = await this.#stream.take(length);
      const words = data.toString('utf8', 6, Math.min(length, 6 + data.readUInt16BE(4)));
      pending.error ??= this.#errorOf(data.readUInt32BE(0), words);
    } else throw nonsense(this.#name, `an answer of kind ${type} with ${length} bytes`);
  }

  #status(pending: Pending, data: Buffer): void {
    if (data.readUInt32BE(0) !== this.about.allocationId || data.length % 8 !== 4) {
      throw nonsense(this.#name, 'it tells of something else than what is stored');
    }
    if (pending.extents.length > MAX_EXTENTS) throw nonsense(this.#name, 'it tells of runs without end');
    for (let at = 4; at < data.length; at += 8) {
      const lengthBytes = data.readUInt32BE(at);
      if (lengthBytes === 0) throw nonsense(this.#name, 'it tells of runs without bytes');
      pending.extents.push({ lengthBytes, zero: (data.readUInt32BE(at + 4) & STATE_ZERO) !== 0 });
    }
  }

  /** The part of the target an answer is for; each byte is answered once. */
  #claim(pending: Pending, start: number, length: number): Buffer {
    const { target, came } = pending;
    const end = start + length;
    const taken = came.some((r) => start < r.startBytes + r.lengthBytes && r.startBytes < end);
    const isOdd = start < 0 || length === 0 || taken || came.length >= MAX_PIECES;
    if (target === undefined || end > target.length || isOdd) {
      throw nonsense(this.#name, 'it sends bytes that were not asked for');
    }
    came.push({ startBytes: start, lengthBytes: length });
    return target.subarray(start, end);
  }

  async #data(pending: Pending, start: number, length: number): Promise<void> {
    await this.#stream.fill(this.#claim(pending, start, length));
  }

  #errorOf(number: number, words: string): Error {
    const said = words === '' ? '' : `: ${printable(words).slice(0, 300)}`;
    if (number === EIO) return new UnreadableSectors(`${this.#name} cannot read${said}`);
    return new PortError('SOURCE_REMOTE', `${this.#name} answers with error ${number}${said}`, {
      temporary: number === ESHUTDOWN,
    });
  }

  #finish(cookie: bigint, pending: Pending): void {
    this.#pending.delete(cookie);
    this.#stream.expect(this.#pending.size > 0 ? SILENCE_MS : 0);
    const bytes = pending.came.reduce((sum, r) => sum + r.lengthBytes, 0);
    if (pending.error !== undefined) pending.reject(pending.error);
    else if (pending.target === undefined || bytes === pending.length) pending.resolve();
    else pending.reject(nonsense(this.#name, 'it sends fewer bytes than asked for'));
  }
}
