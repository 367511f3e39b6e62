/** One HTTP request to a cloud service: streamed, watched for stalls, never redirected, errors in our words. */
import * as fs from 'node:fs/promises';
import type { Readable } from 'node:stream';
import { rootCertificates } from 'node:tls';
import { Agent, type Dispatcher, request as send } from 'undici';
import { type ErrorCode, PortError } from '../../core/errors.ts';
import { printable } from '../../core/text.ts';

/** A body that can be sent again: called once per attempt. */
export type ReplayableBody = () => AsyncIterable<Uint8Array>;

/** What to send. */
export interface HttpRequest {
  method: 'GET' | 'HEAD' | 'PUT' | 'POST' | 'PATCH' | 'DELETE';
  headers?: Readonly<Record<string, string>>;
  body?: string | Uint8Array | ReplayableBody;
  /** Length of a streamed body when it is known; without it the body is sent in chunks. */
  bodyBytes?: number;
  /** Statuses that are an answer for the caller; every other one becomes an error. 2xx when absent. */
  okStatus?: readonly number[];
  /** Longest wait for the answer after the body was sent. */
  answerTimeoutMs?: number;
  signal?: AbortSignal | undefined;
  /** What is being done, for messages: `upload of segments/000001.tar.zst`. */
  what: string;
}

/** An answer. The body must be read or dumped. */
export interface HttpResponse {
  status: number;
  headers: Readonly<Record<string, string | undefined>>;
  body: Readable;
  /** Reads the body as text. Throws CLOUD when it is longer than `limitBytes` (default 8 MiB). */
  text(limitBytes?: number): Promise<string>;
  /** Reads the body as JSON. Throws CLOUD when it is none. */
  json(limitBytes?: number): Promise<unknown>;
  /** Throws the body away so that the connection can be used again. */
  drain(): Promise<void>;
}

/** An error with the status it came with, so that callers can tell a conflict from a missing object. */
export class HttpError extends PortError {
  /** HTTP status, or 0 when no answer came. */
  readonly status: number;
  /** Milliseconds of a Retry-After header. */
  readonly retryAfterMs: number | undefined;

  constructor(
    code: ErrorCode,
    message: string,
    options: {
      status: number;
      retryAfterMs?: number | undefined;
      temporary?: boolean;
      hint?: string;
      cause?: unknown;
    },
  ) {
    super(code, message, options);
    this.status = options.status;
    this.retryAfterMs = options.retryAfterMs;
  }
}

const CONNECT_TIMEOUT_MS = 20_000;
/** A connection on which nothing moves for so long is given up. */
const STALL_TIMEOUT_MS = 60_000;
const ANSWER_TIMEOUT_MS = 120_000;
/** Dates of answers have whole seconds, and answers take time. */
const SAME_CLOCK_MS = 10_000;
const TEXT_LIMIT_BYTES = 8 * 1024 * 1024;
/** What else is worth another attempt: request timeout, conflict of locks, throttling, server faults. */
const TEMPORARY_STATUS = new Set([408, 425, 429, 500, 502, 503, 504, 507]);

/** Retry-After of RFC 9110: seconds or a date. */
export function retryAfter(value: string | undefined, nowMs = Date.now()): number | undefined {
  if (value === undefined) return undefined;
  if (/^\d{1,9}$/.test(value.trim())) return Number(value) * 1000;
  const date = Date.parse(value);
  return Number.isNaN(date) ? undefined : Math.max(0, date - nowMs);
}

