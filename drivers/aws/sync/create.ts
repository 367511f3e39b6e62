/**
 * One image in EC2: its content as a private snapshot, proved, registered, shared. Every step looks first what is there, so a
 * killed run is gone on with by the next, and two at once make one image:
 *
 *     tags of images and snapshots ─▶ adopt, take over, or SYNC_BUSY
 *     StartSnapshot, client token of the identity (lock) ─▶ blocks ─▶ complete ─▶ prove ─▶ RegisterImage, name of the identity (lock)
 */
import type { Image, Snapshot } from '@aws-sdk/client-ec2';
import { asPortError, PortError } from '../../../core/errors.ts';
import { isoDate } from '../../../core/sync/dates.ts';
import { busy, isBusy } from '../../../core/sync/owner.ts';
import type { CreatedImage, CreateInput, TargetImage } from '../../../core/sync/types.ts';
import { printable } from '../../../core/text.ts';
import type { SnapshotRecord } from '../../../tools/aws/block-journal.ts';
import { ebsClient } from '../../../tools/aws/clients.ts';
import type { Ec2 } from '../../../tools/aws/ec2.ts';
import { protect, setAudience, snapshotsWith } from '../../../tools/aws/ec2-published.ts';
import { EBS_LANES } from '../../../tools/aws/put-snapshot.ts';
import { tagOf } from '../marks.ts';
import type { AwsOptions } from '../options.ts';
import { putContent, recordFromDisk, requireIdentity } from './content.ts';
import { withHeartbeat } from './heartbeat.ts';
import {
  ALIVE_TAG,
  amiName,
  HIDDEN_TAG,
  ID_TAG,
  identityTags,
  imageOf,
  KEY_TAG,
  markOf,
  OWNER_TAG,
  STATE_TAG,
  SYNC_TAG,
  snapshotOf,
  unfinishedOf,
  WANTED_TAG,
} from './marks.ts';
import type { Records } from './records.ts';
import { audienceOf, mappingOf, registration, wantedTags } from './wanted.ts';

/** What a target is made of. */
export interface AwsPlaceOfSync {
  sync: string;
  options: AwsOptions;
  records: Records;
  /** Whole images when false. */
  delta: boolean;
  onRequest: () => void;
}

const PROOF = 'EBS compared the SHA-256 of every block that was sent, and that of all their digests in order';
/** Within it two runs of a lock that was used up ask for the same new one. */
const LOCK_MS = 10 * 60_000;

/** Bytes of one `create`. */
interface Sent {
  sentBytes: number;
  changedBytes: number;
}
const NOTHING: Sent = { sentBytes: 0, changedBytes: 0 };

/** One call of `create`. */
export class Creation {
  readonly #ec2: Ec2;
  readonly #place: AwsPlaceOfSync;
  readonly #input: CreateInput;
  readonly #mark: string;
  /** What shows signs of life. */
  readonly #ids = new Set<string>();

  constructor(ec2: Ec2, place: AwsPlaceOfSync, input: CreateInput) {
    this.#ec2 = ec2;
    this.#place = place;
    this.#input = input;
    this.#mark = markOf(place.sync, input.identity);
  }

  /** Throws as SyncTarget.create does. */
  async run(): Promise<CreatedImage> {
    const { sync, options } = this.#place;
    const { image, identity, wanted } = this.#input;
    requireIdentity(this.#input);
    audienceOf(wanted, options);
    registration(sync, image, identity, options);
    const images = await this.#ec2.images(SYNC_TAG, sync);
    const there = images.find((i) => tagOf(i, ID_TAG) === this.#mark && imageOf(i, sync) !== undefined);
    const known = there === undefined ? undefined : imageOf(there, sync);
    if (known?.state === 'complete') return this.#created(known.ref, true, NOTHING);
    if (known !== undefined) this.#requireDead(known);
    const work = async (signal: AbortSignal): Promise<CreatedImage> => {
      if (there !== undefined) {
        await this.#claim([there.ImageId ?? '', snapshotOf(there) ?? '']);
        return this.#finish(there.ImageId ?? '', snapshotOf(there), NOTHING);
      }
      const { snapshot, sent } = await this.#content(images, signal);
      await this.#ec2.snapshotReady(snapshot, (text) => this.#input.progress({ text }));
      await this.#input.prove?.();
      signal.throwIfAborted();
      return this.#register(snapshot, sent);
    };
    const onSign = () => this.#place.records.share(this.#mark, this.#input);
    return withHeartbeat(this.#ec2, this.#input, this.#mark, this.#ids, onSign, work);
  }

  #created(ref: string, adopted: boolean, sent: Sent): CreatedImage {
    const { dataBytes } = this.#input.disk.index;
    return { ref, method: 'ebs-direct', adopted, ...sent, dataBytes, content: 'ok', proof: PROOF };
  }

  /** Throws SYNC_BUSY for what another run, alive, is at. */
  #requireDead(found: TargetImage): void {
    if (isBusy(found, this.#input.owner, this.#input.staleAfterMs)) throw busy(found.series, found.owner);
  }

  /** From now on ours. */
  async #claim(ids: readonly string[]): Promise<void> {
    for (const id of ids) if (id !== '') this.#ids.add(id);
    await this.#ec2.tag([...this.#ids], {
      [OWNER_TAG]: this.#input.owner,
      [ALIVE_TAG]: isoDate(new Date()),
      [STATE_TAG]: 'in-progress',
    });
  }

