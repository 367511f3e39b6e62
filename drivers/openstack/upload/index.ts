/**
 * Upload of one image to Glance in two phases: private and marked as in progress while its bytes travel and are
 * compared; then properties, and only then visibility, protection and sharing. A killed run leaves nothing public, and
 * the next run of the same job adopts or removes what it left.
 */
import { randomUUID } from 'node:crypto';
import { asPortError, PortError } from '../../../core/errors.ts';
import { printable } from '../../../core/text.ts';
import { GlanceApi } from '../../../tools/openstack/glance.ts';
import { waitForImport } from '../../../tools/openstack/glance-import.ts';
import type { GlanceImage } from '../../../tools/openstack/glance-types.ts';
import type { CloudSession } from '../../../tools/openstack/session.ts';
import { SwiftApi } from '../../../tools/openstack/swift.ts';
import { STATE } from '../properties.ts';
import { sendContent } from './bytes.ts';
import { type Comparison, compareRemote, isSameFile } from './compare.ts';
import type { SentFile } from './content.ts';
import { importStaged, wantedStores } from './import.ts';
import { chooseMethod, type Offer, readOffer } from './method.ts';
import { readNeighbours } from './own-images.ts';
import { publish, retire, storesOf } from './publish.ts';
import type { ChosenMethod, GlanceResult, UploadInput } from './types.ts';
import { clearStaging, hasStaging, pullFromSwift, putIntoSwift } from './web-download.ts';

export type { GlanceResult, UploadInput } from './types.ts';

/** Time for taking away what a failed run made, after its own signal has fired. */
const CLEAN_UP_MS = 20_000;

/**
 * Uploads, verifies and publishes. Throws CLOUD_REFUSED, CLOUD_CONFLICT, CLOUD_MISMATCH, CLOUD_LOGIN, CLOUD,
 * INTERRUPTED; then nothing of it is visible to others.
 */
export async function uploadImage(session: CloudSession, input: UploadInput): Promise<GlanceResult> {
  const glance = await GlanceApi.open(session, { signal: input.signal });
  const offer = await readOffer(glance, input.signal);
  const { method, why } = chooseMethod(input.request, offer, input.bytes);
  input.log.info('upload method', { method, why });
  return new Upload(glance, offer, input).run(method);
}

/** An image whose bytes are there and right. */
interface Arrived {
  image: GlanceImage;
  method: ChosenMethod;
  comparison: Comparison;
}

class Upload {
  readonly #glance: GlanceApi;
  readonly #offer: Offer;
  readonly #input: UploadInput;
  /** Images this run made and that are not whole: removed when it fails. */
  readonly #unfinished = new Set<string>();

  constructor(glance: GlanceApi, offer: Offer, input: UploadInput) {
    this.#glance = glance;
    this.#offer = offer;
    this.#input = input;
  }