/** The part of an error body a person can use: OpenStack's JSON message, or the text without its markup. */
export function errorText(body: string): string {
  let text = body;
  try {
    const value = JSON.parse(body) as { error?: { message?: unknown }; message?: unknown };
    const message = value.error?.message ?? value.message;
    if (typeof message === 'string') text = message;
  } catch {
    text = body.replace(/<(title|h1)>.*?<\/\1>/gis, ' ');
  }
  // webob puts tags into what it says as JSON as well.
  text = text.replace(/<\/?[a-z][^>]*>/gi, ' ').replace(/&#?\w+;/g, ' ');
  return printable(withoutSignatures(text.replace(/\s+/g, ' ').trim())).slice(0, 300);
}

/** A text without what opens something: signatures of TempURLs and Fernet tokens. */
export function withoutSignatures(text: string): string {
  return text.replace(/(temp_url_sig=)[^&\s"']+/gi, '$1…').replace(/\bgAAAA[A-Za-z0-9_=-]{20,}/g, '[token]');
}

/** Options of a client. */
export interface HttpClientOptions {
  /** PEM file with further certificate authorities. TLS itself is always verified. */
  caFile?: string | undefined;
  stallTimeoutMs?: number | undefined;
}

/** Makes requests over kept connections. */
export class HttpClient {
  readonly #agent: Agent;
  readonly #stallMs: number;
  #requests = 0;
  #aheadMs = 0;

  private constructor(agent: Agent, stallMs: number) {
    this.#agent = agent;
    this.#stallMs = stallMs;
  }

  /** Reads the CA file, if any. Throws CONFIG when it cannot be read. */
  static async create(options: HttpClientOptions = {}): Promise<HttpClient> {
    const stallMs = options.stallTimeoutMs ?? STALL_TIMEOUT_MS;
    let ca: string[] | undefined;
    if (options.caFile !== undefined) {
      try {
        ca = [...rootCertificates, await fs.readFile(options.caFile, 'utf8')];
      } catch (error) {
        throw new PortError('CONFIG', `cannot read the CA file ${printable(options.caFile)}`, {
          cause: error,
        });
      }
    }
    const agent = new Agent({
      connect: { timeout: CONNECT_TIMEOUT_MS, ...(ca === undefined ? {} : { ca }) },
      connections: 16,
      bodyTimeout: stallMs,
      // our own watch covers the time while a body is sent; see `request`
      headersTimeout: 0,
      keepAliveTimeout: 4_000,
    });
    return new HttpClient(agent, stallMs);
  }

  /** Requests sent so far, repeated ones too. */
  get requests(): number {
    return this.#requests;
  }

  /** Milliseconds the service's clock is ahead of ours, by its last answer; a few seconds are none. */
  get clockAheadMs(): number {
    return this.#aheadMs;
  }

  #noteClock(date: string | undefined): void {
    const aheadMs = date === undefined ? Number.NaN : Date.parse(date) - Date.now();
    if (Number.isFinite(aheadMs)) this.#aheadMs = Math.abs(aheadMs) < SAME_CLOCK_MS ? 0 : aheadMs;
  }

  /** One attempt. Throws HttpError: CLOUD (temporary or not), CLOUD_LOGIN for 401, CLOUD_REFUSED for 403 and 413. */
  async request(url: URL, options: HttpRequest): Promise<HttpResponse> {
    const watch = new AbortController();
    const signal =
      options.signal === undefined ? watch.signal : AbortSignal.any([options.signal, watch.signal]);
    const { body } = options;
    let last = performance.now();
    let sent = body === undefined || typeof body !== 'function';
    const watched =
      typeof body === 'function'
        ? (async function* () {
            for await (const chunk of body()) {
              last = performance.now();
              yield chunk;
            }
            last = performance.now();
            sent = true;
          })()
        : body;
    const answerMs = options.answerTimeoutMs ?? ANSWER_TIMEOUT_MS;
    const timer = setInterval(
      () => {
        const quietMs = performance.now() - last;
        if (quietMs > (sent ? answerMs : this.#stallMs))
          watch.abort(new Error(sent ? 'no answer' : 'stalled'));
      },
      Math.min(1000, this.#stallMs / 4),
    );
    let answer: Dispatcher.ResponseData;
    this.#requests++;
    try {
      answer = await send(url, {
        dispatcher: this.#agent,
        method: options.method,
        headers: {
          'user-agent': 'port-image',
          ...options.headers,
          ...(options.bodyBytes === undefined ? {} : { 'content-length': String(options.bodyBytes) }),
        },
        // undici takes any async iterable; its types name only Readable
        body: (watched ?? null) as Readable | string | Uint8Array | null,
        signal,
      });
    } catch (error) {
      throw this.#noAnswer(url, options, error, watch.signal);
    } finally {
      clearInterval(timer);
    }
    const response = wrap(answer, `${options.what} at ${url.host}`);
    this.#noteClock(response.headers.date);
    const isOk =
      options.okStatus === undefined
        ? response.status >= 200 && response.status < 300
        : options.okStatus.includes(response.status);
    if (isOk) return response;
    throw await refusal(response, options, url);
  }

  #noAnswer(url: URL, options: HttpRequest, error: unknown, watch: AbortSignal): PortError {
    if (options.signal?.aborted) return new PortError('INTERRUPTED', 'interrupted', { cause: error });
    if (error instanceof PortError) return error;
    const where = `${options.what}: ${url.host}`;
    if (watch.aborted) {
      return new HttpError('CLOUD', `${where} did not answer any more`, {
        status: 0,
        temporary: true,
        cause: error,
      });
    }
    const { code, message } = error as NodeJS.ErrnoException;
    if (/CERT|SSL|TLS|SELF_SIGNED|UNABLE_TO_(GET|VERIFY)/.test(code ?? '')) {
      return new HttpError('CLOUD', `${where}: its certificate is not accepted (${code})`, {
        status: 0,
        hint: 'name the certificate authority with `cacert` in clouds.yaml or OS_CACERT',
        cause: error,
      });
    }
    // Reading our own file may have failed inside the body.
    if (code === 'EIO' || code === 'ENOENT' || code === 'EACCES' || code === 'ENOSPC') {
      return new PortError('HOST_IO', message, { cause: error });
    }
    return new HttpError('CLOUD', `${where} cannot be reached: ${printable(code ?? message).slice(0, 200)}`, {
      status: 0,
      temporary: true,
      cause: error,
    });
  }

  async close(): Promise<void> {
    await this.#agent.destroy();
  }
}

function wrap(answer: Dispatcher.ResponseData, where: string): HttpResponse {
  const headers: Record<string, string | undefined> = {};
  for (const [name, value] of Object.entries(answer.headers)) {
    headers[name.toLowerCase()] = Array.isArray(value) ? value.join(', ') : value;
  }
  const { body } = answer;
  // A body that is destroyed unread reports that as an error; without a listener it would end the process.
  body.on('error', () => {});
  const text = async (limitBytes = TEXT_LIMIT_BYTES): Promise<string> => {
    const parts: Buffer[] = [];
    let bytes = 0;
    try {
      for await (const part of body) {
        parts.push(part as Buffer);
        bytes += (part as Buffer).length;
        if (bytes > limitBytes) break;
      }
    } catch (error) {
      throw new HttpError('CLOUD', `${where}: the answer was cut`, {
        status: 0,
        temporary: true,
        cause: error,
      });
    }
    if (bytes > limitBytes)
      throw new PortError('CLOUD', `${where}: the answer is longer than ${limitBytes} bytes`);
    return Buffer.concat(parts).toString('utf8');
  };
  return {
    status: answer.statusCode,
    headers,
    body,
    text,
    json: async (limitBytes) => {
      const content = await text(limitBytes);
      try {
        return JSON.parse(content) as unknown;
      } catch (error) {
        throw new HttpError('CLOUD', `${where}: the answer is not JSON`, {
          status: 0,
          temporary: true,
          cause: error,
        });
      }
    },
    drain: async () => {
      await body.dump({ limit: 1 << 20 }).catch(() => {});
    },
  };
}

async function refusal(response: HttpResponse, options: HttpRequest, url: URL): Promise<HttpError> {
  const { status } = response;
  const told = options.method === 'HEAD' ? '' : errorText(await response.text(64 * 1024).catch(() => ''));
  await response.drain();
  const code: ErrorCode =
    status === 401 ? 'CLOUD_LOGIN' : status === 403 || status === 413 ? 'CLOUD_REFUSED' : 'CLOUD';
  return new HttpError(
    code,
    `${options.what}: ${url.host} answers ${status}${told === '' ? '' : `: ${told}`}`,
    {
      status,
      temporary: TEMPORARY_STATUS.has(status),
      retryAfterMs: retryAfter(response.headers['retry-after']),
    },
  );
}
