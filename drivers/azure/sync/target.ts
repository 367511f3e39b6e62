/** Azure as a target of a sync: each version a VHD in a container, a change of that of the version before, and an image over it. */
import type { BlockBlobClient } from '@azure/storage-blob';
import { PortError } from '../../../core/errors.ts';
import type { TargetConfig } from '../../../core/sync/config.ts';
import { isoDate } from '../../../core/sync/dates.ts';
import { isAlive, LEFTOVER_MS } from '../../../core/sync/owner.ts';
import type {
  CreatedImage,
  CreateInput,
  ImageIdentity,
  SyncContext,
  SyncTarget,
  TargetImage,
  WantedImage,
} from '../../../core/sync/types.ts';
import { printable } from '../../../core/text.ts';
import { codeOf, statusOf } from '../../../tools/azure/errors.ts';
import { targetOptionsOf } from '../../sync-options.ts';
import { AzureOptions } from '../options.ts';
import { asked, openPlace, requireContainer } from '../place.ts';
import type { AzurePlaceOfSync } from './begin.ts';
import { createImage, marksOf } from './create.ts';
import {
  blobName,
  type FoundBlob,
  foundBlob,
  fromMark,
  identityOf,
  imagesAmong,
  isProved,
  MARK,
  type Marks,
  markOf,
  sentMarks,
  targetImage,
  toMark,
} from './marks.ts';
import { change, unregister } from './register.ts';

/** A list of blocks may be a moment older than its disk in a listing. */
const ORPHAN_MS = 3_600_000;

/** Throws CONFIG. */
function checked(name: string, config: TargetConfig): AzureOptions {
  const options = targetOptionsOf(name, config, AzureOptions);
  if (options.method === 'page-blob') return options;
  throw new PortError('CONFIG', `target ${printable(name)}: method ${options.method} is not for a sync`, {
    hint: 'take page-blob: its blobs carry what the next night needs',
  });
}

/** Throws CONFIG for what an image of Azure cannot be asked for. */
function requirePossible({ visibility, members }: WantedImage): void {
  if (visibility === 'private' && members.length === 0) return;
  throw new PortError('CONFIG', `an image in Azure is not made ${visibility} one by one`, {
    hint: 'take private in the rule for this target, and share the gallery or the resource group by roles',
  });
}

class AzureTarget implements SyncTarget {
  readonly name: string;
  readonly platform = 'azure';
  readonly place: string;
  readonly #of: AzurePlaceOfSync;
  readonly #calls: { sent: number };

  constructor(name: string, of: AzurePlaceOfSync, calls: { sent: number }) {
    const { storageAccount, container, resourceGroup } = of.place.options;
    this.name = name;
    this.place = `${storageAccount}/${container}, ${resourceGroup}`;
    this.#of = of;
    this.#calls = calls;
  }

  calls(): number {
    return this.#calls.sent;
  }

  async close(): Promise<void> {
    this.#of.place.http.agent?.destroy();
  }

