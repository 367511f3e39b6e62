/** Object storage of the instance tests: a folder behind a signed URL, on a unix socket, with faults by object. */
import * as fs from 'node:fs';
import * as http from 'node:http';
import type { Socket } from 'node:net';
import * as path from 'node:path';

/** What an object answers: 401, other bytes, bytes and then silence, or itself. */
export type Mode = 'serve' | 'refuse' | 'corrupt' | 'stall';

/** The only query that is let in. */
export const SIGNATURE = 'temp_url_sig=5ca1ab1e&temp_url_expires=4102444800';

/** A store that can be away. */
export class InstanceStore {
  /** Decides for each object; the default serves. */
  mode: (key: string) => Mode = () => 'serve';
  /** `METHOD KEY` of everything asked for, in order. */
  readonly requests: string[] = [];
  readonly #dir: string;
  readonly #socketPath: string;
  #server: http.Server | undefined;
  readonly #sockets = new Set<Socket>();

  constructor(dir: string, socketPath: string) {
    this.#dir = dir;
    this.#socketPath = socketPath;
  }

  async open(): Promise<void> {
    const server = http.createServer((request, response) => this.#answer(request, response));
    server.on('connection', (socket) => {
      this.#sockets.add(socket);
      socket.on('close', () => this.#sockets.delete(socket));
      socket.on('error', () => {});
    });
    await new Promise<void>((resolve) => server.listen(this.#socketPath, resolve));
    this.#server = server;
  }

  async close(): Promise<void> {
    const server = this.#server;
    this.#server = undefined;
    if (server === undefined) return;
    for (const socket of this.#sockets) socket.destroy();
    await new Promise((resolve) => server.close(resolve));
  }

  #answer(request: http.IncomingMessage, response: http.ServerResponse): void {
    const [target = '', query = ''] = (request.url ?? '').split('?');
    const key = target.slice(1);
    this.requests.push(`${request.method} ${key}`);
    const mode = this.mode(key);
    if (mode === 'refuse' || !query.startsWith(SIGNATURE)) {
      response.writeHead(401).end('Unauthorized');
      return;
    }
    const file = path.join(this.#dir, key);
    if (!fs.existsSync(file)) {
      response.writeHead(404).end();
      return;
    }
    const content = fs.readFileSync(file);
    if (mode === 'corrupt') content[content.length >> 1] = (content[content.length >> 1] ?? 0) ^ 1;
    const start = Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? '')?.[1] ?? 0);
    if (start > 0 && start >= content.length) {
      response.writeHead(416).end();
      return;
    }
    const part = content.subarray(start);
    response.writeHead(start > 0 ? 206 : 200, {
      'content-length': part.length,
      ...(start > 0 ? { 'content-range': `bytes ${start}-${content.length - 1}/${content.length}` } : {}),
    });
    if (mode === 'stall') response.write(part.subarray(0, part.length >> 1));
    else response.end(part);
  }
}
