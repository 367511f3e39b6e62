/** Cuts one stream into parts, with a digest over all of it. */
import { createHash } from 'node:crypto';

/** Reads a stream part by part, once and from its start; to be closed when it is not read to its end. */
export class PartReader {
  readonly sha256 = createHash('sha256');
  bytes = 0;
  readonly #source: AsyncIterator<Uint8Array>;
  #rest: Uint8Array = new Uint8Array(0);

  constructor(content: AsyncIterable<Uint8Array>) {
    this.#source = content[Symbol.asyncIterator]();
  }

  /** True when there is at least one more byte. */
  async more(): Promise<boolean> {
    while (this.#rest.byteLength === 0) {
      const next = await this.#source.next();
      if (next.done === true) return false;
      this.#rest = next.value;
    }
    return true;
  }

  /** The next `limit` bytes, or what is left. */
  async *take(limit: number): AsyncGenerator<Uint8Array> {
    for (let left = limit; left > 0 && (await this.more()); ) {
      const chunk = this.#rest.subarray(0, left);
      this.#rest = this.#rest.subarray(chunk.byteLength);
      left -= chunk.byteLength;
      this.bytes += chunk.byteLength;
      this.sha256.update(chunk);
      yield chunk;
    }
  }

  async close(): Promise<void> {
    await this.#source.return?.();
  }
}
