/** EC2 as a target of a sync: each version an AMI over one EBS snapshot, a change of that of the version before. */
import type { Image } from '@aws-sdk/client-ec2';
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
import { AWS_TIMING, type AwsTiming, Ec2 } from '../../../tools/aws/ec2.ts';
import {
  deprecate,
  imageById,
  instancesOf,
  protect,
  setAudience,
  snapshotsWith,
  undeprecate,
  untag,
} from '../../../tools/aws/ec2-published.ts';
import { awsErrorName } from '../../../tools/aws/errors.ts';
import { openStore } from '../../stores/index.ts';
import { targetOptionsOf } from '../../sync-options.ts';
import { tagOf } from '../marks.ts';
import { AwsOptions } from '../options.ts';
import { type AwsPlaceOfSync, createImage } from './create.ts';
import {
  HIDDEN_TAG,
  ID_TAG,
  identityOf,
  imageOf,
  markOf,
  PROPERTY_TAG,
  STATE_TAG,
  SYNC_TAG,
  snapshotOf,
  unfinishedOf,
  WANTED_TAG,
} from './marks.ts';
import { Records } from './records.ts';
import { audienceOf, wantedTags } from './wanted.ts';

const NAMED_INSTANCES = 3;

class AwsTarget implements SyncTarget {
  readonly name: string;
  readonly platform = 'aws';
  readonly place: string;
  readonly #of: AwsPlaceOfSync;
  readonly #timing: AwsTiming;
  #calls = 0;

