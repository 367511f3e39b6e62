/** The bytes of an image file as they are sent: read ahead, summed on the way, memory that does not grow. */
import { createHash, type Hash } from 'node:crypto';
import * as fs from 'node:fs/promises';
import { PortError } from '../../../core/errors.ts';
import { printable } from '../../../core/text.ts';
import type { ReplayableBody } from '../../../tools/openstack/http.ts';

const READ_BYTES = 1024 * 1024;
/**
 * A buffer is used again only after three more were handed out. The socket holds at most one of them, since each is
 * larger than its high-water mark and the next is asked for when it has drained.
 */
const BUFFERS = 4;

/** Digests in hex. */
export interface Digests {
  bytes: number;
  sha512: string;
  sha256: string;
}

/** A file that can be read several times, with the digests of its last whole reading. */
export interface SentFile {
  readonly body: ReplayableBody;
  /** Digests of the last reading that reached the end; undefined before. */
  digests(): Digests | undefined;
}

/** Opens nothing yet. `onBytes` hears how many bytes of this attempt have been read; `summed` asks for digests. */
export function sentFile(
  file: string,
  options: {
    bytes: number;
    summed: boolean;
    onBytes?: (doneBytes: number) => void;
    /** Waited for before each piece. */
    pace?: ((bytes: number) => Promise<void>) | undefined;
    signal?: AbortSignal | undefined;
  },
): SentFile {
  let last: Digests | undefined;
  return {
    digests: () => last,
    body: async function* () {
      last = undefined;
      const sums: Hash[] = options.summed ? [createHash('sha512'), createHash('sha256')] : [];
      const handle = await fs.open(file, 'r');
      try {
        const { size } = await handle.stat();
        if (size !== options.bytes) throw changed(file);
        const buffers = Array.from({ length: BUFFERS }, () => Buffer.allocUnsafeSlow(READ_BYTES));
        const read = (n: number) => handle.read(buffers[n % BUFFERS] as Buffer, 0, READ_BYTES, null);
        let doneBytes = 0;
        let next = read(0);
        for (let n = 0; doneBytes < options.bytes; n++) {
          options.signal?.throwIfAborted();
          const { bytesRead, buffer } = await next;
          if (bytesRead === 0 || doneBytes + bytesRead > options.bytes) throw changed(file);
          // The next block is read while this one is summed and sent.
          next = read(n + 1);
          next.catch(() => {});
          const chunk = buffer.subarray(0, bytesRead);
          for (const sum of sums) sum.update(chunk);
          doneBytes += bytesRead;
          // Before the last block leaves: the answer may be here before we are asked for another one.
          if (doneBytes === options.bytes) {
            const [sha512, sha256] = sums.map((sum) => sum.digest('hex'));
            if (sha512 !== undefined && sha256 !== undefined) last = { bytes: doneBytes, sha512, sha256 };
          }
          options.onBytes?.(doneBytes);
          await options.pace?.(bytesRead);
          yield chunk;
        }
        await next;
      } finally {
        await handle.close();
      }
    },
  };
}

function changed(file: string): PortError {
  return new PortError('HOST_IO', `${printable(file)} changed while it was sent`, {
    hint: 'run the job again; nothing else may write into its folder',
  });
}
