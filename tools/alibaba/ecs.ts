/** Images of Alibaba Cloud: ECS API 2014-05-26. */
import { randomUUID } from 'node:crypto';
import * as z from 'zod';
import { PortError } from '../../core/errors.ts';
import { pause } from '../../core/pause.ts';
import { parsedJson, printable } from '../../core/text.ts';
import { HttpClient, HttpError } from '../openstack/http.ts';
import { withRetries } from '../openstack/retry.ts';
import { type AlibabaKey, LOGIN_HINT, readAlibabaKey } from './credentials.ts';
import { canonicalQuery, signedHeaders } from './signature.ts';

const VERSION = '2014-05-26';

const Image = z.object({
  ImageId: z.string(),
  ImageName: z.string().default(''),
  Status: z.string().default(''),
  CreationTime: z.string().default(''),
  Tags: z
    .object({ Tag: z.array(z.object({ TagKey: z.string(), TagValue: z.string() })).default([]) })
    .default({ Tag: [] }),
});
/** An image as ECS tells of it. */
export type EcsImage = z.infer<typeof Image>;

const Images = z.object({
  Images: z.object({ Image: z.array(Image).default([]) }).default({ Image: [] }),
  TotalCount: z.number().default(0),
});
const Tasks = z.object({
  TaskSet: z.object({
    Task: z.array(
      z.object({ TaskId: z.string(), TaskStatus: z.string(), TaskProcess: z.string().default('') }),
    ),
  }),
});
const Imported = z.object({ ImageId: z.string(), TaskId: z.string() });
const Failure = z.object({ Code: z.string().default(''), Message: z.string().default('') });

/** How long to wait for Alibaba. */
export interface Timing {
  pollMs: number;
  /** A task without progress for so long is given up. */
  stuckMs: number;
}

/** Imports take minutes to hours. */
export const TIMING: Timing = { pollMs: 10_000, stuckMs: 2 * 3_600_000 };

/** Statuses `refusal` explains; the rest is the client's. */
const MANY = Array.from({ length: 400 }, (_, i) => 200 + i);
/** https://api.aliyun.com/document/Ecs/2014-05-26/errorCode */
const THROTTLED = /^Throttling|ServiceUnavailable|InternalError|UnknownError/;
const NO_LOGIN =
  /InvalidAccessKeyId|SignatureDoesNotMatch|InvalidSecurityToken|SecurityTokenExpired|InvalidTimeStamp|IncompleteSignature|MissingSecurityToken/;
const ROLE = /NoSetRoletoECSServiceAc/;

/** Throws CLOUD, CLOUD_LOGIN, CLOUD_REFUSED, CLOUD_CONFLICT, INTERRUPTED. */
export class EcsApi {
  readonly region: string;
  readonly #http: HttpClient;
  readonly #base: URL;
  readonly #profile: string | undefined;
  readonly #timing: Timing;

  private constructor(
    http: HttpClient,
    base: URL,
    region: string,
    profile: string | undefined,
    timing: Timing,
  ) {
    this.#http = http;
    this.#base = base;
    this.region = region;
    this.#profile = profile;
    this.#timing = timing;
  }

  /** Asks nothing yet. Close it. */
  static async open(
    region: string,
    timing: Timing,
    options: { profile?: string | undefined; endpoint?: string | undefined },
  ): Promise<EcsApi> {
    const base = new URL(options.endpoint ?? `https://ecs.${region}.aliyuncs.com`);
    return new EcsApi(await HttpClient.create(), base, region, options.profile, timing);
  }

