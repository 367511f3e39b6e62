/**
 * What a sync has in the bucket while it makes an image:
 *
 *     PREFIX/.sync/SYNC/MARK/lock                  who is at it
 *     PREFIX/.sync/SYNC/MARK/PLACE.tar.gz[.part-…] the archive, by the place that sends it: a run taken for dead disturbs nobody
 *
 * All of it goes when the image is shown.
 */
import { createHash } from 'node:crypto';
import { PortError } from '../../../core/errors.ts';
import { GIB } from '../../../core/sizes.ts';
import type { CreateInput } from '../../../core/sync/types.ts';
import { Pace } from '../../../tools/blocks/pace.ts';
import { gceTarStream } from '../../../tools/gce-tar-stream.ts';
import type { GcsBucket, GcsObject } from '../../../tools/gcp/bucket.ts';
import { removeObjects } from '../../../tools/gcp/put-parts.ts';
import { putStream } from '../../../tools/gcp/put-stream.ts';
import type { GcpOptions } from '../options.ts';
import type { Services } from '../place.ts';
import { markOf } from './marks.ts';

/** What a target is made of. */
export interface GcpPlaceOfSync {
  sync: string;
  options: GcpOptions;
  services: Services;
}

/** An archive that was sent. */
export interface SentArchive {
  object: string;
  sentBytes: number;
  crc32c: string;
}

/** Begin of the names of all objects of the sync; no data set has such a name. */
export const objectsOf = ({ sync, options }: GcpPlaceOfSync): string => `${options.prefix}/.sync/${sync}/`;

/** Name of the lock of an image. */
export const lockName = (of: GcpPlaceOfSync, mark: string): string => `${objectsOf(of)}${mark}/lock`;

const OBJECT = /^([0-9a-f]{40})\/(lock|[0-9a-f]{8}\.tar\.gz(\.part-[0-9a-g-]+)?)$/;

/** The image an object is for; undefined for one that no run of this sync made. */
export function markIn(of: GcpPlaceOfSync, name: string): string | undefined {
  return OBJECT.exec(name.slice(objectsOf(of).length))?.[1];
}

/** Bytes of the disk in Compute Engine. */
export const wholeGib = (virtualBytes: number): number => Math.ceil(virtualBytes / GIB) * GIB;

function archiveName(of: GcpPlaceOfSync, { owner, identity }: CreateInput): string {
  const place = owner.slice(owner.indexOf('@') + 1);
  const word = createHash('sha256').update(place).digest('hex').slice(0, 8);
  return `${objectsOf(of)}${markOf(of.sync, identity)}/${word}.tar.gz`;
}

/** Sends the archive of a disk; what an earlier run of this place sent of it is not sent again. Throws CLOUD_MISMATCH, SOURCE_CHANGED, CLOUD_*. */
export async function sendArchive(of: GcpPlaceOfSync, input: CreateInput): Promise<SentArchive> {
  const { disk, identity, signal, progress, uploadBytesPerSecond } = input;
  const object = archiveName(of, input);
  const pace = new Pace(uploadBytesPerSecond);
  const totalBytes = disk.index.dataBytes;
  let sentBytes = 0;
  const content = async function* () {
    let doneBytes = 0;
    const onBytes = (bytes: number) => {
      doneBytes += bytes;
      progress({ text: 'packing and sending', doneBytes, totalBytes });
    };
    for await (const chunk of gceTarStream(disk, wholeGib(disk.virtualBytes), { signal, onBytes })) {
      await pace.wait(chunk.length, signal);
      yield chunk;
    }
  };
  try {
    const { crc32c } = await putStream(of.services.bucket, {
      name: object,
      partsPrefix: `${object}.part-`,
      content,
      contentType: 'application/gzip',
      signal,
      onSend: (bytes) => {
        sentBytes += bytes;
      },
    });
    return { object, sentBytes, crc32c };
  } catch (error) {
    if (!(error instanceof PortError) || !error.code.startsWith('STORE')) throw error;
    throw new PortError('CLOUD_MISMATCH', `the archive of ${identity.series}: ${error.message}`, {
      cause: error,
      temporary: true,
      hint: 'something between Google and this machine changes what it passes on',
    });
  }
}

/** Objects of this sync, by image, or those of one image. */
export async function objectsByMark(
  of: GcpPlaceOfSync,
  signal: AbortSignal,
  mark?: string,
): Promise<Map<string, GcsObject[]>> {
  const found = new Map<string, GcsObject[]>();
  const prefix = `${objectsOf(of)}${mark === undefined ? '' : `${mark}/`}`;
  try {
    for await (const object of of.services.bucket.list(prefix, signal)) {
      const which = markIn(of, object.name);
      if (which !== undefined) found.set(which, [...(found.get(which) ?? []), object]);
    }
  } catch (error) {
    throw of.services.bucket.explainMissing(error);
  }
  return found;
}

/** Removes objects, the lock last. Returns their bytes. */
export async function removeArchive(
  bucket: GcsBucket,
  objects: readonly GcsObject[],
  signal: AbortSignal,
): Promise<number> {
  const isLock = ({ name }: GcsObject) => name.endsWith('/lock');
  const content = objects.filter((object) => !isLock(object));
  await removeObjects(
    bucket,
    content.map(({ name }) => name),
    signal,
  );
  for (const { name, generation } of objects.filter(isLock)) await bucket.remove(name, signal, generation);
  return content.reduce((sum, { bytes }) => sum + bytes, 0);
}
