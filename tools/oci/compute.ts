/** Images of Oracle Cloud Infrastructure: Core Services API 20160918, by REST. */
import { randomUUID } from 'node:crypto';
import * as z from 'zod';
import { PortError } from '../../core/errors.ts';
import { pause } from '../../core/pause.ts';
import { parsedJson, printable } from '../../core/text.ts';
import { HttpClient, HttpError } from '../openstack/http.ts';
import { withRetries } from '../openstack/retry.ts';
import type { OciLogin } from './config.ts';
import { signedHeaders } from './signature.ts';

const Image = z.object({
  id: z.string(),
  displayName: z.string().default(''),
  lifecycleState: z.string(),
  timeCreated: z.string().default(''),
  freeformTags: z.record(z.string(), z.string()).default({}),
});
/** An image as Oracle tells of it. */
export type OciImage = z.infer<typeof Image>;

const Failure = z.object({ code: z.string().default(''), message: z.string().default('') });

/** Body of CreateImage (model CreateImageDetails, ImageSourceViaObjectStorageTupleDetails). */
export interface NewOciImage {
  compartmentId: string;
  displayName: string;
  launchMode: 'PARAVIRTUALIZED' | 'EMULATED' | 'NATIVE';
  freeformTags: Readonly<Record<string, string>>;
  imageSourceDetails: {
    sourceType: 'objectStorageTuple';
    sourceImageType: 'QCOW2';
    namespaceName: string;
    bucketName: string;
    objectName: string;
    operatingSystem?: string;
    operatingSystemVersion?: string;
  };
}

/** How long to wait for Oracle. */
export interface Timing {
  pollMs: number;
  /** An import that takes so long is given up. */
  stuckMs: number;
}

/** Imports of large images take more than an hour. */
export const TIMING: Timing = { pollMs: 10_000, stuckMs: 4 * 3_600_000 };

const MANY = Array.from({ length: 300 }, (_, i) => 200 + i).filter((s) => s !== 429);
const LOGIN_HINT =
  'compare user, fingerprint and key of the profile with the console; a clock off by 5 minutes does it too';

/** Throws CLOUD, CLOUD_LOGIN, CLOUD_REFUSED, CLOUD_CONFLICT, INTERRUPTED. */
export class OciCompute {
  readonly #http: HttpClient;
  readonly #login: OciLogin;
  readonly #base: string;
  readonly #timing: Timing;

  private constructor(http: HttpClient, login: OciLogin, base: string, timing: Timing) {
    this.#http = http;
    this.#login = login;
    this.#base = base;
    this.#timing = timing;
  }

  /** Asks nothing yet. Close it. */
  static async open(login: OciLogin, region: string, timing: Timing, endpoint?: string): Promise<OciCompute> {
    const base = endpoint ?? `https://iaas.${region}.oraclecloud.com`;
    return new OciCompute(await HttpClient.create(), login, base, timing);
  }

