/** A Glance as a target, with the blocks of its images in the Swift beside it. */
import { asPortError, PortError } from '../../../core/errors.ts';
import type { TargetConfig } from '../../../core/sync/config.ts';
import { isoDate } from '../../../core/sync/dates.ts';
import type {
  CreatedImage,
  CreateInput,
  SyncContext,
  SyncTarget,
  TargetImage,
} from '../../../core/sync/types.ts';
import { printable } from '../../../core/text.ts';
import type { GlanceImage } from '../../../tools/openstack/glance-types.ts';
import { HttpError } from '../../../tools/openstack/http.ts';
import { targetOptionsOf } from '../../sync-options.ts';
import { GlanceRequest } from '../options.ts';
import { claim, whileAlive } from './claim.ts';
import { SyncCloud } from './client.ts';
import { sendImage } from './content.ts';
import { MARK, targetImage } from './marks.ts';
import { finalMarks, minDiskOf, operationsFor, setProperties, show } from './show.ts';
import { sweep } from './sweep.ts';

/** What every target is opened with. */
export interface TargetFacts {
  /** Name of the sync: only what carries it is touched. */
  sync: string;
  /** Folder of this machine for what a resumed run may use. */
  stateDir: string;
  /** `RUN@PLACE`; of one place only one run is alive. */
  owner: string;
  staleAfterMs: number;
  signal: AbortSignal;
}

/** Time for taking away what a failed run made, after its own signal has fired. */
const CLEAN_UP_MS = 8_000;

/** Opens it. Throws CONFIG, CLOUD_LOGIN, CLOUD. */
export async function openOpenstackTarget(
  name: string,
  config: TargetConfig,
  facts: TargetFacts,
): Promise<SyncTarget> {
  const request = targetOptionsOf(name, config, GlanceRequest);
  const cloud = await SyncCloud.open(request.cloud, facts.signal);
  return new OpenstackTarget(name, cloud, request, config.delta, facts);
}

class OpenstackTarget implements SyncTarget {
  readonly name: string;
  readonly platform = 'openstack';
  readonly place: string;
  readonly #cloud: SyncCloud;
  readonly #request: GlanceRequest;
  readonly #delta: 'auto' | 'off';
  readonly #facts: TargetFacts;

  constructor(
    name: string,
    cloud: SyncCloud,
    request: GlanceRequest,
    delta: 'auto' | 'off',
    facts: TargetFacts,
  ) {
    this.name = name;
    this.place = request.cloud;
    this.#cloud = cloud;
    this.#request = request;
    this.#delta = delta;
    this.#facts = facts;
  }

  calls(): number {
    return this.#cloud.calls;
  }

  now(): Date {
    return this.#cloud.now();
  }

  async list({ signal }: { signal: AbortSignal }): Promise<TargetImage[]> {
    const owner = this.#cloud.session.projectId;
    const { sync } = this.#facts;
    const images = await this.#cloud.images({ owner, [MARK.sync]: sync }, { hidden: true, signal });
    return images.flatMap((image) => {
      const known = image.owner === owner ? targetImage(image, sync) : undefined;
      return known === undefined ? [] : [known];
    });
  }

  async create(create: CreateInput): Promise<CreatedImage> {
    const { glance } = this.#cloud;
    const { sync } = this.#facts;
    const { projectId } = this.#cloud.session;
    const now = () => this.now();
    const claimInput = { sync, create, format: 'qcow2', minDiskGib: minDiskOf(create), projectId, now };
    const claimed = await claim(glance, claimInput);
    if (claimed.kind === 'there') {
      // Whoever made it was cut off, or is about to do the same.
      if (targetImage(claimed.image, sync)?.wanted === '')
        await show(glance, claimed.image, create.wanted, create.wantedDigest, create.signal);
      return adopted(claimed.image, create);
    }
    let current: GlanceImage = claimed.image;
    let isFirst = true;
    const reclaim = async (): Promise<GlanceImage> => {
      if (isFirst) {
        isFirst = false;
        return current;
      }
      const again = await claim(glance, claimInput);
      if (again.kind === 'there')
        throw new PortError('SYNC_BUSY', 'another run made it meanwhile', { temporary: true });
      current = again.image;
      return current;
    };
    try {
      return await whileAlive(
        glance,
        () => current.id,
        { ...create, now },
        async () => {
          const content = {
            cloud: this.#cloud,
            sync,
            create,
            request: this.#request,
            delta: this.#delta,
            reclaim,
          };
          const { image, ...arrived } = await sendImage(content, current).catch(async (error: unknown) => {
            // What an earlier attempt brought there may be the same disk in another order of blocks.
            const isOld = current.status === 'active' || current.status === 'importing';
            if (!isOld || asPortError(error).code !== 'CLOUD_MISMATCH') throw error;
            await glance.remove(current.id, { signal: create.signal });
            isFirst = false;
            return sendImage(content, await reclaim());
          });
          current = image;
          await create.prove?.();
          await this.#publish(image, create);
          return { ref: image.id, adopted: false, ...arrived };
        },
      );
    } catch (error) {
      throw await this.#cleanUp(current, create, error);
    }
  }

