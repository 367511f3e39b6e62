/** Google Cloud as a target of a sync: each version an image of Compute Engine, made of an archive that passes through a bucket. */
import { PortError } from '../../../core/errors.ts';
import type { TargetConfig } from '../../../core/sync/config.ts';
import { isoDate } from '../../../core/sync/dates.ts';
import { isAlive, LEFTOVER_MS } from '../../../core/sync/owner.ts';
import type {
  CreatedImage,
  CreateInput,
  SyncContext,
  SyncTarget,
  TargetImage,
  WantedImage,
} from '../../../core/sync/types.ts';
import { printable } from '../../../core/text.ts';
import { TIMING, type Timing } from '../../../tools/gcp/compute.ts';
import { disksOf, patchImage, setDeprecation } from '../../../tools/gcp/compute-changes.ts';
import { GcpError } from '../../../tools/gcp/errors.ts';
import { targetOptionsOf } from '../../sync-options.ts';
import { GcpOptions } from '../options.ts';
import { openServices } from '../place.ts';
import { type GcpPlaceOfSync, objectsByMark, removeArchive } from './archive.ts';
import { createImage } from './create.ts';
import { lockedImage } from './lock.ts';
import { descriptionOf, type FoundImage, imageName, markOf, targetImage } from './marks.ts';
import { imagesOf, ownImage, show } from './publish.ts';

/** Whoever shows an image removes its archive a moment later. */
const ORPHAN_MS = 3_600_000;
const NAMED_DISKS = 3;

/** Throws CONFIG for what an image of Compute Engine is not asked for. */
function requirePossible({ visibility, members }: WantedImage): void {
  if (visibility === 'private' && members.length === 0) return;
  throw new PortError('CONFIG', `an image in Google Cloud is not made ${visibility} by a sync`, {
    hint: 'take private in the rule for this target, and give others roles/compute.imageUser in the project',
  });
}

class GcpTarget implements SyncTarget {
  readonly name: string;
  readonly platform = 'gcp';
  readonly place: string;
  readonly #of: GcpPlaceOfSync;
  readonly #calls: { sent: number };

  constructor(name: string, of: GcpPlaceOfSync, calls: { sent: number }) {
    this.name = name;
    this.place = `${of.options.project}, gs://${of.options.bucket}`;
    this.#of = of;
    this.#calls = calls;
  }

  calls(): number {
    return this.#calls.sent;
  }

  async close(): Promise<void> {
    await this.#of.services.bucket.close();
  }

