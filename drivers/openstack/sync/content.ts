/** Brings the content of a claimed image into Glance: by blocks over the cloud's own Swift, or as a whole file. */
import { createHash } from 'node:crypto';
import * as fs from 'node:fs/promises';
import { asPortError, PortError } from '../../../core/errors.ts';
import { BLOCK_BYTES } from '../../../core/sync/block-index.ts';
import type { CreatedImage } from '../../../core/sync/types.ts';
import { worthKeeping } from '../../../tools/blocks/choose.ts';
import { type Composed, compose, composedDigests } from '../../../tools/blocks/compose.ts';
import { readBlock } from '../../../tools/blocks/index-disk.ts';
import type { GlanceImage } from '../../../tools/openstack/glance-types.ts';
import { joinRanges, type RangePart } from '../../../tools/openstack/swift-ranges.ts';
import { explained } from '../upload/bytes.ts';
import { compareRemote } from '../upload/compare.ts';
import { awaitImport, startImportOnce } from '../upload/import.ts';
import { chooseMethod, readOffer } from '../upload/method.ts';
import type { UploadInput } from '../upload/types.ts';
import { BlockStore, type Meter, tableName } from './block-store.ts';
import type { SyncCloud } from './client.ts';
import { type Arrived, type ContentInput, CountingMeter, uploadInput } from './content-types.ts';
import { sendWhole } from './whole.ts';
import { cutAtZeros } from './zeros.ts';

/** Glance opens the URL at once; the time is for a queue of imports before ours. */
const URL_LIFE_MS = 12 * 3600_000;

/** Sends it. Throws CLOUD_REFUSED, CLOUD_MISMATCH, CLOUD, HOST_IO, DISK_SPACE, INTERRUPTED; then the image is not whole. */
export async function sendImage(input: ContentInput, claimed: GlanceImage): Promise<Arrived> {
  const { cloud, create, request, delta } = input;
  const offer = await readOffer(cloud.glance, create.signal);
  const meter = new CountingMeter(create.uploadBytesPerSecond);
  const canPull = offer.hasObjectStore && offer.importMethods.includes('web-download');
  const isFree = request.method === 'auto' || request.method === 'web-download';
  if (delta === 'auto' && isFree && canPull) {
    const why = await refusal(cloud, create.signal);
    if (why === undefined) {
      try {
        return await sendBlocks(input, claimed, meter);
      } catch (error) {
        const known = asPortError(error);
        // Glance may not reach Swift; what was asked for by name is not replaced by something else.
        if (!isImportFailure(known) || request.method !== 'auto') throw known;
        create.warn(
          `the cloud could not read the image from its Swift (${known.message}); sending all of it`,
        );
      }
    } else if (request.method === 'web-download') throw why;
  }
  const { method } = chooseMethod(
    { ...request, method: request.method === 'web-download' ? 'auto' : request.method },
    { ...offer, hasObjectStore: false },
    0,
  );
  return sendWhole(input, method === 'import' ? 'import' : 'put', meter);
}

/** Why blocks cannot be used here; undefined when they can. */
async function refusal(cloud: SyncCloud, signal: AbortSignal): Promise<PortError | undefined> {
  const info = await cloud.swift.info(signal);
  if (info.isRgw || info.slo === undefined || (info.tempUrl?.digests.length ?? 0) === 0) {
    return new PortError('CLOUD_REFUSED', 'the object store has no SLO with signed URLs per container', {
      hint: 'images go there whole: options.method: put',
    });
  }
  return undefined;
}

class ImportFailure extends PortError {}
const isImportFailure = (error: PortError): boolean => error instanceof ImportFailure;

async function sendBlocks(input: ContentInput, claimed: GlanceImage, meter: CountingMeter): Promise<Arrived> {
  const { cloud, sync, create } = input;
  const { disk, signal, identity } = create;
  const { index } = disk;
  const store = await BlockStore.open(cloud.swift, sync, { make: true, signal });
  if (store === undefined) throw new PortError('BUG', 'no container');
  const { table: all, packs } = await store.known({ series: identity.series, rawSha256: identity.rawSha256 });
  const table = worthKeeping(index, all);
  const handle = await fs.open(disk.rawPath, 'r');
  try {
    const buffer = Buffer.allocUnsafeSlow(BLOCK_BYTES);
    const read = (number: number) => readBlock(handle, number, buffer, index.virtualBytes);
    const { changedBytes } = await store.fill(index, table, packs, read, create, meter);
    const composed = compose(index, table);
    create.progress({ text: 'comparing' });
    const used = new Set(composed.parts.flatMap((part) => (part.kind === 'pack' ? [part.pack] : [])));
    const digests = await composedDigests(composed, {
      handle,
      index,
      table,
      signal,
      fetch: (pack, offset, length) => store.range(pack, offset, length),
    }).catch(async (error: unknown) => {
      throw await explainMismatch(input, store, claimed, used, error);
    });
    const whole = uploadInput(input, {
      file: disk.rawPath,
      bytes: digests.bytes,
      sha256: digests.sha256,
      sha512: digests.sha512,
    });
    const image = await pull(input, claimed, store, composed, packs, meter, whole);
    const comparison = await compareContent(input, image, whole).catch(async (error: unknown) => {
      throw await explainMismatch(input, store, image, used, error);
    });
    // What it is made of, before anybody counts on it; then nobody needs the single parts any more.
    await store.put(tableName(identity), table.only(used).toBytes(), meter);
    const partial = await store.list(`partial/${identity.rawSha256}/`);
    await store.remove(partial.map((object) => object.name));
    return {
      image,
      method: 'blocks',
      sentBytes: meter.bytes,
      changedBytes,
      dataBytes: index.dataBytes,
      ...comparison,
    };
  } finally {
    await handle.close();
  }
}

