/** Memory of blocks, used again: garbage of 4 MiB each would pile up between collections. */
import { BLOCK_BYTES } from '../../core/disk-source.ts';

/** Payloads below this are not worth keeping. */
const SMALL_BYTES = 64 * 1024;

/** Buffers that wait to be used again. */
export class BlockMemory {
  private readonly free: ArrayBuffer[] = [];
  private readonly most: number;

  /** Keeps at most `most` blocks. */
  constructor(most: number) {
    this.most = most;
  }

  /** Memory of so many bytes; its content is anything. */
  take(lengthBytes: number): Buffer {
    if (lengthBytes < SMALL_BYTES || lengthBytes > BLOCK_BYTES) return Buffer.allocUnsafeSlow(lengthBytes);
    return Buffer.from(this.free.pop() ?? new ArrayBuffer(BLOCK_BYTES), 0, lengthBytes);
  }

  /** Takes memory back; whoever gives it uses it no more. Memory that did not come from here is left to the collector. */
  give(buffer: Buffer): void {
    const memory = buffer.buffer;
    if (!(memory instanceof ArrayBuffer) || memory.byteLength !== BLOCK_BYTES) return;
    if (this.free.length < this.most && !this.free.includes(memory)) this.free.push(memory);
  }
}
