/**
 * Content that can only be read from its start, into Cloud Storage: in one piece when it is small, else in parts that
 * `compose` joins. Parts of a killed run with the same CRC32C are not sent again.
 */
import { createHash } from 'node:crypto';
import { PortError } from '../../core/errors.ts';
import { MIB } from '../../core/sizes.ts';
import { printable } from '../../core/text.ts';
import { PartReader } from '../openstack/part-reader.ts';
import { withRetries } from '../openstack/retry.ts';
import type { GcsBucket, GcsObject } from './bucket.ts';

/** One part is held in memory; 32 x 32 of them are 32 GiB. */
const PART_BYTES = 32 * MIB;
const COMPONENTS = 32;

/** What to put. */
export interface PutStream {
  name: string;
  /** Begin of the names of the parts; nothing else is below it. */
  partsPrefix: string;
  /** Called once more to compare what is there. */
  content: () => AsyncIterable<Uint8Array>;
  /** Exact length when known. */
  bytes?: number | undefined;
  contentType: string;
  partBytes?: number | undefined;
  signal?: AbortSignal | undefined;
  /** Told of each attempt to send so many bytes. */
  onSend?: (bytes: number) => void;
}

/** A stream in the bucket. */
export interface StreamPut {
  bytes: number;
  sha256: string;
  /** Base64, as Google writes it. */
  crc32c: string;
  generation: string;
  /** Nothing had to be sent. */
  kept: boolean;
}

async function digests(content: AsyncIterable<Uint8Array>) {
  const { CRC32C } = await import('@google-cloud/storage');
  const crc = new CRC32C();
  const sha256 = createHash('sha256');
  let bytes = 0;
  for await (const chunk of content) {
    crc.update(Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength));
    sha256.update(chunk);
    bytes += chunk.byteLength;
  }
  return { bytes, crc32c: crc.toString(), sha256: sha256.digest('hex') };
}

async function* once(part: Uint8Array): AsyncGenerator<Uint8Array> {
  yield part;
}

/** Puts bytes and believes the answer only with their CRC32C; `there` is left when it has the same. */
async function putBytes(
  bucket: GcsBucket,
  put: Pick<PutStream, 'contentType' | 'signal' | 'onSend'>,
  name: string,
  part: Uint8Array,
  there: GcsObject | undefined,
  metadata: Record<string, string> = {},
): Promise<GcsObject> {
  const { crc32c } = await digests(once(part));
  if (there?.bytes === part.byteLength && there.crc32c === crc32c) return there;
  const { contentType, signal } = put;
  return withRetries(
    async () => {
      const content = () => once(part);
      put.onSend?.(part.byteLength);
      const made = await bucket.put({
        name,
        content,
        bytes: part.byteLength,
        contentType,
        metadata,
        signal,
      });
      if (made.bytes === part.byteLength && made.crc32c === crc32c) return made;
      await bucket.remove(name, signal);
      throw new PortError('STORE_MISMATCH', `${printable(name)}: the store got other bytes than were sent`, {
        temporary: true,
      });
    },
    { signal },
  );
}

async function nextPart(reader: PartReader, limit: number): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of reader.take(limit)) chunks.push(chunk);
  return Buffer.concat(chunks);
}

/** The object appears when it is complete. Throws STORE, STORE_MISMATCH, CLOUD, CLOUD_LOGIN, CLOUD_REFUSED. */
export async function putStream(bucket: GcsBucket, put: PutStream): Promise<StreamPut> {
  const { name, signal, partBytes = PART_BYTES } = put;
  const old = await bucket.head(name, signal);
  if (old !== undefined && (put.bytes === undefined || put.bytes === old.bytes)) {
    const local = await digests(put.content());
    if (local.bytes === old.bytes && local.crc32c === old.crc32c) {
      if (old.metadata.sha256 !== local.sha256)
        await bucket.setMetadata(name, { sha256: local.sha256 }, signal);
      return {
        bytes: local.bytes,
        sha256: local.sha256,
        crc32c: old.crc32c,
        generation: old.generation,
        kept: true,
      };
    }
  }
  const reader = new PartReader(put.content());
  try {
    const first = await nextPart(reader, partBytes);
    const isWhole = !(await reader.more());
    if (isWhole) checkLength(put, reader.bytes);
    if (isWhole) {
      const sha256 = reader.sha256.copy().digest('hex');
      const made = await putBytes(bucket, put, name, first, undefined, { sha256 });
      return { bytes: made.bytes, sha256, crc32c: made.crc32c, generation: made.generation, kept: false };
    }
    return await putParts(bucket, put, reader, first, partBytes);
  } finally {
    await reader.close();
  }
}

function checkLength({ name, bytes }: PutStream, came: number): void {
  if (bytes === undefined || bytes === came) return;
  throw new PortError('STORE', `${printable(name)}: ${came} bytes came, ${bytes} were announced`);
}

async function putParts(
  bucket: GcsBucket,
  put: PutStream,
  reader: PartReader,
  first: Buffer,
  partBytes: number,
): Promise<StreamPut> {
  const { name, signal, partsPrefix } = put;
  const { CRC32C } = await import('@google-cloud/storage');
  const left = new Map<string, GcsObject>();
  for await (const object of bucket.list(partsPrefix, signal)) left.set(object.name, object);
  const whole = new CRC32C();
  const names: string[] = [];
  for (let part = first; part.length > 0; part = await nextPart(reader, partBytes)) {
    whole.update(part);
    const target = `${partsPrefix}${String(names.length).padStart(4, '0')}`;
    await putBytes(bucket, put, target, part, left.get(target));
    names.push(target);
    left.delete(target);
  }
  checkLength(put, reader.bytes);
  // What an earlier run joined may be of other content.
  for (const object of left.keys()) await bucket.remove(object, signal);
  await bucket.remove(name, signal);
  const used = [...names];
  let level = names;
  for (let depth = 0; level.length > COMPONENTS; depth++) {
    const groups: string[] = [];
    for (let at = 0; at < level.length; at += COMPONENTS) {
      const group = `${partsPrefix}g${depth}-${String(groups.length).padStart(4, '0')}`;
      await bucket.compose(level.slice(at, at + COMPONENTS), group, put.contentType, signal);
      groups.push(group);
    }
    used.push(...groups);
    level = groups;
  }
  await bucket.compose(level, name, put.contentType, signal);
  const sha256 = reader.sha256.copy().digest('hex');
  const made = await bucket.head(name, signal);
  if (made?.crc32c !== whole.toString() || made.bytes !== reader.bytes) {
    await bucket.remove(name, signal);
    throw new PortError('STORE_MISMATCH', `${printable(name)} is not what was sent`);
  }
  await bucket.setMetadata(name, { sha256 }, signal);
  for (const part of used) await bucket.remove(part, signal);
  return { bytes: made.bytes, sha256, crc32c: made.crc32c, generation: made.generation, kept: false };
}