  async list({ signal }: SyncContext): Promise<TargetImage[]> {
    const [found, objects] = await Promise.all([imagesOf(this.#of, signal), objectsByMark(this.#of, signal)]);
    const images = found.map(targetImage);
    const made = new Set(images.map((image) => markOf(this.#of.sync, image)));
    const locks = [...objects].flatMap(([mark, held]) =>
      made.has(mark) ? [] : held.flatMap((object) => lockedImage(object, this.#of) ?? []),
    );
    return [...images, ...locks];
  }

  async create(input: CreateInput): Promise<CreatedImage> {
    requirePossible(input.wanted);
    return createImage(this.#of, input);
  }

  async update(
    image: TargetImage,
    wanted: WantedImage,
    wantedDigest: string,
    ctx: SyncContext,
  ): Promise<void> {
    requirePossible(wanted);
    await show(this.#of, await this.#required(image, ctx), wanted, wantedDigest, ctx);
  }

  async #required(image: TargetImage, { signal }: SyncContext): Promise<FoundImage> {
    const found = await ownImage(this.#of, imageName(this.#of.sync, image), signal);
    if (found !== undefined) return found;
    throw new PortError('CLOUD', `${printable(image.ref)} is gone`, { temporary: true });
  }

  async hide(image: TargetImage, ctx: SyncContext): Promise<void> {
    if (image.hidden) return;
    const { compute } = this.#of.services;
    const { marks } = await this.#required(image, ctx);
    // Since when first: nobody knows when to remove one that is hidden without it.
    const description = descriptionOf({ ...marks, hidden: isoDate(new Date()) });
    await patchImage(compute, image.ref, { description }, ctx.signal);
    await setDeprecation(compute, image.ref, { state: 'DEPRECATED' }, ctx.signal);
  }

  async remove(image: TargetImage, { signal }: SyncContext): Promise<void> {
    const { compute } = this.#of.services;
    const found = await ownImage(this.#of, imageName(this.#of.sync, image), signal);
    if (found === undefined) return;
    const { name } = found.image;
    if (image.protected || found.marks.protected)
      throw new PortError('CLOUD_CONFLICT', `${name} is marked as protected`, {
        hint: 'take `protected` out of its rule first',
      });
    const disks = await disksOf(compute, found.image, signal);
    if (disks.length > 0) {
      const named = disks.slice(0, NAMED_DISKS).map(printable).join(', ');
      const more = disks.length > NAMED_DISKS ? ` and ${disks.length - NAMED_DISKS} more` : '';
      throw inUse(`${name} is in use: disks ${named}${more} were made of it`);
    }
    await this.#drop(name, signal);
  }

  async #drop(name: string, signal: AbortSignal): Promise<void> {
    try {
      await this.#of.services.compute.remove(name, signal);
    } catch (error) {
      if (!(error instanceof GcpError) || !/in_?use/i.test(error.reason)) throw error;
      throw inUse(`Compute Engine does not remove ${name}: ${error.message}`, error);
    }
  }

  async sweep(images: readonly TargetImage[], { signal, log }: SyncContext): Promise<number> {
    const { sync, services } = this.#of;
    const objects = await objectsByMark(this.#of, signal);
    const known = new Map(images.map((image) => [markOf(sync, image), image]));
    let freed = 0;
    for (const [mark, held] of objects) {
      const lock = held.flatMap((object) => lockedImage(object, this.#of) ?? [])[0];
      const newest = Math.max(...held.map(({ modifiedMs }) => modifiedMs));
      const aliveAt = lock?.aliveAt ?? new Date(newest).toISOString();
      const isDone = known.get(mark)?.state === 'complete';
      if (isAlive(aliveAt, isDone ? ORPHAN_MS : LEFTOVER_MS)) continue;
      freed += await removeArchive(services.bucket, held, signal);
    }
    for (const image of images) {
      const isLeft = image.state === 'in-progress' && !image.ref.includes('/');
      const held = objects.get(markOf(sync, image)) ?? [];
      const lock = held.flatMap((object) => lockedImage(object, this.#of) ?? [])[0];
      if (!isLeft || isAlive(image.aliveAt, LEFTOVER_MS) || isAlive(lock?.aliveAt ?? '', LEFTOVER_MS))
        continue;
      const now = await ownImage(this.#of, image.ref, signal);
      if (now === undefined || targetImage(now).state === 'complete') continue;
      log.info('removing an image that was never finished', { image: image.ref });
      await this.#drop(image.ref, signal);
      freed += image.bytes;
    }
    return freed;
  }
}

function inUse(message: string, cause?: unknown): PortError {
  return new PortError('CLOUD_CONFLICT', message, {
    hint: 'it is removed in a later night, when nothing uses it',
    ...(cause === undefined ? {} : { cause }),
  });
}

/** The same with waits shortened for tests. */
export async function openGcpTargetWith(
  name: string,
  config: TargetConfig,
  facts: { sync: string },
  timing: Timing,
): Promise<SyncTarget> {
  const options = targetOptionsOf(name, config, GcpOptions);
  const calls = { sent: 0 };
  const services = await openServices(options, timing, () => {
    calls.sent++;
  });
  return new GcpTarget(name, { sync: facts.sync, options, services }, calls);
}

/** A project and a bucket. Asks nothing yet. Throws CONFIG. */
export function openGcpTarget(
  name: string,
  config: TargetConfig,
  facts: { sync: string },
): Promise<SyncTarget> {
  return openGcpTargetWith(name, config, facts, TIMING);
}
