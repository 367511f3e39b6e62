/**
 * One image in Azure: its disk in a private container, proved, then registered. Every step looks first what is there, so a killed
 * run is gone on with by the next, and two at once make one image.
 *
 *     begin (If-None-Match: *) ─▶ lease ─▶ copied from the version before, or empty ─▶ changed blocks ─▶ read back
 *                                                   list of blocks ◀─ ETag of the disk ◀──────────┘
 *                                                        └─▶ prove ─▶ image or version ─▶ `complete`
 */
import type { BlockBlobClient, PageBlobClient } from '@azure/storage-blob';
import { asPortError, PortError } from '../../../core/errors.ts';
import { isoDate } from '../../../core/sync/dates.ts';
import { busy, isBusy, isSamePlace } from '../../../core/sync/owner.ts';
import type { CreatedImage, CreateInput } from '../../../core/sync/types.ts';
import { codeOf } from '../../../tools/azure/errors.ts';
import { asked, askedFor, requireContainer } from '../place.ts';
import { type AzurePlaceOfSync, Beginning } from './begin.ts';
import { Content, type ContentSent, paddedBytes } from './content.ts';
import { underLease } from './lease.ts';
import {
  blobName,
  type FoundImage,
  fromMark,
  identityMarks,
  isProved,
  MARK,
  type Marks,
  markOf,
  plainEtag,
  sentMarks,
  targetImage,
  toMark,
} from './marks.ts';
import { register } from './register.ts';

/** Signs of life while the image is registered. */
const SIGNS = 5;
const NOTHING: ContentSent = { sentBytes: 0, changedBytes: 0, copiedBlocks: 0, readBackBytes: 0 };

/** One call of `create`. */
export class Creation {
  readonly #of: AzurePlaceOfSync;
  readonly #input: CreateInput;
  readonly #mark: string;
  readonly #blob: PageBlobClient;
  readonly #blocks: BlockBlobClient;

  constructor(of: AzurePlaceOfSync, input: CreateInput) {
    const container = requireContainer(of.place);
    const name = blobName(of.sync, input.identity);
    this.#of = of;
    this.#input = input;
    this.#mark = markOf(of.sync, input.identity);
    this.#blob = container.getPageBlobClient(`${name}.vhd`);
    this.#blocks = container.getBlockBlobClient(`${name}.blocks`);
  }

  /** `images` are those of the series. Throws as SyncTarget.create does. */
  async run(images: readonly FoundImage[]): Promise<CreatedImage> {
    const { identity, owner, staleAfterMs, disk } = this.#input;
    if (disk.index.rawSha256 !== identity.rawSha256)
      throw new PortError('SOURCE_CHANGED', `the disk of ${identity.series} is not the one that was planned`);
    const own = images.find((image) => markOf(this.#of.sync, image.identity) === this.#mark);
    if (own !== undefined) {
      const seen = targetImage(own);
      if (seen.state === 'complete') return this.#created(seen.ref, true, 'copied', NOTHING);
      if (isBusy(seen, owner, staleAfterMs)) throw busy(identity.series, seen.owner);
    }
    const isWritten = own?.blocks?.marks[MARK.state] === 'written' && isProved(own);
    const { sent, marks } = isWritten
      ? { sent: NOTHING, marks: await this.#found() }
      : await this.#content(images, own);
    return this.#whileAlive(marks, async () => {
      await this.#input.prove?.();
      const uri = this.#blob.url.split('?')[0] ?? '';
      const id = await register(this.#input, this.#of.sync, this.#of.place, uri);
      await this.#complete(marks, id);
      return this.#created(id, false, isWritten ? 'found' : 'sent', sent);
    });
  }

  #created(ref: string, adopted: boolean, how: 'copied' | 'found' | 'sent', sent: ContentSent): CreatedImage {
    const { index } = this.#input.disk;
    const copied = sent.copiedBlocks;
    const proof =
      how !== 'sent'
        ? 'the run that wrote it read it back, and the service says that it was not written to since'
        : copied === 0
          ? `all ${sent.readBackBytes} bytes the blob stores were read back and are equal to the disk; the rest of both is zeros`
          : `${sent.readBackBytes} bytes that changed were read back and are equal to the disk; ${copied} blocks were copied by the service from the version before, which was not written to since it was proved, and were not read`;
    const { sentBytes, changedBytes } = sent;
    return {
      ref,
      method: copied > 0 ? 'page-ranges' : 'page-blob',
      adopted,
      sentBytes,
      changedBytes,
      dataBytes: index.dataBytes,
      content: 'ok',
      proof,
    };
  }

  #marks(state: 'uploading' | 'written'): Marks {
    const { identity, image, owner } = this.#input;
    return {
      ...identityMarks(this.#of.sync, identity, image.fileDigest ?? ''),
      [MARK.owner]: toMark(owner),
      [MARK.alive]: isoDate(new Date()),
      [MARK.state]: state,
    };
  }

  /** Marks of the list of blocks. */
  async #found(): Promise<Marks> {
    const { signal } = this.#input;
    const { metadata = {} } = await asked('the list of blocks', signal, () =>
      this.#blocks.getProperties({ abortSignal: signal }),
    );
    return { ...metadata };
  }

