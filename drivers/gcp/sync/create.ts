/**
 * One image in Google Cloud. Every step looks first what is there, so a killed run is gone on with by the next, and two at once make
 * one image.
 *
 *     lock ─▶ archive, streamed ─▶ CRC32C ─▶ image without a family ─▶ size ─▶ prove ─▶ its family ─▶ `complete` ─▶ archive and lock removed
 */
import { asPortError, PortError } from '../../../core/errors.ts';
import { GIB } from '../../../core/sizes.ts';
import { isoDate } from '../../../core/sync/dates.ts';
import type { CreatedImage, CreateInput } from '../../../core/sync/types.ts';
import { printable } from '../../../core/text.ts';
import type { NewImage } from '../../../tools/gcp/compute.ts';
import { gceArchitecture, guestOsFeatures } from '../image.ts';
import {
  type GcpPlaceOfSync,
  objectsByMark,
  removeArchive,
  type SentArchive,
  sendArchive,
  wholeGib,
} from './archive.ts';
import { underLock } from './lock.ts';
import { descriptionOf, type FoundImage, imageName, type Marks, markOf, targetImage } from './marks.ts';
import { ownImage, show, wantedLabels } from './publish.ts';

const isComplete = (found: FoundImage | undefined): boolean =>
  found !== undefined && targetImage(found).state === 'complete';

/** One call of `create`. */
class Creation {
  readonly #of: GcpPlaceOfSync;
  readonly #input: CreateInput;
  readonly #name: string;

  constructor(of: GcpPlaceOfSync, input: CreateInput) {
    this.#of = of;
    this.#input = input;
    this.#name = imageName(of.sync, input.identity);
  }

