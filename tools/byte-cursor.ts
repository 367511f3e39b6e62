/** Reads a stream of unknown length in pieces of known length, with little memory. */
import { PortError } from '../core/errors.ts';

/** A position in a stream that can look ahead a little and skip far. */
export class ByteCursor {
  readonly #source: AsyncIterator<Uint8Array>;
  readonly #maxBytes: number;
  #chunks: Buffer[] = [];
  #buffered = 0;
  #received = 0;
  #ended = false;

  /** Throws GUEST_BROKEN, when read, as soon as the stream has given more than `maxBytes`. */
  constructor(source: AsyncIterable<Uint8Array>, maxBytes: number) {
    this.#source = source[Symbol.asyncIterator]();
    this.#maxBytes = maxBytes;
  }

  /** Bytes gone past so far. */
  get position(): number {
    return this.#received - this.#buffered;
  }

  async #pull(): Promise<boolean> {
    if (this.#ended) return false;
    const next = await this.#source.next();
    if (next.done === true) {
      this.#ended = true;
      return false;
    }
    this.#received += next.value.length;
    if (this.#received > this.#maxBytes) {
      throw new PortError('GUEST_BROKEN', `a file of the guest unpacks to more than ${this.#maxBytes} bytes`);
    }
    this.#chunks.push(Buffer.from(next.value.buffer, next.value.byteOffset, next.value.length));
    this.#buffered += next.value.length;
    return true;
  }

  async #fill(count: number): Promise<void> {
    while (this.#buffered < count && (await this.#pull())) {
      // goes on until there is enough or no more
    }
  }

  /** The next `count` bytes without going on; fewer only at the end. */
  async peek(count: number): Promise<Buffer> {
    await this.#fill(count);
    if (this.#chunks.length > 1 && (this.#chunks[0]?.length ?? 0) < count) {
      this.#chunks = [Buffer.concat(this.#chunks)];
    }
    return (this.#chunks[0] ?? Buffer.alloc(0)).subarray(0, count);
  }

  /** Goes on by `count` bytes; false when the stream ends before. */
  async skip(count: number): Promise<boolean> {
    let left = count;
    for (;;) {
      const first = this.#chunks[0];
      if (first !== undefined) {
        const taken = Math.min(left, first.length);
        if (taken === first.length) this.#chunks.shift();
        else this.#chunks[0] = first.subarray(taken);
        this.#buffered -= taken;
        left -= taken;
      }
      if (left === 0) return true;
      if (this.#chunks.length === 0 && !(await this.#pull())) return false;
    }
  }

  /** Skips zero bytes; returns how many. */
  async skipZeros(): Promise<number> {
    let skipped = 0;
    for (;;) {
      const head = await this.peek(1);
      const first = this.#chunks[0];
      if (head.length === 0 || first === undefined) return skipped;
      const end = first.findIndex((byte) => byte !== 0);
      const count = end === -1 ? first.length : end;
      await this.skip(count);
      skipped += count;
      if (end !== -1) return skipped;
    }
  }

  /** Everything that is left, as it comes. */
  async *rest(): AsyncGenerator<Buffer> {
    for (;;) {
      const first = this.#chunks.shift();
      if (first !== undefined) {
        this.#buffered -= first.length;
        yield first;
      } else if (!(await this.#pull())) return;
    }
  }
}