  async #call(
    what: string,
    method: 'GET' | 'POST' | 'DELETE',
    pathAndQuery: string,
    signal: AbortSignal,
    body?: unknown,
  ): Promise<{ status: number; value: unknown; nextPage: string | undefined }> {
    const url = new URL(`${this.#base}/20160918${pathAndQuery}`);
    const text = body === undefined ? undefined : JSON.stringify(body);
    // An attempt whose answer was lost makes nothing twice.
    const token = randomUUID();
    return withRetries(
      async () => {
        const answer = await this.#http.request(url, {
          method,
          headers: {
            ...signedHeaders(this.#login, { method, url, body: text }),
            ...(text === undefined ? {} : { 'opc-retry-token': token }),
          },
          ...(text === undefined ? {} : { body: text }),
          okStatus: MANY,
          what,
          signal,
        });
        const told = await answer.text();
        const { status } = answer;
        const value: unknown = told === '' ? undefined : parsedJson(told);
        if (status < 400) return { status, value, nextPage: answer.headers['opc-next-page'] };
        throw refusal(what, status, value);
      },
      { signal },
    );
  }

  #image(what: string, value: unknown): OciImage {
    const image = Image.safeParse(value);
    if (image.success) return image.data;
    throw new PortError('CLOUD', `${what}: the answer is no image of Oracle's`, { cause: image.error });
  }

  /** Images of a compartment with this tag. */
  async tagged(compartment: string, tag: string, value: string, signal: AbortSignal): Promise<OciImage[]> {
    const all: OciImage[] = [];
    let page: string | undefined;
    do {
      const query = new URLSearchParams({
        compartmentId: compartment,
        limit: '100',
        ...(page === undefined ? {} : { page }),
      });
      const answer = await this.#call('list of images', 'GET', `/images?${query}`, signal);
      const list = z.array(Image).safeParse(answer.value);
      if (!list.success)
        throw new PortError('CLOUD', 'list of images: the answer is none', { cause: list.error });
      all.push(...list.data.filter((i) => i.freeformTags[tag] === value && i.lifecycleState !== 'DELETED'));
      page = answer.nextPage;
    } while (page !== undefined);
    return all;
  }

  /** Begins an import. */
  async create(image: NewOciImage, signal: AbortSignal): Promise<OciImage> {
    const what = `image ${printable(image.displayName)}`;
    return this.#image(what, (await this.#call(what, 'POST', '/images', signal, image)).value);
  }

  /** Waits until an image is usable. Throws CLOUD when it was given up or takes too long. */
  async available(id: string, signal: AbortSignal, onState: (state: string) => void): Promise<OciImage> {
    const { pollMs, stuckMs } = this.#timing;
    const what = `image ${printable(id)}`;
    for (const start = performance.now(); ; await pause(pollMs, signal)) {
      const { value } = await this.#call(what, 'GET', `/images/${encodeURIComponent(id)}`, signal);
      const image = this.#image(what, value);
      if (image.lifecycleState === 'AVAILABLE') return image;
      onState(image.lifecycleState);
      if (image.lifecycleState !== 'IMPORTING' && image.lifecycleState !== 'PROVISIONING') {
        throw new PortError(
          'CLOUD',
          `${what} became ${printable(image.lifecycleState)}: Oracle gave the import up`,
          {
            hint: 'the work requests of the compartment in the console say why',
          },
        );
      }
      if (performance.now() - start > stuckMs) {
        const minutes = Math.round(stuckMs / 60_000);
        throw new PortError('CLOUD', `${what} is still ${image.lifecycleState} after ${minutes} minutes`, {
          hint: 'resume the job later: it goes on waiting for the same image',
        });
      }
    }
  }

  /** No error when there is no such image. */
  async remove(id: string, signal: AbortSignal): Promise<void> {
    try {
      await this.#call(
        `removal of image ${printable(id)}`,
        'DELETE',
        `/images/${encodeURIComponent(id)}`,
        signal,
      );
    } catch (error) {
      if (!(error instanceof HttpError) || error.status !== 404) throw error;
    }
  }

  async close(): Promise<void> {
    await this.#http.close();
  }
}

/** Codes: https://docs.oracle.com/iaas/Content/API/References/apierrors.htm */
function refusal(what: string, status: number, value: unknown): HttpError {
  const { code, message } = Failure.catch({ code: '', message: '' }).parse(value);
  const told = `${what}: ${printable(message).slice(0, 300) || `Oracle answers ${status}`} (${printable(code) || status})`;
  const isQuota = /LimitExceeded|QuotaExceeded/.test(code);
  const kind =
    status === 401
      ? 'CLOUD_LOGIN'
      : isQuota || status === 403 || /NotAuthorized/.test(code)
        ? 'CLOUD_REFUSED'
        : status === 409
          ? 'CLOUD_CONFLICT'
          : 'CLOUD';
  const hint = isQuota
    ? 'remove older images, or ask for a higher service limit (custom-image-count)'
    : status === 401
      ? LOGIN_HINT
      : status === 404
        ? 'Oracle says NotAuthorizedOrNotFound when a policy is missing: manage instance-images, read objects in the compartment'
        : undefined;
  return new HttpError(kind, told, {
    status,
    temporary: status === 429 || status >= 500 || /IncorrectState$|ExternalServerIncorrectState/.test(code),
    ...(hint === undefined ? {} : { hint }),
  });
}
