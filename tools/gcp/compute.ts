/**
 * Compute Engine's images, by REST: https://docs.cloud.google.com/compute/docs/reference/rest/v1/images. Ten calls do not
 * need a client of 10 MB.
 */
import { randomUUID } from 'node:crypto';
import type { GoogleAuth } from 'google-auth-library';
import * as z from 'zod';
import { PortError } from '../../core/errors.ts';
import { pause } from '../../core/pause.ts';
import { printable } from '../../core/text.ts';
import { withRetries } from '../openstack/retry.ts';
import { GcpError, gcpError } from './errors.ts';

const COMPUTE = 'https://compute.googleapis.com/compute/v1';
const ANSWER_MS = 60_000;
/** A change of a label or a family is done within a second or two. */
const FIRST_POLL_MS = 500;

const Image = z.object({
  name: z.string(),
  id: z.string().default(''),
  status: z.string().default('PENDING'),
  selfLink: z.string().default(''),
  diskSizeGb: z.coerce.number().default(0),
  archiveSizeBytes: z.coerce.number().default(0),
  family: z.string().optional(),
  description: z.string().default(''),
  creationTimestamp: z.string().default(''),
  labels: z.record(z.string(), z.string()).default({}),
  labelFingerprint: z.string().default(''),
  deprecated: z.object({ state: z.string().optional(), replacement: z.string().optional() }).optional(),
});
/** An image as Compute Engine tells of it. */
export type GceImage = z.infer<typeof Image>;

const Operation = z.object({
  name: z.string(),
  status: z.string(),
  progress: z.number().optional(),
  httpErrorStatusCode: z.number().optional(),
  error: z
    .object({ errors: z.array(z.object({ code: z.string(), message: z.string().default('') })) })
    .optional(),
});
type Operation = z.infer<typeof Operation>;

const Project = z.object({
  quotas: z.array(z.object({ metric: z.string(), limit: z.number(), usage: z.number() })).default([]),
});

/** What `images.insert` is given. */
export interface NewImage {
  name: string;
  /** Absent: no family has it. */
  family?: string;
  description: string;
  architecture: 'X86_64' | 'ARM64';
  labels: Readonly<Record<string, string>>;
  rawDisk: { source: string; containerType: 'TAR' };
  guestOsFeatures: readonly { type: string }[];
  storageLocations?: readonly string[];
}

/** How long to wait for Google. */
export interface Timing {
  pollMs: number;
  /** An operation that does not move for so long is given up. */
  stuckMs: number;
}

/** An import of 100 GB takes a quarter of an hour, without a word about its progress. */
export const TIMING: Timing = { pollMs: 5_000, stuckMs: 90 * 60_000 };

/** One request, by its path below the project. */
export interface GceRequest {
  method: 'GET' | 'POST' | 'PATCH' | 'DELETE';
  path: string;
  query?: Record<string, string>;
  data?: unknown;
}

/** The images of one project. Throws CLOUD, CLOUD_LOGIN, CLOUD_REFUSED, CLOUD_CONFLICT, INTERRUPTED. */
export class ComputeApi {
  readonly project: string;
  readonly #auth: GoogleAuth;
  readonly #base: string;
  readonly #timing: Timing;
  readonly #onRequest: () => void;

  /** `onRequest` is told of each attempt. */
  constructor(
    auth: GoogleAuth,
    project: string,
    timing: Timing,
    endpoint: string = COMPUTE,
    onRequest: () => void = () => {},
  ) {
    this.#auth = auth;
    this.project = project;
    this.#timing = timing;
    this.#base = `${endpoint}/projects/${encodeURIComponent(project)}`;
    this.#onRequest = onRequest;
  }