  async #content(
    images: readonly FoundImage[],
    own: FoundImage | undefined,
  ): Promise<{ sent: ContentSent; marks: Marks }> {
    const { signal, disk, identity } = this.#input;
    const padded = paddedBytes(disk.virtualBytes);
    if (padded !== disk.virtualBytes)
      this.#input.warn(
        `Azure takes whole MiB: zeros fill the disk of ${identity.series} up to ${padded} bytes`,
      );
    const beginning = new Beginning(this.#of, this.#input, this.#blob, () => this.#marks('uploading'));
    const begun = await beginning.begin(images, own);
    await beginning.copied();
    return underLease(this.#input, this.#blob, this.#mark, async (leaseId) => {
      const marks = { ...this.#marks('uploading'), ...begun.baseMarks };
      await this.#setMarks(this.#blob, marks, leaseId);
      const content = new Content(this.#input, { blob: this.#blob, leaseId, signal });
      const sent = await content.bring(begun.base?.index, begun.isNew);
      const { etag } = await this.#setMarks(
        this.#blob,
        { ...this.#marks('written'), ...begun.baseMarks },
        leaseId,
      );
      const listed = { ...this.#marks('written'), [MARK.etag]: plainEtag(etag) };
      const bytes = disk.index.toBytes();
      await asked('writing the list of blocks', signal, () =>
        this.#blocks.uploadData(bytes, { abortSignal: signal, metadata: sentMarks(listed) }),
      );
      return { sent, marks: listed };
    });
  }

  async #setMarks(blob: PageBlobClient | BlockBlobClient, marks: Marks, leaseId?: string) {
    const { signal } = this.#input;
    return asked('marking the blob', signal, () =>
      blob.setMetadata(sentMarks(marks), {
        abortSignal: signal,
        ...(leaseId === undefined ? {} : { conditions: { leaseId } }),
      }),
    );
  }

  /** Signs of life on the list of blocks; the disk is not touched any more. */
  async #whileAlive<T>(marks: Marks, work: () => Promise<T>): Promise<T> {
    const { owner, staleAfterMs, log } = this.#input;
    const before = fromMark(marks[MARK.owner] ?? '');
    if (before !== owner && !isSamePlace(before, owner)) log.info('taken over', { before });
    const sign = () => {
      marks[MARK.owner] = toMark(owner);
      marks[MARK.alive] = isoDate(new Date());
      return this.#setMarks(this.#blocks, marks);
    };
    await sign();
    let last: Promise<unknown> = Promise.resolve();
    const timer = setInterval(
      () => {
        last = sign().catch((error: unknown) => log.warn('no sign of life', { code: codeOf(error) }));
      },
      Math.max(1000, staleAfterMs / SIGNS),
    );
    try {
      return await work();
    } finally {
      clearInterval(timer);
      await last;
    }
  }

  /** From now on it is there. */
  async #complete(marks: Marks, id: string): Promise<void> {
    const { wanted, wantedDigest } = this.#input;
    marks[MARK.state] = 'complete';
    marks[MARK.image] = toMark(id);
    marks[MARK.name] = toMark(wanted.name);
    marks[MARK.wanted] = toMark(wantedDigest);
    marks[MARK.protected] = String(wanted.protected);
    marks[MARK.alive] = isoDate(new Date());
    await this.#setMarks(this.#blocks, marks);
  }
}

/** Whether the blob that is there is still to be asked for; for `update` and `hide`. */
export async function marksOf(
  blocks: BlockBlobClient,
  signal: AbortSignal,
): Promise<{ marks: Marks; etag: string } | undefined> {
  const found = await askedFor('the list of blocks', signal, () =>
    blocks.getProperties({ abortSignal: signal }),
  );
  return found === undefined ? undefined : { marks: { ...found.metadata }, etag: found.etag ?? '' };
}

/** One image. Throws as SyncTarget.create does. */
export async function createImage(
  of: AzurePlaceOfSync,
  input: CreateInput,
  images: readonly FoundImage[],
): Promise<CreatedImage> {
  try {
    return await new Creation(of, input).run(images);
  } catch (error) {
    throw asPortError(error);
  }
}
