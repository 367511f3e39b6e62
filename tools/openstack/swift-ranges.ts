/** A static large object over ranges of objects that exist already: one GET yields them in a row. */
import { PortError } from '../../core/errors.ts';
import { printable } from '../../core/text.ts';
import { withRetries } from './retry.ts';
import type { SwiftApi } from './swift.ts';
import { healing, plainEtag } from './swift-object.ts';

/** A part: an object, or a range of one. */
export interface RangePart {
  name: string;
  /** Of the whole object, and what the service compares. */
  bytes: number;
  etag: string;
  /** First byte and length; the whole object when absent. */
  range?: { offset: number; length: number };
}

const MANIFEST_TIMEOUT_MS = 600_000;
/** Swift follows manifests in manifests so deep (slo.py, DEFAULT_MAX_DEPTH). */
const MAX_DEPTH = 10;

const lengthOf = (part: RangePart): number => part.range?.length ?? part.bytes;

/**
 * Writes the object; inner manifests are named `NAME.list-DEPTH-NUMBER`. Returns their names. Throws CLOUD_REFUSED when the service
 * cannot join so many, CLOUD_MISMATCH when a part is not what was said of it.
 */
export async function joinRanges(
  api: SwiftApi,
  container: string,
  name: string,
  parts: readonly RangePart[],
  signal?: AbortSignal,
): Promise<string[]> {
  const { slo } = await api.info(signal);
  if (slo === undefined) throw new PortError('CLOUD_REFUSED', 'the object store cannot join parts (no slo)');
  const limit = slo.maxManifestSegments;
  const inner: string[] = [];
  let level = [...parts];
  for (let depth = 1; level.length > limit; depth++) {
    if (depth >= MAX_DEPTH || limit < 2)
      throw new PortError('CLOUD_REFUSED', `${printable(name)} needs more parts than the store can join`);
    const above: RangePart[] = [];
    for (let at = 0; at < level.length; at += limit) {
      const piece = level.slice(at, at + limit);
      const list = `${name}.list-${depth}-${above.length + 1}`;
      const etag = await putRanges(api, container, list, piece, signal);
      inner.push(list);
      above.push({ name: list, bytes: piece.reduce((sum, part) => sum + lengthOf(part), 0), etag });
    }
    level = above;
  }
  await putRanges(api, container, name, level, signal);
  const made = await api.headObject(container, name, signal);
  const wanted = parts.reduce((sum, part) => sum + lengthOf(part), 0);
  if (made?.bytes !== wanted)
    throw new PortError('CLOUD_MISMATCH', `${printable(name)} has ${made?.bytes ?? 0} bytes of ${wanted}`);
  return inner;
}

/** Writes one manifest; the service compares size and etag of each part. Returns the etag it gives the object. */
async function putRanges(
  api: SwiftApi,
  container: string,
  name: string,
  parts: readonly RangePart[],
  signal?: AbortSignal,
): Promise<string> {
  const body = JSON.stringify(
    parts.map(({ name: part, bytes, etag, range }) => ({
      path: `/${container}/${part}`,
      etag,
      size_bytes: bytes,
      ...(range === undefined || range.length === bytes
        ? {}
        : { range: `${range.offset}-${range.offset + range.length - 1}` }),
    })),
  );
  return withRetries(
    async () => {
      try {
        const answer = await api.send(api.url(container, name, { 'multipart-manifest': 'put' }), {
          method: 'PUT',
          body,
          answerTimeoutMs: MANIFEST_TIMEOUT_MS,
          what: `manifest of ${printable(name)}`,
          retries: 0,
          signal,
        });
        return plainEtag(answer.headers.etag);
      } catch (error) {
        // 400 names parts that one server of the store does not see yet.
        throw healing(error, [400, 404, 409]);
      }
    },
    { signal },
  );
}