  /** Under the lock. */
  async run(): Promise<CreatedImage> {
    const { input, compute } = this.#parts();
    const { signal } = input;
    let found = await ownImage(this.#of, this.#name, signal);
    if (isComplete(found)) return adopted(input, this.#name);
    // One that failed is of no use to anybody; one under way is waited for.
    if (found?.image.status === 'FAILED') {
      await compute.remove(this.#name, signal);
      found = undefined;
    }
    const sent = found === undefined ? await this.#send() : undefined;
    const own = await this.#ready();
    await input.prove?.();
    await show(this.#of, own, input.wanted, input.wantedDigest, input);
    const mark = markOf(this.#of.sync, input.identity);
    const left = (await objectsByMark(this.#of, signal, mark)).get(mark) ?? [];
    // The lock is removed by whoever holds it.
    const archive = left.filter(({ name }) => !name.endsWith('/lock'));
    await removeArchive(this.#of.services.bucket, archive, signal);
    return this.#created(sent);
  }

  #parts() {
    return { input: this.#input, compute: this.#of.services.compute };
  }

  /** Sends the archive and asks for the image. */
  async #send(): Promise<SentArchive> {
    const { input, compute } = this.#parts();
    const { signal, disk, identity, warn, progress } = input;
    const quota = await compute.imageQuota(signal);
    if (quota !== undefined && quota.usage >= quota.limit)
      throw new PortError(
        'CLOUD_REFUSED',
        `the project ${compute.project} has ${quota.usage} of ${quota.limit} allowed images`,
        { hint: 'remove older images, or ask for a larger quota of the project (IMAGES)' },
      );
    const bytes = wholeGib(disk.virtualBytes);
    if (bytes !== disk.virtualBytes)
      warn(`Google Cloud takes whole GiB: zeros fill the disk of ${identity.series} up to ${bytes} bytes`);
    const sent = await sendArchive(this.#of, input);
    progress({ text: `Compute Engine makes ${this.#name}` });
    try {
      await compute.insert(this.#newImage(sent.object), signal, (percent) =>
        progress({ text: `Compute Engine makes ${this.#name}: ${percent} %` }),
      );
    } catch (error) {
      // A run that was taken for dead may have asked for it a moment before.
      const isThere = error instanceof PortError && error.code === 'CLOUD_CONFLICT';
      if (isThere && (await ownImage(this.#of, this.#name, signal)) !== undefined) return sent;
      await this.#dropFailed();
      throw error;
    }
    return sent;
  }

  #newImage(object: string): NewImage {
    const { input } = this.#parts();
    const { identity, image, wanted, owner, warn } = input;
    const { features, storageLocations } = this.#of.options;
    const marks: Marks = {
      sync: this.#of.sync,
      series: identity.series,
      version: identity.version,
      sha256: identity.rawSha256,
      file: image.fileDigest ?? '',
      owner,
      alive: isoDate(new Date()),
      state: 'made',
      name: wanted.name,
      wanted: '',
      hidden: '',
      protected: false,
    };
    const claimed =
      features === 'auto' ? guestOsFeatures({ firmware: image.firmware, kernels: [] }) : features;
    return {
      name: this.#name,
      description: descriptionOf(marks),
      architecture: gceArchitecture(image.arch),
      labels: wantedLabels(this.#of, { identity, labels: {} }, wanted, warn),
      rawDisk: {
        source: `https://storage.googleapis.com/${this.#of.services.bucket.name}/${object}`,
        containerType: 'TAR',
      },
      guestOsFeatures: claimed.map((type) => ({ type })),
      ...(storageLocations.length === 0 ? {} : { storageLocations }),
    };
  }

  /** The image when Google has made it, as large as the disk. */
  async #ready(): Promise<FoundImage> {
    const { input, compute } = this.#parts();
    const { status } = await compute.settled(this.#name, input.signal);
    const own = await ownImage(this.#of, this.#name, input.signal);
    if (own === undefined || status !== 'READY') {
      await this.#dropFailed();
      throw new PortError('CLOUD', `image ${this.#name} became ${printable(status)}`, { temporary: true });
    }
    const gib = wholeGib(input.disk.virtualBytes) / GIB;
    if (own.image.diskSizeGb === gib) return own;
    await compute.remove(this.#name, input.signal);
    throw new PortError(
      'CLOUD_MISMATCH',
      `image ${this.#name} is of ${own.image.diskSizeGb} GB, the disk has ${gib}`,
    );
  }

  /** Removes an image that failed, if it is ours. What went wrong before says more than a failure of this. */
  async #dropFailed(): Promise<void> {
    const { input, compute } = this.#parts();
    if (input.signal.aborted) return;
    try {
      const left = await ownImage(this.#of, this.#name, input.signal);
      if (left?.image.status === 'FAILED') await compute.remove(this.#name, input.signal);
    } catch (error) {
      input.warn(`the failed image ${this.#name} may be left behind: ${(error as Error).message}`);
    }
  }

  #created(sent: SentArchive | undefined): CreatedImage {
    const { input } = this.#parts();
    const { dataBytes } = input.disk.index;
    return {
      ref: this.#name,
      method: 'gcs-import',
      adopted: false,
      sentBytes: sent?.sentBytes ?? 0,
      changedBytes: sent === undefined ? 0 : dataBytes,
      dataBytes,
      content: 'ok',
      proof:
        sent === undefined
          ? 'an earlier run compared the CRC32C of the archive in the bucket with that of what it sent'
          : `every block was compared with its digest when it was packed, CRC32C of the archive in the bucket and of what was sent are ${sent.crc32c}; the image was made of it`,
    };
  }
}

function adopted({ disk }: CreateInput, ref: string): CreatedImage {
  return {
    ref,
    method: 'gcs-import',
    adopted: true,
    sentBytes: 0,
    changedBytes: 0,
    dataBytes: disk.index.dataBytes,
    content: 'ok',
    proof: 'an earlier run compared the CRC32C of the archive in the bucket with that of what it sent',
  };
}

/** One image. Throws as SyncTarget.create does. */
export async function createImage(of: GcpPlaceOfSync, input: CreateInput): Promise<CreatedImage> {
  const { identity, disk, image, signal } = input;
  if (disk.index.rawSha256 !== identity.rawSha256)
    throw new PortError('SOURCE_CHANGED', `the disk of ${identity.series} is not the one that was planned`);
  gceArchitecture(image.arch);
  try {
    const name = imageName(of.sync, identity);
    if (isComplete(await ownImage(of, name, signal))) return adopted(input, name);
    return await underLock(of, input, (held) => new Creation(of, held).run());
  } catch (error) {
    throw asPortError(error);
  }
}
