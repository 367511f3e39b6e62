/**
 * Who makes an image: whoever creates it in Glance, whose ids are unique. The id follows from the content, so two runs at once ask for the
 * same one, and one of them is told that it is there.
 */
import { randomBytes } from 'node:crypto';
import { PortError } from '../../../core/errors.ts';
import { isoDate } from '../../../core/sync/dates.ts';
import { isAlive, isSamePlace } from '../../../core/sync/owner.ts';
import type { CreateInput } from '../../../core/sync/types.ts';
import { printable } from '../../../core/text.ts';
import type { GlanceApi } from '../../../tools/openstack/glance.ts';
import type { GlanceImage } from '../../../tools/openstack/glance-types.ts';
import { HttpError } from '../../../tools/openstack/http.ts';
import { STATE } from '../properties.ts';
import { explained } from '../upload/bytes.ts';
import { imageUuid, MARK, targetImage } from './marks.ts';

/** Ids that may be used up by images of this content that were removed. */
const MOST_ATTEMPTS = 200;
/** A sign of life is given this often; runs are taken for dead after a quarter of an hour at the soonest by default. */
const HEARTBEAT_MS = 60_000;

/** What became of the attempt to be the one. */
export type Claimed =
  /** Ours to fill; it may hold content of an earlier attempt already. */
  | { kind: 'ours'; image: GlanceImage }
  /** Complete already. */
  | { kind: 'there'; image: GlanceImage };

/** What an image of a sync is begun with. */
export interface ClaimInput {
  sync: string;
  create: CreateInput;
  format: string;
  minDiskGib: number;
  /** What is of another project is not ours, whatever marks it has: everybody may know our ids and share an image with all. */
  projectId: string;
  /** The cloud's clock. */
  now: () => Date;
}

/** Claims the image. Throws SYNC_BUSY when another run is at it, CLOUD_REFUSED (quota, role), CLOUD. */
export async function claim(glance: GlanceApi, input: ClaimInput): Promise<Claimed> {
  const { create, sync } = input;
  const { signal, owner } = create;
  for (let attempt = 0; attempt < MOST_ATTEMPTS; attempt++) {
    const id = imageUuid(sync, create.identity, attempt);
    const token = randomBytes(8).toString('hex');
    const image = await begin(glance, id, token, input);
    // An id of an image that was removed is never given again.
    if (image === undefined) continue;
    if (image[MARK.claim] === token) return { kind: 'ours', image };
    const there = image.owner === input.projectId ? targetImage(image, sync) : undefined;
    if (there === undefined) continue;
    if (there.state === 'complete') return { kind: 'there', image };
    if (isSamePlace(there.owner, owner)) {
      // Only one run works in a place, and that is this one: what an earlier one left is gone on with.
      if (!mayGoOn(image)) {
        await glance.remove(id, { signal });
        continue;
      }
      const taken = await glance.patch(id, marksOf(owner, token, input.now()), { signal });
      return { kind: 'ours', image: taken };
    }
    if (isAlive(there.aliveAt, create.staleAfterMs, input.now().getTime())) {
      throw new PortError('SYNC_BUSY', `${printable(there.owner)} makes this image there right now`, {
        temporary: true,
        hint: 'the next run finds it finished, or takes it over',
      });
    }
    create.log.info('a dead run left an image', { image: id, owner: there.owner });
    // Removed, not taken over: of two who find it dead, one creates the next id.
    await glance.remove(id, { signal });
  }
  throw new PortError('CLOUD', `no free id for ${printable(create.identity.series)} in the cloud`);
}

/** States from which content can be sent, or is there. */
function mayGoOn(image: GlanceImage): boolean {
  return ['queued', 'active', 'importing'].includes(image.status);
}

function marksOf(owner: string, token: string, now: Date) {
  const values = { [MARK.owner]: owner, [MARK.claim]: token, [MARK.alive]: isoDate(now) };
  return Object.entries(values).map(([key, value]) => ({ op: 'add' as const, path: `/${key}`, value }));
}

/** Creates the image, or finds the one of this id; undefined when the id is used up. */
async function begin(
  glance: GlanceApi,
  id: string,
  token: string,
  { sync, create, format, minDiskGib, now }: ClaimInput,
): Promise<GlanceImage | undefined> {
  const { identity, image, signal, owner } = create;
  try {
    return await glance.create(
      {
        id,
        // Nobody who looks for the final name shall find it before it is whole.
        name: `port-image-sync ${identity.series} ${identity.version}`,
        disk_format: format,
        container_format: 'bare',
        visibility: 'private',
        min_disk: minDiskGib,
        min_ram: image.minRamMib,
        [MARK.sync]: sync,
        [MARK.series]: identity.series,
        [MARK.version]: identity.version,
        [MARK.raw]: identity.rawSha256,
        [MARK.state]: STATE.inProgress,
        [MARK.owner]: owner,
        [MARK.claim]: token,
        [MARK.alive]: isoDate(now()),
      },
      { signal },
    );
  } catch (error) {
    if (error instanceof HttpError && error.status === 409) return undefined;
    throw await explained(glance, error, signal);
  }
}

/** Gives signs of life while `work` runs, of the image `current` names then. One that fails is no matter: the next follows. */
export async function whileAlive<T>(
  glance: GlanceApi,
  current: () => string,
  create: Pick<CreateInput, 'staleAfterMs' | 'signal' | 'log'> & Pick<ClaimInput, 'now'>,
  work: () => Promise<T>,
): Promise<T> {
  const beat = () => {
    const value = isoDate(create.now());
    const id = current();
    glance
      .patch(id, [{ op: 'add', path: `/${MARK.alive}`, value }], { signal: create.signal })
      .catch((error: unknown) => create.log.info('no sign of life', { image: id, message: String(error) }));
  };
  const timer = setInterval(beat, Math.min(HEARTBEAT_MS, create.staleAfterMs / 3));
  try {
    return await work();
  } finally {
    clearInterval(timer);
  }
}