  constructor(
    name: string,
    config: TargetConfig,
    facts: { sync: string; stateDir: string },
    timing: AwsTiming,
  ) {
    const options = targetOptionsOf(name, config, AwsOptions);
    const delta = config.delta === 'auto';
    const store = delta && config.store !== undefined ? openStore(config.store) : undefined;
    this.name = name;
    this.place = options.region;
    this.#timing = timing;
    this.#of = {
      sync: facts.sync,
      options,
      delta,
      records: new Records(facts.stateDir, options.region, store),
      onRequest: () => {
        this.#calls++;
      },
    };
  }

  calls(): number {
    return this.#calls;
  }

  close(): Promise<void> {
    return this.#of.records.close();
  }

  async #with<T>({ signal }: SyncContext, use: (ec2: Ec2) => Promise<T>): Promise<T> {
    const { options, onRequest } = this.#of;
    const ec2 = await Ec2.open({ ...options, onRequest }, signal, this.#timing);
    try {
      return await use(ec2);
    } finally {
      ec2.close();
    }
  }

  list(ctx: SyncContext): Promise<TargetImage[]> {
    const { sync } = this.#of;
    return this.#with(ctx, async (ec2) => {
      const [images, snapshots] = await Promise.all([
        ec2.images(SYNC_TAG, sync),
        snapshotsWith(ec2, { [SYNC_TAG]: sync, [STATE_TAG]: 'in-progress' }),
      ]);
      const used = new Set(images.map(snapshotOf));
      const unfinished = snapshots.filter(({ SnapshotId }) => !used.has(SnapshotId));
      const all = [
        ...images.map((image) => imageOf(image, sync)),
        ...unfinished.map((snapshot) => unfinishedOf(snapshot, sync)),
      ];
      return all.filter((image) => image !== undefined);
    });
  }

  create(input: CreateInput): Promise<CreatedImage> {
    return this.#with(input, (ec2) => createImage(ec2, this.#of, input));
  }

  update(image: TargetImage, wanted: WantedImage, wantedDigest: string, ctx: SyncContext): Promise<void> {
    const { options } = this.#of;
    const audience = audienceOf(wanted, options);
    const { ref } = image;
    return this.#with(ctx, async (ec2) => {
      const now = await this.#ours(ec2, ref);
      if (now === undefined) throw new PortError('CLOUD', `${ref} is gone`, { temporary: true });
      await setAudience(ec2, ref, audience, false);
      if (wanted.protected !== image.protected) await protect(ec2, ref, wanted.protected);
      if (image.hidden) await undeprecate(ec2, ref);
      const tags = wantedTags(wanted, options, ctx.warn);
      const stale = (now.Tags ?? []).flatMap(({ Key = '' }) =>
        Key.startsWith(PROPERTY_TAG) && !Object.hasOwn(tags, Key) ? [Key] : [],
      );
      await untag(ec2, [ref], stale);
      // Last: with its digest nothing is to be done any more.
      await ec2.tag([ref], { ...tags, [HIDDEN_TAG]: '', [WANTED_TAG]: wantedDigest });
    });
  }

  hide(image: TargetImage, ctx: SyncContext): Promise<void> {
    return this.#with(ctx, async (ec2) => {
      if (image.hidden) return;
      await deprecate(ec2, image.ref);
      await ec2.tag([image.ref], { [HIDDEN_TAG]: isoDate(new Date()) });
    });
  }

  /** The image when it is there and of this sync. Throws CLOUD_CONFLICT for one of somebody else. */
  async #ours(ec2: Ec2, id: string): Promise<Image | undefined> {
    const found = await imageById(ec2, id);
    if (found !== undefined && imageOf(found, this.#of.sync) === undefined)
      throw new PortError('CLOUD_CONFLICT', `${id} is not of this sync and is left alone`);
    return found;
  }

  remove(image: TargetImage, ctx: SyncContext): Promise<void> {
    const { sync, records } = this.#of;
    const mark = markOf(sync, image);
    return this.#with(ctx, async (ec2) => {
      if (image.ref.startsWith('ami-')) {
        const found = await this.#ours(ec2, image.ref);
        const instances = found === undefined ? [] : await instancesOf(ec2, image.ref);
        if (instances.length > 0)
          throw new PortError(
            'CLOUD_CONFLICT',
            `${image.ref} is in use by ${instances.slice(0, NAMED_INSTANCES).map(printable).join(', ')}${instances.length > NAMED_INSTANCES ? ` and ${instances.length - NAMED_INSTANCES} more` : ''}`,
            { hint: 'it is removed in a later night, when they are terminated' },
          );
        if (found !== undefined) await deregister(ec2, image.ref);
      }
      await this.#dropSnapshots(ec2, mark, ctx);
      await records.drop(mark);
    });
  }

  /** Snapshots of an image that is gone. One that somebody else's image is made of stays. */
  async #dropSnapshots(ec2: Ec2, mark: string, ctx: SyncContext): Promise<void> {
    for (const snapshot of await snapshotsWith(ec2, { [ID_TAG]: mark })) {
      const id = snapshot.SnapshotId;
      if (id === undefined || unfinishedOf(snapshot, this.#of.sync) === undefined) continue;
      await this.#dropSnapshot(ec2, id, ctx);
    }
  }

  async #dropSnapshot(ec2: Ec2, id: string, ctx: SyncContext): Promise<boolean> {
    try {
      await ec2.removeSnapshot(id);
      return true;
    } catch (error) {
      if (!/InUse/.test(awsErrorName(error))) throw error;
      ctx.warn(`${id} stays: another image is made of it`);
      return false;
    }
  }

  /** Images a run was killed at behind their registration, when none went on with them. Returns their bytes. */
  async #dropUnfinished(ec2: Ec2, ctx: SyncContext): Promise<number> {
    const { sync } = this.#of;
    let freed = 0;
    for (const image of await ec2.images(SYNC_TAG, sync)) {
      const seen = imageOf(image, sync);
      // Only what says so itself: a complete one that EC2 does not have ready looks unfinished too.
      if (seen === undefined || tagOf(image, STATE_TAG) !== 'in-progress') continue;
      if (isAlive(seen.aliveAt, LEFTOVER_MS)) continue;
      try {
        await this.remove(seen, ctx);
        freed += seen.bytes;
      } catch (error) {
        ctx.signal.throwIfAborted();
        ctx.warn(`${seen.ref} stays: ${(error as Error).message}`);
      }
    }
    return freed;
  }

  sweep(images: readonly TargetImage[], ctx: SyncContext): Promise<number> {
    const { sync } = this.#of;
    return this.#with(ctx, async (ec2) => {
      let freed = await this.#dropUnfinished(ec2, ctx);
      const snapshots = await snapshotsWith(ec2, { [SYNC_TAG]: sync });
      // Asked after the snapshots: an image that was made meanwhile is in it.
      const used = new Set((await ec2.images(SYNC_TAG, sync)).map(snapshotOf));
      const complete = new Set(images.filter((i) => i.state === 'complete').map((i) => markOf(sync, i)));
      for (const snapshot of snapshots) {
        const id = snapshot.SnapshotId;
        const found = unfinishedOf(snapshot, sync);
        const identity = identityOf(snapshot, sync);
        if (id === undefined || found === undefined || identity === undefined || used.has(id)) continue;
        const isUnfinished = tagOf(snapshot, STATE_TAG) === 'in-progress';
        const isAwaited = isUnfinished && !complete.has(markOf(sync, identity)) && snapshot.State !== 'error';
        if (isAwaited && isAlive(found.aliveAt, LEFTOVER_MS)) continue;
        // Somebody may be about to find that it came second.
        if (isUnfinished && isAlive(found.aliveAt, LEFTOVER_MS / 48)) continue;
        if (await this.#dropSnapshot(ec2, id, ctx)) freed += found.bytes;
      }
      return freed;
    });
  }
}

async function deregister(ec2: Ec2, id: string): Promise<void> {
  try {
    await ec2.request(`EC2 removes ${id}`, (sdk, client, options) =>
      client.send(new sdk.DeregisterImageCommand({ ImageId: id }), options),
    );
  } catch (error) {
    if (/NotFound|Unavailable/.test(awsErrorName(error))) return;
    if (/OperationNotPermitted|InvalidRequest/.test(awsErrorName(error)))
      throw new PortError('CLOUD_CONFLICT', `EC2 does not remove ${id}: ${(error as Error).message}`, {
        cause: error,
        hint: 'it may be protected against deregistration',
      });
    throw error;
  }
}

/** Waits shortened for tests. */
export async function openAwsTargetWith(
  name: string,
  config: TargetConfig,
  facts: { sync: string; stateDir: string },
  timing: AwsTiming,
): Promise<SyncTarget> {
  return new AwsTarget(name, config, facts, timing);
}

/** A region of an AWS account. Asks nothing yet. Throws CONFIG. */
export function openAwsTarget(
  name: string,
  config: TargetConfig,
  facts: { sync: string; stateDir: string },
): Promise<SyncTarget> {
  return openAwsTargetWith(name, config, facts, AWS_TIMING);
}
