/** Reads a blob as a stream that goes on where it broke off. */
import { Readable } from 'node:stream';
import type { BlobClient, BlobDownloadResponseParsed } from '@azure/storage-blob';
import { PortError } from '../../core/errors.ts';
import { pause } from '../../core/pause.ts';
import { printable } from '../../core/text.ts';
import { azureError, codeOf } from './errors.ts';

/** A download that breaks off so often without a byte more is given up. */
const BREAKS = 5;
const BREAK_PAUSE_MS = 500;

/**
 * Content from an offset on; nothing when that is behind the end. A blob that is replaced meanwhile is not mixed. Throws
 * as azureError; what happens later comes by the stream.
 */
export async function readBlob(
  blob: BlobClient,
  range: { offsetBytes?: number; lengthBytes?: number },
  signal?: AbortSignal,
): Promise<Readable> {
  const start = range.offsetBytes ?? 0;
  if (range.lengthBytes === 0) return Readable.from([]);
  const what = `reading ${printable(blob.name)}`;
  const abort = signal === undefined ? {} : { abortSignal: signal };
  let first: BlobDownloadResponseParsed;
  try {
    first = await blob.download(start, range.lengthBytes, { ...abort, maxRetryRequests: 0 });
  } catch (error) {
    if (codeOf(error) === 'InvalidRange') return Readable.from([]);
    throw azureError(error, what, signal);
  }
  const end = start + (first.contentLength ?? 0);
  const reopen = (at: number) =>
    blob.download(at, end - at, {
      ...abort,
      maxRetryRequests: 0,
      ...(first.etag === undefined ? {} : { conditions: { ifMatch: first.etag } }),
    });
  return Readable.from(pieces(first, reopen, start, end, what, signal), { objectMode: false });
}

async function* pieces(
  first: BlobDownloadResponseParsed,
  reopen: (at: number) => Promise<BlobDownloadResponseParsed>,
  start: number,
  end: number,
  what: string,
  signal?: AbortSignal,
): AsyncGenerator<Buffer> {
  let answer: BlobDownloadResponseParsed | undefined = first;
  let at = start;
  for (let breaks = 0; at < end; ) {
    const before = at;
    let broken: PortError;
    try {
      answer ??= await reopen(at);
      for await (const chunk of answer.readableStreamBody ?? []) {
        const piece = Buffer.from(chunk as Uint8Array);
        at += piece.length;
        yield piece;
      }
      if (at >= end) return;
      broken = new PortError('CLOUD', `${what}: it ended at ${at} of ${end} bytes`, { temporary: true });
    } catch (error) {
      broken = azureError(error, what, signal);
    }
    answer = undefined;
    breaks = at > before ? 1 : breaks + 1;
    if (!broken.temporary || breaks > BREAKS) throw broken;
    await pause(BREAK_PAUSE_MS * breaks, signal);
  }
}
