/** How the blob of a disk begins: empty, as a copy of the version before, or as an earlier run left it. */
import { buffer } from 'node:stream/consumers';
import type { BlobGetPropertiesResponse, PageBlobClient } from '@azure/storage-blob';
import { PortError } from '../../../core/errors.ts';
import { pause } from '../../../core/pause.ts';
import { BlockIndex } from '../../../core/sync/block-index.ts';
import { busy } from '../../../core/sync/owner.ts';
import type { CreateInput } from '../../../core/sync/types.ts';
import { readBlob } from '../../../tools/azure/blob-read.ts';
import { codeOf, statusOf } from '../../../tools/azure/errors.ts';
import { asked, type Place, requireContainer } from '../place.ts';
import { paddedBytes } from './content.ts';
import { type FoundImage, fromMark, isProved, MARK, type Marks, sentMarks, toMark } from './marks.ts';

/** What a target is made of. */
export interface AzurePlaceOfSync {
  sync: string;
  place: Place;
  /** Whole images when false. */
  delta: boolean;
}

/** A version whose disk can be copied. */
interface Base {
  name: string;
  etag: string;
  index: BlockIndex;
}

/** The beginning of one blob. */
export class Beginning {
  readonly #of: AzurePlaceOfSync;
  readonly #input: CreateInput;
  readonly #blob: PageBlobClient;
  readonly #marks: () => Marks;

  /** `marks` are those of a disk that is being uploaded, now. */
  constructor(of: AzurePlaceOfSync, input: CreateInput, blob: PageBlobClient, marks: () => Marks) {
    this.#of = of;
    this.#input = input;
    this.#blob = blob;
    this.#marks = marks;
  }

  /** The blob, begun by this or an earlier run. One of two at once is refused by the service. */
  async begin(
    images: readonly FoundImage[],
    own: FoundImage | undefined,
  ): Promise<{ base: Base | undefined; baseMarks: Marks; isNew: boolean }> {
    if (own !== undefined) {
      const marks = own.disk.marks;
      const name = fromMark(marks[MARK.base] ?? '');
      const from = images.find(
        ({ disk }) => name !== '' && disk.name === name && disk.etag === marks[MARK.baseEtag],
      );
      const base = from === undefined ? undefined : await this.#readBase(from);
      return { base, baseMarks: baseMarks(base), isNew: false };
    }
    const base = await this.#chooseBase(images);
    if (base !== undefined && (await this.#beginAsCopy(base)))
      return { base, baseMarks: baseMarks(base), isNew: true };
    const { signal, disk } = this.#input;
    // The size comes with the content: nobody shall take it for a VHD before.
    await this.#made(() =>
      this.#blob.create(paddedBytes(disk.virtualBytes), {
        abortSignal: signal,
        conditions: { ifNoneMatch: '*' },
        blobHTTPHeaders: { blobContentType: 'application/octet-stream' },
        metadata: sentMarks(this.#marks()),
      }),
    );
    return { base: undefined, baseMarks: {}, isNew: true };
  }

  /** Throws SYNC_BUSY when another run was first. */
  async #made(make: () => Promise<unknown>): Promise<void> {
    const { signal, owner, identity } = this.#input;
    await asked('beginning the blob', signal, async () => {
      try {
        await make();
      } catch (error) {
        if (codeOf(error) !== 'BlobAlreadyExists') throw error;
        // The answer of an earlier try may have been lost.
        const { metadata = {} } = await this.#blob.getProperties({ abortSignal: signal });
        const maker = fromMark(metadata[MARK.owner] ?? '');
        if (maker !== owner) throw busy(identity.series, maker, error);
      }
    });
  }

  /** False when the version before cannot be copied after all. */
  async #beginAsCopy(base: Base): Promise<boolean> {
    const { signal, log } = this.#input;
    const source = requireContainer(this.#of.place).getPageBlobClient(base.name);
    try {
      await this.#made(() =>
        this.#blob.beginCopyFromURL(source.url, {
          abortSignal: signal,
          conditions: { ifNoneMatch: '*' },
          sourceConditions: { ifMatch: `"${base.etag}"` },
          metadata: sentMarks({ ...this.#marks(), ...baseMarks(base) }),
        }),
      );
      return true;
    } catch (error) {
      const status = statusOf(error);
      if (status !== 404 && status !== 412 && !/CopySource|SourceCondition/.test(codeOf(error))) throw error;
      log.info('the version before cannot be copied', { code: codeOf(error) });
      return false;
    }
  }

  /** Waits until the service has copied. */
  async copied(): Promise<void> {
    const { signal, progress } = this.#input;
    for (;;) {
      const found: BlobGetPropertiesResponse = await asked('the blob', signal, () =>
        this.#blob.getProperties({ abortSignal: signal }),
      );
      const { copyStatus, copyProgress } = found;
      if (copyStatus === undefined || copyStatus === 'success') return;
      if (copyStatus !== 'pending') {
        await asked('removing the copy', signal, () => this.#blob.delete({ abortSignal: signal }));
        throw new PortError('CLOUD', `the service did not copy the version before: ${copyStatus}`, {
          temporary: true,
        });
      }
      progress({ text: `the service copies the version before: ${copyProgress ?? ''}` });
      await pause(this.#of.place.pollMs, signal);
    }
  }

  async #chooseBase(images: readonly FoundImage[]): Promise<Base | undefined> {
    if (!this.#of.delta) return undefined;
    const complete = images
      .filter((image) => image.blocks?.marks[MARK.state] === 'complete' && isProved(image))
      .sort((a, b) => (a.disk.createdAt < b.disk.createdAt ? 1 : -1));
    for (const image of complete) {
      const base = await this.#readBase(image);
      if (base !== undefined && base.index.blockBytes === this.#input.disk.index.blockBytes) return base;
    }
    return undefined;
  }

  /** The list of a disk that is as it was when that was written; undefined when it is not. */
  async #readBase(image: FoundImage): Promise<Base | undefined> {
    const { disk, blocks } = image;
    if (blocks === undefined || !isProved(image)) return undefined;
    const { signal, log } = this.#input;
    const blob = requireContainer(this.#of.place).getBlockBlobClient(blocks.name);
    try {
      const index = BlockIndex.fromBytes(await buffer(await readBlob(blob, {}, signal)));
      if (index.rawSha256 !== image.identity.rawSha256) return undefined;
      return { name: disk.name, etag: disk.etag, index };
    } catch (error) {
      if (signal.aborted) throw error;
      log.info('a list of blocks cannot be read', { blob: blocks.name, error: (error as Error).message });
      return undefined;
    }
  }
}

function baseMarks(base: Base | undefined): Marks {
  return base === undefined ? {} : { [MARK.base]: toMark(base.name), [MARK.baseEtag]: base.etag };
}