/** Joins the parts in Swift, lets Glance read them, and takes the joined object away again. */
async function pull(
  input: ContentInput,
  claimed: GlanceImage,
  store: BlockStore,
  composed: Composed,
  packs: ReadonlyMap<string, { bytes: number; etag: string }>,
  meter: Meter,
  whole: UploadInput,
): Promise<GlanceImage> {
  const { cloud, create } = input;
  const { glance, swift } = cloud;
  const { signal } = create;
  // An earlier attempt of this place may have come so far.
  if (claimed.status === 'active' && claimed.size === composed.totalBytes) return claimed;
  if (claimed.status === 'importing') return awaitImport(glance, claimed.id, whole);
  const folder = `images/${claimed.id}/`;
  const made: string[] = [];
  try {
    const parts: RangePart[] = [];
    let zeros: RangePart | undefined;
    for (const [number, part] of composed.parts.entries()) {
      if (part.kind === 'pack') {
        const { bytes, etag } = packs.get(part.pack) ?? { bytes: 0, etag: '' };
        const range = { offset: part.offset, length: part.length };
        parts.push({ name: `packs/${part.pack}`, bytes, etag, range });
        continue;
      }
      for (const { start, end, isZero } of cutAtZeros(part.bytes)) {
        if (isZero) {
          zeros ??= await store.zeros(meter);
          parts.push({ ...zeros, range: { offset: 0, length: end - start } });
          continue;
        }
        const name = `${folder}part-${number}-${start}`;
        const piece = part.bytes.subarray(start, end);
        const etag = createHash('md5').update(piece).digest('hex');
        made.push(name);
        await store.put(name, piece, meter, etag);
        parts.push({ name, bytes: piece.length, etag });
      }
    }
    const object = `${folder}image.qcow2`;
    made.push(object);
    made.push(...(await joinRanges(swift, store.container, object, parts, signal)));
    const url = await swift.tempUrl({
      container: store.container,
      object,
      method: 'GET',
      lifeMs: URL_LIFE_MS,
      signal,
    });
    try {
      await startImportOnce(glance, claimed.id, { method: 'web-download', url: new URL(url) }, whole);
      return await awaitImport(glance, claimed.id, whole);
    } catch (error) {
      const known = asPortError(await explained(glance, error, signal));
      if (signal.aborted || known.code !== 'CLOUD') throw known;
      throw new ImportFailure('CLOUD', known.message, {
        hint: known.hint ?? '',
        temporary: known.temporary,
        cause: error,
      });
    }
  } finally {
    await store.remove(made).catch((error: unknown) => {
      create.log.info('parts of an import stay for the next sweep', { message: String(error) });
    });
  }
}

/** Packs that were damaged in the store are taken away, with the image: the next attempt sends their blocks again. */
async function explainMismatch(
  { cloud, create }: ContentInput,
  store: BlockStore,
  image: GlanceImage,
  used: ReadonlySet<string>,
  error: unknown,
): Promise<unknown> {
  // What was read back is not what was stored, or what Glance has is not what was sent.
  if (!['CLOUD_MISMATCH', 'DAMAGED'].includes(asPortError(error).code)) return error;
  const damaged = await store.removeDamaged(used);
  if (damaged.length === 0) return error;
  create.warn(`${damaged.length} packs in ${store.container} were damaged; their blocks are sent again`);
  await cloud.glance.remove(image.id, { signal: create.signal });
  return new PortError('CLOUD_MISMATCH', `packs in ${store.container} were not what was stored`, {
    temporary: true,
    hint: `they were removed: ${damaged.slice(0, 3).join(', ')}`,
    cause: error,
  });
}

async function compareContent(
  input: ContentInput,
  image: GlanceImage,
  whole: UploadInput,
): Promise<Pick<CreatedImage, 'content' | 'proof'>> {
  const { os_hash_algo: algorithm, os_hash_value: value } = image;
  const own = algorithm === 'sha512' ? whole.sha512 : algorithm === 'sha256' ? whole.sha256 : undefined;
  if (image.disk_format === 'qcow2' && own !== undefined && image.size === whole.bytes) {
    if (value?.toLowerCase() === own) return { content: 'ok', proof: `${algorithm} of the composed file` };
    throw new PortError('CLOUD_MISMATCH', `image ${image.id} in the cloud is not what was sent`, {
      hint: 'it is taken away again; the next run sends what is wrong',
    });
  }
  const { verified, proof } = await compareRemote(input.cloud.glance, image, whole);
  return { content: verified, proof };
}
