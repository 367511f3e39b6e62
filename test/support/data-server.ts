/** A small HTTP server for a store folder, with ranges and with faults on demand. Stands in for object storage. */
import { createReadStream, statSync } from 'node:fs';
import * as http from 'node:http';
import type { AddressInfo } from 'node:net';
import * as path from 'node:path';

/** What to do with a request instead of serving it; undefined serves it. */
export type Fault = { status: number } | { cutAfterBytes: number } | undefined;

/** A running server. */
export interface DataServer {
  url: string;
  /** Requested paths with query, in order. */
  requests: string[];
  /** Decides each request; the default serves everything. */
  fault: (key: string, count: number) => Fault;
  /** Bytes sent. */
  sentBytes: number;
  close(): Promise<void>;
}

/** Serves `dir` on a free port of 127.0.0.1. */
export async function serveFolder(dir: string): Promise<DataServer> {
  const state: DataServer = {
    url: '',
    requests: [],
    fault: () => undefined,
    sentBytes: 0,
    close: async () => {},
  };
  const counts = new Map<string, number>();
  const server = http.createServer((request, response) => {
    const target = request.url ?? '/';
    state.requests.push(target);
    const key = decodeURIComponent(target.split('?')[0] ?? '').slice(1);
    const count = (counts.get(key) ?? 0) + 1;
    counts.set(key, count);
    const fault = state.fault(key, count);
    if (fault !== undefined && 'status' in fault) {
      response.writeHead(fault.status).end('an error page that must never become data');
      return;
    }
    let size: number;
    try {
      size = statSync(path.join(dir, key)).size;
    } catch {
      response.writeHead(404).end('no such key');
      return;
    }
    const range = /^bytes=(\d+)-$/.exec(request.headers.range ?? '');
    const start = Number(range?.[1] ?? 0);
    if (range !== null && start >= size) {
      response.writeHead(416).end();
      return;
    }
    response.writeHead(range === null ? 200 : 206, {
      'content-length': size - start,
      ...(range === null ? {} : { 'content-range': `bytes ${start}-${size - 1}/${size}` }),
    });
    let left = fault === undefined ? Number.POSITIVE_INFINITY : fault.cutAfterBytes;
    const body = createReadStream(path.join(dir, key), { start, highWaterMark: 16384 });
    body.on('data', (chunk) => {
      const part = (chunk as Buffer).subarray(0, left);
      left -= part.length;
      state.sentBytes += part.length;
      if (left > 0) {
        if (!response.write(part)) {
          body.pause();
          response.once('drain', () => body.resume());
        }
        return;
      }
      body.destroy();
      response.write(part, () => response.destroy());
    });
    body.on('end', () => response.end());
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  state.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  state.close = async () => {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  };
  return state;
}
