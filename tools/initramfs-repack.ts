/** Compresses an initramfs again on the host: the same archives, bit for bit, in the same format at another level. */
import { createReadStream, createWriteStream } from 'node:fs';
import { pipeline } from 'node:stream/promises';
import { constants, createGunzip, createGzip, createZstdCompress, createZstdDecompress } from 'node:zlib';
import { PortError } from '../core/errors.ts';
import { FILE_MODE } from '../core/files.ts';
import { ByteCursor } from './byte-cursor.ts';
import { readCpioNames } from './cpio.ts';
import { compressionOf } from './initramfs.ts';

/** Offset of the compressed archive behind the plain ones, and its format. */
async function findPacked(file: string): Promise<{ offset: number; compression: string | undefined }> {
  const stream = createReadStream(file);
  try {
    const cursor = new ByteCursor(stream, Number.MAX_SAFE_INTEGER);
    await readCpioNames(cursor, new Set());
    const head = await cursor.peek(6);
    return { offset: cursor.position, compression: compressionOf(head) };
  } finally {
    stream.destroy();
  }
}

/**
 * Writes `from` to `to` with its main archive at `level`. Returns false, having written nothing, when the archive is
 * not gzip or zstd. Throws GUEST_BROKEN when it cannot be unpacked.
 */
export async function repackInitramfs(
  from: string,
  to: string,
  level: number,
  signal: AbortSignal,
): Promise<boolean> {
  const { offset, compression } = await findPacked(from);
  if (compression !== 'gzip' && compression !== 'zstd') return false;
  if (offset > 0) {
    const plain = createReadStream(from, { end: offset - 1 });
    await pipeline(plain, createWriteStream(to, { mode: FILE_MODE }), { signal });
  }
  const unpack = compression === 'gzip' ? createGunzip() : createZstdDecompress();
  const pack =
    compression === 'gzip'
      ? createGzip({ level })
      : createZstdCompress({
          params: { [constants.ZSTD_c_compressionLevel]: level, [constants.ZSTD_c_checksumFlag]: 1 },
        });
  const target = createWriteStream(to, { flags: offset > 0 ? 'a' : 'w', mode: FILE_MODE });
  await pipeline(createReadStream(from, { start: offset }), unpack, pack, target, { signal }).catch(
    (cause: unknown) => {
      if (signal.aborted) throw new PortError('INTERRUPTED', 'interrupted', { cause });
      const { code, message } = cause as NodeJS.ErrnoException;
      if (/^E[A-Z]+$/.test(code ?? '')) throw cause;
      throw new PortError('GUEST_BROKEN', `the initramfs cannot be unpacked: ${message}`, { cause });
    },
  );
  return true;
}
