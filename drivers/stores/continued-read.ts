/** A download that goes on where its connection broke. */
import { asPortError, PortError } from '../../core/errors.ts';
import { pause } from '../../core/pause.ts';

/** A download that breaks off so often without a byte more is given up. */
const BREAKS = 5;
const BREAK_PAUSE_MS = 500;

/**
 * The bytes of an object from `start` up to `end`. `read` opens the same version of it at an offset and is called again after
 * each temporary failure. Throws STORE when it breaks off too often, else what `read` throws.
 */
export async function* continuedRead(
  key: string,
  { start, end, signal }: { start: number; end: number; signal: AbortSignal | undefined },
  read: (from: number) => AsyncIterable<Uint8Array> | Promise<AsyncIterable<Uint8Array>>,
): AsyncGenerator<Buffer> {
  let at = start;
  for (let breaks = 0; at < end; ) {
    let isHandedOut = false;
    try {
      for await (const piece of await read(at)) {
        at += piece.length;
        breaks = 0;
        isHandedOut = true;
        yield Buffer.from(piece.buffer, piece.byteOffset, piece.length);
        isHandedOut = false;
      }
    } catch (error) {
      if (signal?.aborted) throw new PortError('INTERRUPTED', 'interrupted', { cause: error });
      // thrown in by the reader, who wants no more; or refused for good
      if (isHandedOut || (error instanceof PortError && !error.temporary)) throw error;
      if (breaks >= BREAKS)
        throw new PortError('STORE', `${key}: ${asPortError(error).message}`, { cause: error });
    }
    if (at >= end) return;
    breaks += 1;
    if (breaks > BREAKS) {
      throw new PortError('STORE', `${key}: the download broke off ${breaks} times at byte ${at}`, {
        temporary: true,
      });
    }
    await pause(BREAK_PAUSE_MS * breaks, signal);
  }
}