  async run(method: ChosenMethod): Promise<GlanceResult> {
    const input = this.#input;
    // Reads the disk while the file travels; a failure shows when it is needed.
    const raw = input.rawSha256();
    raw.catch(() => {});
    const neighbours = await readNeighbours(this.#glance, input.name, input.jobId, input.signal);
    const finished = await this.#finished(neighbours.versions);
    const arrived =
      finished ?? (await this.#adopted(neighbours.unfinished, method)) ?? (await this.#fresh(method));
    this.#refuseExisting(neighbours.versions, arrived.image.id);
    const image = await publish(this.#glance, arrived.image, input, await raw);
    const replaced = await retire(this.#glance, image, neighbours.versions, input);
    await this.#sweep();
    await this.#clearSwift();
    const { comparison } = arrived;
    if (comparison.verified !== 'ok') input.warn(`the upload could not be verified: ${comparison.proof}`);
    return {
      imageId: image.id,
      name: input.name,
      cloud: this.#glance.session.config.name,
      method: arrived.method,
      bytes: image.size ?? input.bytes,
      hash: comparison.hash,
      verified: comparison.verified,
      proof: comparison.proof,
      diskFormat: image.disk_format ?? input.format,
      stores: storesOf(image),
      visibility: image.visibility,
      replaced,
      properties: Object.fromEntries(
        Object.keys({ ...input.properties.properties, port_image_sha256: '' })
          .map((key) => [key, image[key]])
          .filter((entry): entry is [string, string] => typeof entry[1] === 'string'),
      ),
      minDisk: input.properties.minDisk,
      minRam: input.properties.minRam,
    };
  }

  /** `fail` is refused in the plan; somebody may have made one since. */
  #refuseExisting(versions: readonly GlanceImage[], own: string): void {
    const other = versions.find((v) => v.id !== own);
    if (this.#input.request.onExists !== 'fail' || other === undefined) return;
    throw new PortError(
      'CLOUD_CONFLICT',
      `the project has an image ${printable(this.#input.name)} already: ${other.id}`,
      { hint: 'take --on-exists new-version or another --name' },
    );
  }

  /** This job's own image, complete since a run that was killed before it could say so. */
  async #finished(versions: readonly GlanceImage[]): Promise<Arrived | undefined> {
    for (const image of versions) {
      if (image.port_image_job !== this.#input.jobId || image.status !== 'active') continue;
      if (!(await isSameFile(image, this.#input))) continue;
      const comparison = await compareRemote(this.#glance, image, this.#input);
      return { image, method: methodOf(image), comparison };
    }
    return undefined;
  }

  /** Leftovers of this job: a whole one is taken over, one Glance still imports is waited for, the rest removed. */
  async #adopted(leftovers: readonly GlanceImage[], method: ChosenMethod): Promise<Arrived | undefined> {
    const input = this.#input;
    let found: Arrived | undefined;
    for (const left of leftovers) {
      let image: GlanceImage = left;
      if (found === undefined && left.status === 'importing') {
        input.log.info('an earlier run left an import at work', { image: left.id });
        image = await this.#wait(left.id).catch((error: unknown) => {
          if (input.signal.aborted) throw error;
          return left;
        });
      }
      if (found === undefined && image.status === 'active' && (await isSameFile(image, input))) {
        input.log.info('taken over from an earlier run', { image: image.id });
        found = { image, method, comparison: await compareRemote(this.#glance, image, input) };
        continue;
      }
      input.log.info('leftover removed', { image: image.id, status: image.status });
      await this.#remove(image.id);
    }
    return found;
  }

  async #wait(id: string): Promise<GlanceImage> {
    const input = this.#input;
    return waitForImport(this.#glance, id, {
      signal: input.signal,
      stores: await wantedStores(this.#glance, input),
      stallMs: input.importStallMs ?? 15 * 60_000,
      pollMs: input.pollMs ?? 2000,
      onState: (text) => input.onProgress({ text }),
    });
  }

  async #fresh(method: ChosenMethod): Promise<Arrived> {
    try {
      return await this.#send(method);
    } catch (error) {
      await this.#cleanUp();
      const known = asPortError(error);
      // Glance may not reach Swift: what was chosen here, not asked for, is chosen again.
      const canFallBack =
        method === 'web-download' &&
        this.#input.request.method === 'auto' &&
        known.code !== 'INTERRUPTED' &&
        known.code !== 'JOB_TAMPERED';
      if (!canFallBack) throw known;
      const other = chooseMethod(this.#input.request, { ...this.#offer, hasObjectStore: false }, 0).method;
      this.#input.warn(
        `the cloud could not read the image from Swift (${known.message}); sending it directly`,
      );
      try {
        return await this.#send(other);
      } catch (second) {
        await this.#cleanUp();
        throw second;
      }
    }
  }

  async #send(method: ChosenMethod): Promise<Arrived> {
    const glance = this.#glance;
    const input = this.#input;
    const { signal } = input;
    let sent: SentFile | undefined;
    let image: GlanceImage | undefined;
    if (method === 'web-download') {
      const swift = new SwiftApi(glance.session);
      const { object } = await putIntoSwift(swift, input);
      const { id } = await this.#create();
      image = await pullFromSwift(glance, swift, input, id, object);
    } else {
      const { stores } = input.request;
      const made = await sendContent(glance, input, {
        destination: method === 'put' ? 'file' : 'stage',
        store: method === 'put' && stores !== 'all' ? stores[0] : undefined,
        create: () => this.#create(),
        remove: (id) => this.#remove(id),
      });
      sent = made.content;
      image =
        method === 'put'
          ? await glance.show(made.id, { signal })
          : await importStaged(glance, input, made.id);
    }
    if (image?.status !== 'active') {
      throw new PortError(
        'CLOUD',
        `Glance did not keep the image: it is ${printable(image?.status ?? 'gone')}`,
      );
    }
    const comparison = await compareRemote(glance, image, input, sent);
    // From here on it is whole, and worth keeping for the next run whatever happens.
    this.#unfinished.delete(image.id);
    return { image, method, comparison };
  }

  async #create(): Promise<GlanceImage> {
    const { name, format, properties, jobId, signal } = this.#input;
    const id = randomUUID();
    this.#unfinished.add(id);
    return this.#glance.create(
      {
        id,
        name,
        disk_format: format,
        container_format: 'bare',
        visibility: 'private',
        min_disk: properties.minDisk,
        min_ram: properties.minRam,
        port_image_job: jobId,
        port_image_id: properties.properties.port_image_id,
        port_image_version: properties.properties.port_image_version,
        port_image_state: STATE.inProgress,
      },
      { signal },
    );
  }

  async #remove(id: string): Promise<void> {
    await this.#glance.remove(id, { signal: this.#input.signal });
    this.#unfinished.delete(id);
  }

  /** Best effort, with time of its own. What stays carries our mark, and the next run removes it. */
  async #cleanUp(): Promise<void> {
    const signal = AbortSignal.timeout(CLEAN_UP_MS);
    for (const id of this.#unfinished) {
      await this.#glance.remove(id, { signal }).then(
        () => this.#unfinished.delete(id),
        (error: unknown) => this.#input.log.warn('image left behind', { image: id, message: String(error) }),
      );
    }
  }

  /** A request of a killed run may have reached Glance after our first look. Nothing depends on it. */
  async #sweep(): Promise<void> {
    const { name, jobId, signal, log } = this.#input;
    try {
      const { unfinished } = await readNeighbours(this.#glance, name, jobId, signal);
      for (const image of unfinished) await this.#remove(image.id);
    } catch (error) {
      log.warn('leftovers stay', { message: String(error) });
    }
  }

  async #clearSwift(): Promise<void> {
    if (!this.#offer.hasObjectStore) return;
    const signal = AbortSignal.timeout(CLEAN_UP_MS * 3);
    const swift = await hasStaging(this.#glance.session, this.#input.jobId).catch(() => undefined);
    if (swift !== undefined) await clearStaging(swift, this.#input, signal);
  }
}

/** How a finished image came in: an import leaves the list of failed stores behind, a PUT nothing. */
function methodOf(image: GlanceImage): ChosenMethod {
  return image.os_glance_failed_import === undefined ? 'put' : 'import';
}