  async #call<T>(
    answer: z.ZodType<T>,
    action: string,
    given: Readonly<Record<string, string>>,
    what: string,
    signal: AbortSignal,
  ): Promise<T> {
    const parameters = { RegionId: this.region, ...given };
    const url = new URL(`/?${canonicalQuery(parameters)}`, this.#base);
    const body = await withRetries(
      async () => {
        const key: AlibabaKey = await readAlibabaKey(this.#profile);
        const response = await this.#http.request(url, {
          method: 'POST',
          headers: signedHeaders(key, { host: url.host, action, version: VERSION, parameters }),
          okStatus: MANY,
          what,
          signal,
        });
        const text = await response.text();
        const value = parsedJson(text);
        if (response.status >= 400) throw refusal(what, response.status, value);
        return value;
      },
      { signal },
    );
    const parsed = answer.safeParse(body);
    if (parsed.success) return parsed.data;
    throw new PortError('CLOUD', `${what}: the answer is not one of ECS`, { cause: parsed.error });
  }

  /** Images of this account that match, in any state. */
  async images(match: Readonly<Record<string, string>>, signal: AbortSignal): Promise<EcsImage[]> {
    const all: EcsImage[] = [];
    for (let page = 1; ; page++) {
      const answer = await this.#call(
        Images,
        'DescribeImages',
        {
          ImageOwnerAlias: 'self',
          Status: 'Creating,Waiting,Available,UnAvailable,CreateFailed,Deprecated',
          PageSize: '100',
          PageNumber: String(page),
          ...match,
        },
        'list of images',
        signal,
      );
      const found = answer.Images.Image;
      all.push(...found);
      if (found.length === 0 || all.length >= answer.TotalCount) return all;
    }
  }

  /** Begins an import. `parameters` are those of ImportImage. */
  async importImage(
    parameters: Readonly<Record<string, string>>,
    signal: AbortSignal,
  ): Promise<{ imageId: string; taskId: string }> {
    const what = `image ${printable(parameters.ImageName ?? '')}`;
    // An attempt whose answer was lost makes nothing twice.
    const given = { ...parameters, ClientToken: randomUUID() };
    const { ImageId, TaskId } = await this.#call(Imported, 'ImportImage', given, what, signal);
    return { imageId: ImageId, taskId: TaskId };
  }

  /** Waits for the end of an import. Throws CLOUD when Alibaba gives it up or it does not move. */
  async finished(taskId: string, signal: AbortSignal, onProgress: (text: string) => void): Promise<void> {
    const { pollMs, stuckMs } = this.#timing;
    const what = `import task ${printable(taskId)}`;
    let last = '';
    let movedAt = performance.now();
    for (;;) {
      const { TaskSet } = await this.#call(Tasks, 'DescribeTasks', { TaskIds: taskId }, what, signal);
      const task = TaskSet.Task.find((t) => t.TaskId === taskId);
      const state = `${task?.TaskStatus ?? 'unknown'} ${task?.TaskProcess ?? ''}`.trim();
      if (task?.TaskStatus === 'Finished') return;
      if (task?.TaskStatus === 'Failed') {
        throw new PortError('CLOUD', `${what} failed; ECS says why in the console`, {
          hint: 'usual: the role may not read the bucket, or the bucket is in another region',
        });
      }
      if (state !== last) movedAt = performance.now();
      last = state;
      onProgress(printable(state));
      if (performance.now() - movedAt > stuckMs) {
        const minutes = Math.round(stuckMs / 60_000);
        throw new PortError('CLOUD', `${what} has not moved for ${minutes} minutes (${printable(state)})`, {
          hint: 'resume the job later: it goes on waiting for the same image',
        });
      }
      await pause(pollMs, signal);
    }
  }

  /** The image as soon as instances can be made of it. Throws CLOUD when it failed or takes too long. */
  async usable(imageId: string, signal: AbortSignal): Promise<EcsImage> {
    const { pollMs, stuckMs } = this.#timing;
    const what = `image ${printable(imageId)}`;
    for (const start = performance.now(); ; await pause(pollMs, signal)) {
      const [image] = await this.images({ ImageId: imageId }, signal);
      if (image?.Status === 'Available') return image;
      if (image?.Status === 'CreateFailed' || image?.Status === 'UnAvailable')
        throw new PortError('CLOUD', `${what} became ${image.Status}`);
      if (performance.now() - start > stuckMs) {
        throw new PortError(
          'CLOUD',
          `${what} is not available yet (${printable(image?.Status ?? 'not shown')})`,
          {
            hint: 'resume the job later: it goes on waiting for the same image',
          },
        );
      }
    }
  }

  /** No error when there is no such image. */
  async remove(imageId: string, signal: AbortSignal): Promise<void> {
    const what = `removal of image ${printable(imageId)}`;
    try {
      await this.#call(z.unknown(), 'DeleteImage', { ImageId: imageId }, what, signal);
    } catch (error) {
      if (!(error instanceof HttpError) || error.status !== 404) throw error;
    }
  }

  async close(): Promise<void> {
    await this.#http.close();
  }
}

function refusal(what: string, status: number, value: unknown): HttpError {
  const { Code, Message } = Failure.catch({ Code: '', Message: '' }).parse(value);
  const told = `${what}: ${printable(Message).slice(0, 300) || `ECS answers ${status}`} (${printable(Code) || status})`;
  const isLogin = NO_LOGIN.test(Code) || status === 401;
  const isQuota = /Quota|LimitExceed/.test(Code);
  const code = isLogin
    ? 'CLOUD_LOGIN'
    : /InvalidImageName\.Duplicated/.test(Code)
      ? 'CLOUD_CONFLICT'
      : isQuota || ROLE.test(Code) || status === 403
        ? 'CLOUD_REFUSED'
        : 'CLOUD';
  const hint = isLogin
    ? LOGIN_HINT
    : ROLE.test(Code)
      ? 'let ECS read OSS once: create the RAM role AliyunECSImageImportDefaultRole with the policy AliyunECSImageImportRolePolicy'
      : isQuota
        ? 'remove older images, or ask for a larger quota of images'
        : undefined;
  return new HttpError(code, told, {
    status,
    temporary: !isQuota && (THROTTLED.test(Code) || status === 429 || status >= 500),
    ...(hint === undefined ? {} : { hint }),
  });
}
