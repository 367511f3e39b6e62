/** sha256 of the disk an image shows, as `sha256sum` of its raw form would print it; no raw copy is written. */
import { createHash } from 'node:crypto';
import * as fs from 'node:fs/promises';
import { PortError } from '../../core/errors.ts';
import { MIB } from '../../core/sizes.ts';
import type { StageContext } from '../../core/stage.ts';
import type { Artifact } from '../../core/types.ts';
import { diskOf } from '../../tools/container-disk.ts';
import { type MapExtent, map } from '../../tools/qemu-img.ts';
import { exportDisk } from '../../tools/qemu-storage-daemon.ts';

/** Throws DAMAGED when the image ends early, INTERRUPTED, HOST_IO. */
export async function rawDigest(
  ctx: Pick<StageContext, 'paths' | 'signal' | 'log'>,
  artifact: Artifact,
): Promise<string> {
  if (artifact.format === 'raw' && artifact.container === undefined) return artifact.sha256;
  const { signal, log } = ctx;
  const image = await diskOf(artifact, ctx.paths.tmp, { signal });
  try {
    const extents = await map(image, { signal, log });
    const disk = await exportDisk(image, ctx.paths.tmp, { signal, log });
    try {
      return await digestOf(disk.path, extents, artifact.virtualBytes, signal);
    } finally {
      await disk.stop();
    }
  } finally {
    await image.close();
  }
}

/** Zeros are not read: the map knows them. */
async function digestOf(
  file: string,
  extents: readonly MapExtent[],
  virtualBytes: number,
  signal: AbortSignal,
): Promise<string> {
  const hash = createHash('sha256');
  const zeros = Buffer.alloc(MIB);
  const buffer = Buffer.allocUnsafeSlow(MIB);
  const handle = await fs.open(file, 'r');
  try {
    let at = 0;
    const fill = async (end: number) => {
      for (; at < end; at += Math.min(MIB, end - at)) {
        signal.throwIfAborted();
        hash.update(end - at >= MIB ? zeros : zeros.subarray(0, end - at));
        // Hashing is synchronous: the upload beside it must get its turn.
        await new Promise(setImmediate);
      }
    };
    for (const extent of extents) {
      if (!extent.data) continue;
      await fill(extent.startBytes);
      const end = Math.min(extent.startBytes + extent.lengthBytes, virtualBytes);
      while (at < end) {
        signal.throwIfAborted();
        const { bytesRead } = await handle.read(buffer, 0, Math.min(MIB, end - at), at);
        if (bytesRead === 0) throw new PortError('DAMAGED', `${file} ends before its ${virtualBytes} bytes`);
        hash.update(buffer.subarray(0, bytesRead));
        at += bytesRead;
      }
    }
    await fill(virtualBytes);
    return hash.digest('hex');
  } finally {
    await handle.close();
  }
}
