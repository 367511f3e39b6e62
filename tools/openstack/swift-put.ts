/** Sending one object and proving by its etag that it arrived. */
import { createHash } from 'node:crypto';
import { asPortError, PortError } from '../../core/errors.ts';
import { formatBytes } from '../../core/sizes.ts';
import { printable } from '../../core/text.ts';
import { HttpError } from './http.ts';
import { withRetries } from './retry.ts';
import type { SwiftApi } from './swift.ts';
import { healing, plainEtag } from './swift-object.ts';

/** Content that can be read from its start again. */
export type Content = () => AsyncIterable<Uint8Array>;

/** What to send. */
export interface PutRequest {
  container: string;
  name: string;
  content: Content;
  /** Exact length when known. */
  bytes?: number | undefined;
  /** md5 when known: the service then refuses anything else. */
  md5?: string | undefined;
  contentType?: string | undefined;
  signal?: AbortSignal | undefined;
}

/** What was sent. */
export interface Sent {
  bytes: number;
  md5: string;
  sha256: string;
}

/**
 * Conditions of one PUT that pass: clocks (409), a container not everywhere yet (404), bytes damaged on the way (422), a
 * connection that Swift or what is before it took for lost (499).
 */
const HEALING = [404, 409, 422, 499];

/** One attempt; the content is read to its end or closed before this returns, so that it may be read anew. */
export async function putOnce(api: SwiftApi, request: PutRequest): Promise<Sent> {
  const { container, name, bytes, md5, signal, contentType = 'application/octet-stream' } = request;
  const what = `upload of ${printable(name)}`;
  let open: AsyncGenerator<Uint8Array> | undefined;
  let state = start();
  const body = () => {
    // A renewed login sends once more inside one attempt.
    const previous = open;
    state = start();
    open = hashing(request, state, previous);
    return open;
  };
  try {
    const answer = await api.send(api.url(container, name), {
      method: 'PUT',
      headers: { 'content-type': contentType, ...(md5 === undefined ? {} : { etag: md5 }) },
      body,
      ...(bytes === undefined ? {} : { bodyBytes: bytes }),
      retries: 0,
      what,
      signal,
    });
    const sent = { bytes: state.bytes, md5: state.md5.digest('hex'), sha256: state.sha256.digest('hex') };
    const etag = plainEtag(answer.headers.etag);
    if (etag !== sent.md5) {
      await api.removePlain(container, name, signal).catch(() => {});
      throw new PortError('CLOUD_MISMATCH', `${what}: the store got other bytes than were sent`, {
        temporary: true,
      });
    }
    return sent;
  } catch (error) {
    // What the content itself failed with says more than the request it broke.
    throw state.failure === undefined ? healing(error, HEALING) : asPortError(state.failure);
  } finally {
    await open?.return(undefined);
  }
}

interface State {
  bytes: number;
  /** What reading the content failed with. */
  failure?: unknown;
  md5: ReturnType<typeof createHash>;
  sha256: ReturnType<typeof createHash>;
}

const start = (): State => ({ bytes: 0, md5: createHash('md5'), sha256: createHash('sha256') });

async function* hashing(
  { content, name, bytes }: PutRequest,
  state: State,
  previous: AsyncGenerator<Uint8Array> | undefined,
): AsyncGenerator<Uint8Array> {
  await previous?.return(undefined);
  try {
    for await (const chunk of content()) {
      state.md5.update(chunk);
      state.sha256.update(chunk);
      state.bytes += chunk.byteLength;
      if (bytes !== undefined && state.bytes > bytes) break;
      yield chunk;
    }
    if (bytes !== undefined && state.bytes !== bytes) {
      const came = state.bytes > bytes ? `more than ${bytes}` : `only ${state.bytes}`;
      throw new PortError('STORE', `${printable(name)}: ${came} bytes came, ${bytes} were announced`);
    }
  } catch (error) {
    state.failure = error;
    throw error;
  }
}

/** Sends until it is there, as often as temporary failures allow. Throws CLOUD, CLOUD_REFUSED (named), CLOUD_MISMATCH. */
export async function putObject(api: SwiftApi, request: PutRequest): Promise<Sent> {
  try {
    return await withRetries(() => putOnce(api, request), { signal: request.signal });
  } catch (error) {
    throw await explain(api, request.container, request.name, error);
  }
}

/** Says which limit a 413 or 507 means. */
export async function explain(
  api: SwiftApi,
  container: string,
  name: string,
  error: unknown,
): Promise<unknown> {
  if (!(error instanceof HttpError) || (error.status !== 413 && error.status !== 507)) return error;
  const { status } = error;
  const fail = (message: string, hint?: string) =>
    new HttpError('CLOUD_REFUSED', message, {
      status,
      cause: error,
      ...(hint === undefined ? {} : { hint }),
    });
  if (status === 507) return fail(`${printable(name)}: the object store has no space left (507)`);
  const quotas = await quotasOf(api, container).catch(() => []);
  const full = quotas.find((q) => q.isFull) ?? quotas[0];
  if (full !== undefined) {
    return fail(
      `${printable(name)} does not fit: ${full.text}`,
      'ask the operator of the cloud for a larger quota, or remove data sets: port-image data list',
    );
  }
  const { maxFileBytes } = await api.info();
  return fail(`${printable(name)} is larger than the store takes (${formatBytes(maxFileBytes)} an object)`);
}

/** A limit of account or container. */
export interface Quota {
  text: string;
  /** Bytes that still fit; undefined for a limit of objects. */
  leftBytes: number | undefined;
  isFull: boolean;
}

/** The limits that hold for an account, and for a container when it is named and there. Throws CLOUD. */
export async function quotasOf(api: SwiftApi, container?: string, signal?: AbortSignal): Promise<Quota[]> {
  const account = await api.headAccount(signal);
  const inner = container === undefined ? undefined : await api.headContainer(container, signal);
  const list: Quota[] = [];
  const add = (what: string, limit: string | undefined, used: string | undefined, isBytes: boolean) => {
    if (limit === undefined || !/^\d+$/.test(limit)) return;
    const left = Number(limit) - Number(used ?? 0);
    const show = (value: string) => (isBytes ? formatBytes(Number(value)) : `${value} objects`);
    list.push({
      text: `${what} has a quota of ${show(limit)}, ${show(used ?? '0')} are used`,
      leftBytes: isBytes ? left : undefined,
      isFull: left <= 0,
    });
  };
  const accountBytes = account['x-account-meta-quota-bytes'] ?? account['x-account-quota-bytes'];
  add('the project', accountBytes, account['x-account-bytes-used'], true);
  add('the project', account['x-account-quota-count'], account['x-account-object-count'], false);
  if (inner !== undefined && container !== undefined) {
    const what = `container ${printable(container)}`;
    add(what, inner['x-container-meta-quota-bytes'], inner['x-container-bytes-used'], true);
    add(what, inner['x-container-meta-quota-count'], inner['x-container-object-count'], false);
  }
  return list;
}
