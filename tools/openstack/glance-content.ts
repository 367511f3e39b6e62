/** The bytes of an image: into Glance or its staging area, and out again. */
import type { CallOptions, GlanceApi } from './glance.ts';
import type { HttpResponse, ReplayableBody } from './http.ts';

/** Where content goes: into the image, or into Glance's staging area. */
export type Destination = 'file' | 'stage';

/** Content to send. */
export interface UploadContent extends CallOptions {
  body: ReplayableBody;
  bytes: number;
  /** Store to put it into; Glance's default one when absent. */
  store?: string | undefined;
  /** Longest wait for the answer after the last byte. */
  answerTimeoutMs?: number | undefined;
}

/**
 * Glance answers when its store has the bytes, and a gateway may collect all of them before it passes any on: the wait
 * after the last one grows with the size, at a speed every store should reach.
 */
const CONTENT_ANSWER_MS = 5 * 60_000;
const SLOWEST_BYTES_PER_MS = 20_000;

/** One attempt to send the content; the image must be queued. Throws as CloudSession.request. */
export async function putContent(
  glance: GlanceApi,
  id: string,
  destination: Destination,
  content: UploadContent,
): Promise<void> {
  const answer = await glance.send(`images/${id}/${destination}`, {
    method: 'PUT',
    headers: {
      'content-type': 'application/octet-stream',
      ...(content.store === undefined ? {} : { 'x-image-meta-store': content.store }),
    },
    body: content.body,
    bodyBytes: content.bytes,
    answerTimeoutMs: content.answerTimeoutMs ?? CONTENT_ANSWER_MS + content.bytes / SLOWEST_BYTES_PER_MS,
    retries: 0,
    what: `${destination === 'file' ? 'upload' : 'staging'} of image ${id}`,
    signal: content.signal,
  });
  await answer.drain();
}

/** Content as it is stored. Throws as CloudSession.request. */
export async function downloadContent(
  glance: GlanceApi,
  id: string,
  options: CallOptions = {},
): Promise<HttpResponse> {
  return glance.send(`images/${id}/file`, {
    method: 'GET',
    headers: { accept: 'application/octet-stream' },
    what: `download of image ${id}`,
    ...options,
  });
}
