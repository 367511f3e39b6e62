/** An image in Glance: what it says about it, and its bytes through the login that is kept fresh. */
import { PortError } from '../../core/errors.ts';
import { printable } from '../../core/text.ts';
import type { GlanceApi } from '../openstack/glance.ts';
import type { GlanceImage } from '../openstack/glance-types.ts';
import { HttpError } from '../openstack/http.ts';
import type { ContentFacts, Digest, ImageOrigin, OpenedContent } from './types.ts';

/** Disk formats that are no disk to boot from. */
const NO_DISKS = new Set(['iso', 'aki', 'ari', 'ami']);

/** What an image must be to be fetched. Throws SOURCE_REMOTE, UNSUPPORTED_FORMAT, EMPTY_DISK. */
export function checkedImage(
  image: GlanceImage | undefined,
  name: string,
): { facts: ContentFacts & { sizeBytes: number }; digests: Digest[]; diskFormat: string | undefined } {
  if (image === undefined) {
    throw new PortError('SOURCE_REMOTE', `${name}: no such image, or this project may not see it`, {
      hint: 'openstack image list shows what it may see; a shared image must be accepted first',
    });
  }
  if (image.status !== 'active') {
    throw new PortError('SOURCE_REMOTE', `${name} is ${printable(image.status)}, not active`, {
      hint: 'wait until it is whole, or have it reactivated',
    });
  }
  const { container_format: container, disk_format: format, size } = image;
  if (container !== 'bare') {
    throw new PortError(
      'UNSUPPORTED_FORMAT',
      `${name} is in a container of format ${printable(String(container))}, only bare disks can be used`,
    );
  }
  if (NO_DISKS.has(format ?? '')) {
    throw new PortError('UNSUPPORTED_FORMAT', `${name} has the disk format ${format}, which is no disk`);
  }
  if (size === 0) throw new PortError('EMPTY_DISK', `${name} is empty`);
  if (size === null || size === undefined || !Number.isSafeInteger(size) || size < 0) {
    throw new PortError('SOURCE_REMOTE', `${name}: Glance does not tell its size`);
  }
  const { os_hash_algo: algorithm, os_hash_value: hex } = image;
  const digests: Digest[] = [];
  const digits = algorithm === 'sha512' ? 128 : 64;
  if (
    (algorithm === 'sha512' || algorithm === 'sha256') &&
    hex?.length === digits &&
    /^[0-9a-f]+$/i.test(hex)
  ) {
    digests.push({ algorithm, hex: hex.toLowerCase() });
  }
  return {
    // the content of an active image never changes; the id alone would do
    facts: { sizeBytes: size, validator: hex ?? image.checksum ?? image.id },
    digests,
    diskFormat: format ?? undefined,
  };
}

function asSource(error: unknown, name: string): unknown {
  if (!(error instanceof HttpError)) return error;
  const hint =
    error.status === 403
      ? 'the cloud does not let this project download it'
      : error.status === 404
        ? 'it was removed, or is not shared any more'
        : undefined;
  return new HttpError('SOURCE_REMOTE', `${name}: ${error.message}`, {
    status: error.status,
    temporary: error.temporary,
    retryAfterMs: error.retryAfterMs,
    cause: error,
    ...(hint === undefined ? {} : { hint }),
  });
}

/** Content of one image. */
export class GlanceOrigin implements ImageOrigin {
  readonly #glance: GlanceApi;
  readonly #id: string;
  readonly #name: string;

  constructor(glance: GlanceApi, id: string, name: string) {
    this.#glance = glance;
    this.#id = id;
    this.#name = name;
  }

  async open(
    fromBytes: number,
    facts: ContentFacts,
    signal: AbortSignal | undefined,
  ): Promise<OpenedContent> {
    const response = await this.#glance
      .send(`images/${this.#id}/file`, {
        method: 'GET',
        headers: {
          accept: 'application/octet-stream',
          ...(fromBytes === 0 ? {} : { range: `bytes=${fromBytes}-` }),
        },
        okStatus: [200, 206],
        // the transfer tries again
        retries: 0,
        what: `download of image ${this.#id}`,
        signal,
      })
      .catch((error: unknown) => {
        throw asSource(error, this.#name);
      });
    const range = response.headers['content-range'];
    const isPart = response.status === 206;
    if (isPart && range !== `bytes ${fromBytes}-${(facts.sizeBytes ?? 0) - 1}/${facts.sizeBytes}`) {
      response.body.destroy();
      throw new PortError('SOURCE_REMOTE', `${this.#name}: Glance gives another part than asked for`);
    }
    return { fromBytes: isPart ? fromBytes : 0, facts, body: response.body };
  }

  async close(): Promise<void> {
    await this.#glance.session.close();
  }
}