  /** Properties first, in their final form with the name, then visibility: nobody finds something half-made. */
  async #publish(image: GlanceImage, create: CreateInput): Promise<void> {
    const { glance } = this.#cloud;
    const { signal, wanted } = create;
    const properties = { ...wanted.properties, ...finalMarks(create, this.#facts.sync) };
    const attributes = { name: wanted.name, min_disk: minDiskOf(create), min_ram: create.image.minRamMib };
    await setProperties(glance, image.id, properties, attributes, signal);
    const now = await glance.show(image.id, { signal });
    if (now === undefined) throw new PortError('CLOUD', `image ${image.id} vanished`);
    await show(glance, now, wanted, create.wantedDigest, signal);
  }

  /**
   * What a failed attempt made is removed; after a signal or a cut it stays for the next run, which knows its own. Returns the error to
   * throw.
   */
  async #cleanUp(image: GlanceImage, create: CreateInput, error: unknown): Promise<unknown> {
    const known = asPortError(error);
    const signal = AbortSignal.timeout(CLEAN_UP_MS);
    try {
      if (create.signal.aborted || known.temporary) {
        // Nobody has to wait until it counts as dead.
        await this.#cloud.glance.patch(image.id, [{ op: 'add', path: `/${MARK.alive}`, value: '' }], {
          signal,
        });
        return known;
      }
      const now = await this.#cloud.glance.show(image.id, { signal });
      if (now !== undefined && targetImage(now, this.#facts.sync)?.state !== 'complete')
        await this.#cloud.glance.remove(image.id, { signal });
    } catch (second) {
      create.log.info('image left behind', { image: image.id, message: String(second) });
    }
    return known;
  }

  async update(
    image: TargetImage,
    wanted: CreateInput['wanted'],
    wantedDigest: string,
    { signal }: { signal: AbortSignal },
  ): Promise<void> {
    const { glance } = this.#cloud;
    const now = await glance.show(image.ref, { signal });
    if (now === undefined) throw new PortError('CLOUD', `image ${image.ref} is gone`);
    const marks = Object.entries(now).filter(
      (entry): entry is [string, string] =>
        entry[0].startsWith('port_image_') && entry[0] !== MARK.hiddenAt && typeof entry[1] === 'string',
    );
    const properties = { ...wanted.properties, ...Object.fromEntries(marks) };
    const operations = operationsFor(now, properties, { name: wanted.name, os_hidden: false });
    await show(glance, now, wanted, wantedDigest, signal, operations);
  }

  async hide(image: TargetImage, { signal }: { signal: AbortSignal }): Promise<void> {
    if (image.hidden && image.hiddenAt !== '') return;
    await this.#cloud.glance.patch(
      image.ref,
      [
        { op: 'replace', path: '/os_hidden', value: true },
        { op: 'add', path: `/${MARK.hiddenAt}`, value: isoDate(this.now()) },
      ],
      { signal },
    );
  }

  async remove(image: TargetImage, { signal }: { signal: AbortSignal }): Promise<void> {
    try {
      await this.#cloud.glance.remove(image.ref, { signal });
    } catch (error) {
      if (!(error instanceof HttpError) || (error.status !== 403 && error.status !== 409)) throw error;
      const why =
        error.status === 409 ? 'in use' : image.protected ? 'protected' : 'protected, or this login may not';
      throw new PortError('CLOUD_CONFLICT', `${printable(image.name)} (${image.ref}) stays: it is ${why}`, {
        hint: 'pin it in retention.pins, or free it: openstack image set --unprotect',
        cause: error,
      });
    }
  }

  async sweep(images: readonly TargetImage[], { signal, log }: SyncContext): Promise<number> {
    const { sync, owner, staleAfterMs } = this.#facts;
    return sweep({ cloud: this.#cloud, sync, images, owner, staleAfterMs, signal, log });
  }

  async close(): Promise<void> {
    await this.#cloud.close();
  }
}

function adopted(image: GlanceImage, create: CreateInput): CreatedImage {
  return {
    ref: image.id,
    method: 'none',
    adopted: true,
    sentBytes: 0,
    changedBytes: 0,
    dataBytes: create.disk.index.dataBytes,
    content: 'ok',
    proof: 'it is there by its identity',
  };
}
