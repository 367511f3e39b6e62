/** A read-only HTTP server over a data store, for the machine under verification alone. */
import { randomBytes } from 'node:crypto';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { pipeline } from 'node:stream/promises';
import { asPortError } from '../../core/errors.ts';
import type { Store } from '../../drivers/stores/store.ts';

/** A running server. */
export interface StoreServer {
  /** Port on 127.0.0.1, or 0 when it listens on a unix socket. */
  port: number;
  /** Unguessable first part of every path, without slashes. */
  prefix: string;
  /** Bytes of content sent so far. */
  sentBytes(): number;
  close(): Promise<void>;
}

/** Keys as the stores accept them: clean parts, no dot-dot, nothing to decode. */
const KEY = /^[A-Za-z0-9][A-Za-z0-9._-]*(\/[A-Za-z0-9][A-Za-z0-9._-]*)*$/;

/**
 * Serves the objects of `ids` below `/PREFIX/`; GET, HEAD and one byte range. Without a store everything is 404.
 * Listens on the unix socket `socketPath`, or on a free port of the loopback.
 */
export async function serveStore(
  store: Store | undefined,
  ids: readonly string[],
  socketPath?: string,
): Promise<StoreServer> {
  const prefix = randomBytes(16).toString('hex');
  const allowed = new Set(ids);
  let sent = 0;
  const server = createServer((request, response) => {
    answer(request, response).catch((error: unknown) => {
      const code = asPortError(error).code === 'STORE' ? 404 : 500;
      if (response.headersSent) response.destroy();
      else response.writeHead(code).end();
    });
  });
  async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    if (request.method !== 'GET' && request.method !== 'HEAD') {
      response.writeHead(405, { allow: 'GET, HEAD' }).end();
      return;
    }
    const target = request.url?.split('?')[0] ?? '';
    const key = target.startsWith(`/${prefix}/`) ? target.slice(prefix.length + 2) : '';
    const known = KEY.test(key) && allowed.has(key.split('/')[0] ?? '');
    const object = known ? await store?.head(key) : undefined;
    if (store === undefined || object === undefined) {
      response.writeHead(404).end();
      return;
    }
    const range = parseRange(request.headers.range, object.bytes);
    if (range === 'unsatisfiable') {
      response.writeHead(416, { 'content-range': `bytes */${object.bytes}` }).end();
      return;
    }
    const start = range?.start ?? 0;
    const length = range === undefined ? object.bytes : range.end - range.start + 1;
    response.writeHead(range === undefined ? 200 : 206, {
      'content-length': length,
      'content-type': 'application/octet-stream',
      'accept-ranges': 'bytes',
      ...(range === undefined ? {} : { 'content-range': `bytes ${start}-${range.end}/${object.bytes}` }),
    });
    if (request.method === 'HEAD' || length === 0) {
      response.end();
      return;
    }
    const body = await store.get(key, { offsetBytes: start, lengthBytes: length });
    body.on('data', (chunk: Buffer) => {
      sent += chunk.length;
    });
    await pipeline(body, response);
  }
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    if (socketPath === undefined) server.listen(0, '127.0.0.1', resolve);
    else server.listen(socketPath, resolve);
  });
  return {
    port: socketPath === undefined ? (server.address() as AddressInfo).port : 0,
    prefix,
    sentBytes: () => sent,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

/** One `bytes=` range; undefined means the whole object (none, or a form we need not serve). */
export function parseRange(
  header: string | undefined,
  bytes: number,
): { start: number; end: number } | 'unsatisfiable' | undefined {
  const match = /^bytes=(\d*)-(\d*)$/.exec(header ?? '');
  if (match === null) return undefined;
  const [first, last] = [match[1] ?? '', match[2] ?? ''];
  if (first === '' && last === '') return undefined;
  const start = first === '' ? Math.max(0, bytes - Number(last)) : Number(first);
  const end = first === '' || last === '' ? bytes - 1 : Math.min(Number(last), bytes - 1);
  return start > end || start >= bytes ? 'unsatisfiable' : { start, end };
}