  /** Asks once, with retries; the answer is of this form. */
  async ask<T>(answer: z.ZodType<T>, what: string, request: GceRequest, signal: AbortSignal): Promise<T> {
    const query = new URLSearchParams(request.query ?? {}).toString();
    const body = await withRetries(
      async () => {
        this.#onRequest();
        try {
          const { data } = await this.#auth.request<unknown>({
            url: `${this.#base}${request.path}${query === '' ? '' : `?${query}`}`,
            method: request.method,
            ...(request.data === undefined ? {} : { data: request.data }),
            responseType: 'json',
            // ours are the pauses
            retry: false,
            timeout: ANSWER_MS,
            signal,
          });
          return data;
        } catch (error) {
          throw gcpError(error, what, signal);
        }
      },
      { signal },
    );
    const parsed = answer.safeParse(body);
    if (parsed.success) return parsed.data;
    throw new PortError('CLOUD', `${what}: the answer is not one of Compute Engine`, { cause: parsed.error });
  }

  /** The image, or undefined when there is none of this name. */
  async image(name: string, signal: AbortSignal): Promise<GceImage | undefined> {
    try {
      return await this.ask(
        Image,
        `image ${name}`,
        { method: 'GET', path: `/global/images/${name}` },
        signal,
      );
    } catch (error) {
      if (error instanceof GcpError && error.status === 404) return undefined;
      throw error;
    }
  }

  /** The image as soon as Google has finished or given it up. Throws CLOUD when it vanishes or never gets ready. */
  async settled(name: string, signal: AbortSignal): Promise<GceImage> {
    const { pollMs, stuckMs } = this.#timing;
    for (const start = performance.now(); ; await pause(pollMs, signal)) {
      const image = await this.image(name, signal);
      if (image === undefined) throw new PortError('CLOUD', `image ${name} vanished while it was made`);
      if (image.status !== 'PENDING') return image;
      if (performance.now() - start > stuckMs) throw stuck(`image ${name}`, 'PENDING', stuckMs);
    }
  }

  /** Images with this label. */
  async labelled(label: string, value: string, signal: AbortSignal): Promise<GceImage[]> {
    const List = z.object({ items: z.array(Image).default([]), nextPageToken: z.string().optional() });
    const all: GceImage[] = [];
    let pageToken: string | undefined;
    do {
      const page = await this.ask(
        List,
        'list of images',
        {
          method: 'GET',
          path: '/global/images',
          query: {
            filter: `labels.${label}=${filterValue(value)}`,
            maxResults: '500',
            ...(pageToken === undefined ? {} : { pageToken }),
          },
        },
        signal,
      );
      all.push(...page.items);
      pageToken = page.nextPageToken;
    } while (pageToken !== undefined && pageToken !== '');
    return all;
  }

  /** Free images of the project's quota; undefined when it tells none. */
  async imageQuota(signal: AbortSignal): Promise<{ limit: number; usage: number } | undefined> {
    const { quotas } = await this.ask(
      Project,
      `project ${this.project}`,
      { method: 'GET', path: '' },
      signal,
    );
    return quotas.find((q) => q.metric === 'IMAGES');
  }

  /** Makes an image and waits for the end of it. */
  async insert(image: NewImage, signal: AbortSignal, onProgress: (percent: number) => void) {
    const what = `image ${image.name}`;
    const operation = await this.ask(
      Operation,
      what,
      {
        method: 'POST',
        path: '/global/images', // with it, an attempt whose answer was lost makes nothing twice
        query: { requestId: randomUUID() },
        data: image,
      },
      signal,
    );
    await this.#wait(operation, what, signal, onProgress);
  }

  /** Removes an image and waits for it; one that is gone is no error. */
  async remove(name: string, signal: AbortSignal): Promise<void> {
    const what = `removal of image ${name}`;
    try {
      await this.change(what, { method: 'DELETE', path: `/global/images/${name}` }, signal);
    } catch (error) {
      if (!(error instanceof GcpError) || error.status !== 404) throw error;
    }
  }

  /** Asks for a change and waits until it is done. */
  async change(what: string, request: GceRequest, signal: AbortSignal): Promise<void> {
    await this.#wait(await this.ask(Operation, what, request, signal), what, signal, () => {});
  }

  async #wait(
    first: Operation,
    what: string,
    signal: AbortSignal,
    onProgress: (percent: number) => void,
  ): Promise<void> {
    const { pollMs, stuckMs } = this.#timing;
    let operation = first;
    let movedAt = performance.now();
    let pauseMs = Math.min(pollMs, FIRST_POLL_MS);
    while (operation.status !== 'DONE') {
      if (performance.now() - movedAt > stuckMs) {
        throw stuck(`${what}: operation ${printable(operation.name)}`, operation.status, stuckMs);
      }
      await pause(pauseMs, signal);
      pauseMs = Math.min(pollMs, pauseMs * 2);
      const path = `/global/operations/${operation.name}`;
      const next = await this.ask(Operation, what, { method: 'GET', path }, signal);
      if (next.status !== operation.status || next.progress !== operation.progress)
        movedAt = performance.now();
      operation = next;
      onProgress(operation.progress ?? 0);
    }
    const [problem] = operation.error?.errors ?? [];
    if (problem === undefined) return;
    const status = operation.httpErrorStatusCode ?? 0;
    const isQuota = /QUOTA|LIMIT/.test(problem.code);
    throw new GcpError(
      problem.code === 'RESOURCE_ALREADY_EXISTS'
        ? 'CLOUD_CONFLICT'
        : isQuota || status === 403
          ? 'CLOUD_REFUSED'
          : 'CLOUD',
      `${what}: ${printable(problem.message).slice(0, 300)} (${printable(problem.code)})`,
      {
        status,
        reason: problem.code,
        temporary: false,
        cause: undefined,
        ...(isQuota ? { hint: 'remove older images, or ask for a larger quota of the project' } : {}),
      },
    );
  }
}

/** A word that begins with a letter is text as it is; digits alone would be a number. */
const filterValue = (value: string): string => (/^[a-z][a-z0-9_-]*$/.test(value) ? value : `"${value}"`);

function stuck(what: string, state: string, afterMs: number): PortError {
  const minutes = Math.round(afterMs / 60_000);
  return new PortError('CLOUD', `${what} has not moved for ${minutes} minutes (${printable(state)})`, {
    hint: 'resume the job later: it goes on waiting for the same image',
  });
}