  /** Blobs below a prefix, with their marks. */
  async #blobs(prefix: string, { signal }: SyncContext): Promise<FoundBlob[]> {
    return asked('the blobs of the container', signal, async () => {
      const found: FoundBlob[] = [];
      const options = { prefix, includeMetadata: true, includeCopy: true, abortSignal: signal };
      for await (const blob of requireContainer(this.#of.place).listBlobsFlat(options))
        found.push(foundBlob(blob));
      return found;
    });
  }

  #blocksOf(identity: ImageIdentity): BlockBlobClient {
    return requireContainer(this.#of.place).getBlockBlobClient(`${blobName(this.#of.sync, identity)}.blocks`);
  }

  async list(ctx: SyncContext): Promise<TargetImage[]> {
    const { sync } = this.#of;
    return imagesAmong(await this.#blobs(`${sync}/`, ctx), sync).map(targetImage);
  }

  async create(input: CreateInput): Promise<CreatedImage> {
    requirePossible(input.wanted);
    const { sync } = this.#of;
    const blobs = await this.#blobs(`${sync}/${input.identity.series}/`, input);
    return createImage(this.#of, input, imagesAmong(blobs, sync));
  }

  /** Changes the marks; a change of somebody else in between is never overwritten. */
  async #setMarks(image: TargetImage, ctx: SyncContext, marks: Marks): Promise<void> {
    const { signal } = ctx;
    const blocks = this.#blocksOf(image);
    const found = await marksOf(blocks, signal);
    if (found === undefined || found.marks[MARK.id] !== markOf(this.#of.sync, image))
      throw new PortError('CLOUD', `${printable(image.ref)} is gone`, { temporary: true });
    await asked('marking the image', signal, () =>
      blocks.setMetadata(sentMarks({ ...found.marks, ...marks }), {
        abortSignal: signal,
        conditions: { ifMatch: found.etag },
      }),
    );
  }

  async update(
    image: TargetImage,
    wanted: WantedImage,
    wantedDigest: string,
    ctx: SyncContext,
  ): Promise<void> {
    requirePossible(wanted);
    const { sync, place } = this.#of;
    await change(image.ref, place, markOf(sync, image), ctx, { image: wanted, hiddenAt: '' });
    await this.#setMarks(image, ctx, {
      [MARK.name]: toMark(wanted.name),
      [MARK.wanted]: toMark(wantedDigest),
      [MARK.protected]: String(wanted.protected),
      [MARK.hidden]: '',
    });
  }

  async hide(image: TargetImage, ctx: SyncContext): Promise<void> {
    if (image.hidden) return;
    const { sync, place } = this.#of;
    const hiddenAt = isoDate(new Date());
    await change(image.ref, place, markOf(sync, image), ctx, { hiddenAt });
    await this.#setMarks(image, ctx, { [MARK.hidden]: hiddenAt });
  }

  async remove(image: TargetImage, ctx: SyncContext): Promise<void> {
    const { sync, place } = this.#of;
    const name = blobName(sync, image);
    const [found] = imagesAmong(await this.#blobs(`${name}.`, ctx), sync);
    if (image.protected || found?.blocks?.marks[MARK.protected] === 'true')
      throw new PortError('CLOUD_CONFLICT', `${printable(image.ref)} is marked as protected`, {
        hint: 'take `protected` out of its rule first',
      });
    const id = fromMark(found?.blocks?.marks[MARK.image] ?? '') || image.ref;
    await unregister(id, place, markOf(sync, image), ctx);
    // The list last: without its disk it is a leftover, the disk without its list an image to go on with.
    if (found !== undefined) await this.#drop(found.disk.name, ctx);
    await this.#drop(`${name}.blocks`, ctx);
  }

  /** Removes a blob; none is no error. */
  async #drop(name: string, { signal }: SyncContext): Promise<void> {
    try {
      await asked(`removing ${printable(name)}`, signal, () =>
        requireContainer(this.#of.place)
          .getBlobClient(name)
          .delete({ abortSignal: signal, deleteSnapshots: 'include' }),
      );
    } catch (error) {
      if (statusOf(error) === 404) return;
      if (statusOf(error) !== 409 && !/^Lease/.test(codeOf(error))) throw error;
      throw new PortError('CLOUD_CONFLICT', `${printable(name)} is in use: ${(error as Error).message}`, {
        cause: error,
        hint: 'something holds a lease of it, such as a disk made of it; it is removed in a later night',
      });
    }
  }

  async sweep(images: readonly TargetImage[], ctx: SyncContext): Promise<number> {
    const { sync } = this.#of;
    const blobs = await this.#blobs(`${sync}/`, ctx);
    const known = new Set(images.filter((i) => i.state === 'complete').map((i) => blobName(sync, i)));
    const found = imagesAmong(blobs, sync);
    const disks = new Set(found.map(({ disk }) => disk.name.replace(/\.vhd$/, '')));
    const old: FoundBlob[] = [];
    for (const image of found) {
      const { state, aliveAt } = targetImage(image);
      const isKept = state === 'complete' || known.has(blobName(sync, image.identity));
      if (isKept || isProved(image) || isAlive(aliveAt, LEFTOVER_MS) || image.disk.isLeased) continue;
      old.push(image.disk, ...(image.blocks === undefined ? [] : [image.blocks]));
    }
    for (const blob of blobs)
      if (
        blob.name.endsWith('.blocks') &&
        identityOf(blob, sync) !== undefined &&
        !disks.has(blob.name.replace(/\.blocks$/, '')) &&
        !isAlive(blob.marks[MARK.alive] ?? '', ORPHAN_MS)
      )
        old.push(blob);
    let freed = 0;
    for (const blob of old) {
      await this.#drop(blob.name, ctx);
      freed += blob.bytes;
    }
    return freed;
  }
}

/** The same with waits shortened for tests. */
export async function openAzureTargetWith(
  name: string,
  config: TargetConfig,
  facts: { sync: string; stateDir: string },
  pollMs?: number,
): Promise<SyncTarget> {
  const options = checked(name, config);
  const calls = { sent: 0 };
  const place = await openPlace(options, pollMs, () => {
    calls.sent++;
  });
  return new AzureTarget(name, { sync: facts.sync, place, delta: config.delta === 'auto' }, calls);
}

/** A container and a resource group. Asks nothing yet. Throws CONFIG. */
export function openAzureTarget(
  name: string,
  config: TargetConfig,
  facts: { sync: string; stateDir: string },
): Promise<SyncTarget> {
  return openAzureTargetWith(name, config, facts);
}