  /** Snapshots of this very image, whatever their state. */
  async #snapshots(): Promise<Snapshot[]> {
    const all = await snapshotsWith(this.#ec2, { [ID_TAG]: this.#mark });
    return all.filter((snapshot) => unfinishedOf(snapshot, this.#place.sync) !== undefined);
  }

  /** A complete snapshot of the disk. */
  async #content(images: readonly Image[], signal: AbortSignal): Promise<{ snapshot: string; sent: Sent }> {
    const { records, sync } = this.#place;
    const dead: string[] = [];
    for (const snapshot of await this.#snapshots()) {
      const id = snapshot.SnapshotId ?? '';
      const found = unfinishedOf(snapshot, sync);
      if (found !== undefined && tagOf(snapshot, STATE_TAG) === 'in-progress') this.#requireDead(found);
      if (snapshot.State === 'completed') {
        await this.#claim([id]);
        if ((await records.of(this.#mark, id, this.#input))?.completed !== true)
          await records.write(this.#mark, await recordFromDisk(this.#input, snapshot));
        return { snapshot: id, sent: NOTHING };
      }
      const record = snapshot.State === 'pending' ? await records.of(this.#mark, id, this.#input) : undefined;
      if (record !== undefined) {
        await this.#claim([id]);
        return this.#send(images, record, [], signal);
      }
      // Nobody knows which blocks it has.
      this.#input.log.info('an unfinished snapshot is given up', { snapshot: id });
      await this.#ec2.removeSnapshot(id);
      dead.push(id);
    }
    return this.#send(images, undefined, dead, signal);
  }

  async #send(
    images: readonly Image[],
    known: SnapshotRecord | undefined,
    dead: readonly string[],
    signal: AbortSignal,
  ): Promise<{ snapshot: string; sent: Sent }> {
    const { sync, options, records, onRequest } = this.#place;
    const begun = async (snapshot: string) => {
      this.#ids.add(snapshot);
    };
    // A journal without its snapshot would be gone on with.
    if (known === undefined) await records.drop(this.#mark);
    const parents = this.#parents(images);
    const ebs = await ebsClient({ ...options, onRequest }, EBS_LANES);
    const put = (given: readonly string[]) =>
      putContent(
        this.#input,
        { sync, ebs, records, kmsKeyArn: options.kmsKeyArn, parents, begun, signal },
        known,
        given,
      );
    try {
      const { snapshot, sentBytes, bytes } = await put(dead).catch(async (error: unknown) => {
        if (!(error instanceof PortError) || error.code !== 'CLOUD_CONFLICT') throw error;
        const [other] = await this.#snapshots();
        if (other !== undefined)
          throw busy(this.#input.identity.series, tagOf(other, OWNER_TAG) ?? '', error);
        // The lock is of a snapshot that is gone; everybody who sees that now asks for the same new one.
        return put([...dead, String(Math.floor(Date.now() / LOCK_MS))]).catch((again: unknown) => {
          if (again instanceof PortError && again.code === 'CLOUD_CONFLICT')
            throw busy(this.#input.identity.series, '', again);
          throw again;
        });
      });
      await records.share(this.#mark, this.#input);
      return { snapshot, sent: { sentBytes, changedBytes: bytes } };
    } finally {
      ebs.destroy();
    }
  }

  /** Complete versions of the series, newest first, under the same key. */
  #parents(images: readonly Image[]): { image: TargetImage; snapshot: string }[] {
    const { sync, options, delta } = this.#place;
    if (!delta) return [];
    const found = images.flatMap((image) => {
      const seen = imageOf(image, sync);
      const snapshot = snapshotOf(image);
      const isParent =
        seen?.state === 'complete' &&
        seen.series === this.#input.identity.series &&
        tagOf(image, KEY_TAG) === options.kmsKeyArn;
      return isParent && snapshot !== undefined ? [{ image: seen, snapshot }] : [];
    });
    return found.sort((a, b) => (a.image.createdAt < b.image.createdAt ? 1 : -1));
  }

  /** Registers, or finds what another run has registered meanwhile. */
  async #register(snapshot: string, sent: Sent): Promise<CreatedImage> {
    const { sync, options } = this.#place;
    const { image, identity } = this.#input;
    const name = amiName(sync, identity);
    for (let tried = 1; ; tried++) {
      const there = await this.#ec2.imageNamed(name);
      if (there !== undefined) return this.#adopt(there, snapshot, sent);
      this.#input.progress({ text: `EC2 registers ${name}` });
      const tags = this.#tags('in-progress');
      try {
        const id = await this.#ec2.register({
          ...registration(sync, image, identity, options),
          BlockDeviceMappings: mappingOf(snapshot),
          TagSpecifications: [
            { ResourceType: 'image', Tags: Object.entries(tags).map(([Key, Value]) => ({ Key, Value })) },
          ],
        });
        return await this.#finish(id, snapshot, sent);
      } catch (error) {
        if (!(error instanceof PortError) || error.code !== 'CLOUD_CONFLICT' || tried > 2) throw error;
      }
    }
  }

  async #adopt(there: Image, snapshot: string, sent: Sent): Promise<CreatedImage> {
    const known = imageOf(there, this.#place.sync);
    if (known === undefined)
      throw new PortError(
        'CLOUD_CONFLICT',
        `the account has an image ${printable(there.Name ?? '')} already`,
        {
          hint: `${there.ImageId} is not of this sync: rename or remove it`,
        },
      );
    const used = snapshotOf(there);
    if (known.state !== 'complete') {
      this.#requireDead(known);
      await this.#claim([known.ref]);
      return this.#finish(known.ref, used, sent);
    }
    if (used !== undefined && used !== snapshot) {
      await this.#ec2.removeSnapshot(snapshot);
      await this.#place.records.drop(this.#mark);
    }
    return this.#created(known.ref, true, { ...sent, changedBytes: 0 });
  }

  #tags(state: 'in-progress' | 'complete'): Record<string, string> {
    const { sync, options } = this.#place;
    const { image, identity, wanted, wantedDigest, owner, warn } = this.#input;
    return {
      // told once
      ...wantedTags(wanted, options, state === 'complete' ? warn : () => {}),
      ...identityTags(sync, identity, image.fileDigest ?? ''),
      [STATE_TAG]: state,
      [OWNER_TAG]: owner,
      [ALIVE_TAG]: isoDate(new Date()),
      [WANTED_TAG]: wantedDigest,
      [HIDDEN_TAG]: '',
      ...(options.kmsKeyArn === undefined ? {} : { [KEY_TAG]: options.kmsKeyArn }),
    };
  }

  /** Ready, shared, and last of all called complete. */
  async #finish(id: string, snapshot: string | undefined, sent: Sent): Promise<CreatedImage> {
    const { options } = this.#place;
    const { wanted, progress } = this.#input;
    this.#ids.add(id);
    await this.#ec2.imageReady(id, (text) => progress({ text }));
    await setAudience(this.#ec2, id, audienceOf(wanted, options), false);
    if (wanted.protected) await protect(this.#ec2, id, true);
    await this.#ec2.tag([id, ...(snapshot === undefined ? [] : [snapshot])], this.#tags('complete'));
    return this.#created(id, false, sent);
  }
}

/** One image. Throws as SyncTarget.create does. */
export async function createImage(
  ec2: Ec2,
  place: AwsPlaceOfSync,
  input: CreateInput,
): Promise<CreatedImage> {
  try {
    return await new Creation(ec2, place, input).run();
  } catch (error) {
    throw asPortError(error);
  }
}
