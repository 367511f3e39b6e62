/** A new image: made private and marked as in progress, sent by the chosen method, compared; removed when it fails. */
import { randomUUID } from 'node:crypto';
import { asPortError, PortError } from '../../../core/errors.ts';
import { printable } from '../../../core/text.ts';
import type { GlanceApi } from '../../../tools/openstack/glance.ts';
import type { GlanceImage } from '../../../tools/openstack/glance-types.ts';
import { SwiftApi } from '../../../tools/openstack/swift.ts';
import { STATE } from '../properties.ts';
import { sendContent } from './bytes.ts';
import { compareRemote } from './compare.ts';
import type { SentFile } from './content.ts';
import { importStaged } from './import.ts';
import { chooseMethod, type Offer } from './method.ts';
import type { Arrived, ChosenMethod, UploadInput } from './types.ts';
import { pullFromSwift, putIntoSwift } from './web-download.ts';

/** Time for taking away what a failed run made, after its own signal has fired. */
const CLEAN_UP_MS = 8_000;

/**
 * Sends the image. Where web-download was chosen here and fails, another method is tried. Throws CLOUD_REFUSED,
 * CLOUD_MISMATCH, CLOUD_LOGIN, CLOUD, INTERRUPTED; then nothing of it stays unless the cloud refuses to remove it.
 */
export async function sendFresh(
  glance: GlanceApi,
  offer: Offer,
  input: UploadInput,
  method: ChosenMethod,
): Promise<Arrived> {
  return new Fresh(glance, offer, input).run(method);
}

class Fresh {
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

  async run(method: ChosenMethod): Promise<Arrived> {
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
}
