/** Unix sockets a virtual machine connects to, and requests with answers in JSON lines over them. */
import { createServer, type Server, type Socket } from 'node:net';
import { PortError } from '../core/errors.ts';
import { printable } from '../core/text.ts';

/** Longest line taken from the other side, in bytes; a guest may send anything. */
const MAX_LINE_BYTES = 1024 * 1024;

/** A listening unix socket that takes one connection. */
export interface UnixListener {
  /** Resolves with the first connection. */
  readonly connected: Promise<Socket>;
  close(): void;
}

/** Listens on a unix socket before the other program starts, so nothing it says is lost. */
export async function listenUnix(path: string): Promise<UnixListener> {
  // Linux: 108 bytes for sun_path with its final zero.
  if (Buffer.byteLength(path) > 107) throw new PortError('HOST_IO', `socket path is too long: ${path}`);
  let resolveSocket: (socket: Socket) => void = () => {};
  const connected = new Promise<Socket>((resolve) => {
    resolveSocket = resolve;
  });
  let open: Socket | undefined;
  const server: Server = createServer((socket) => {
    if (open !== undefined) {
      socket.destroy();
      return;
    }
    open = socket;
    socket.on('error', () => socket.destroy());
    resolveSocket(socket);
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(path, resolve);
  });
  return {
    connected,
    close: () => {
      open?.destroy();
      server.close();
    },
  };
}

/** Splits a stream of bytes into lines; a line that grows past the limit is dropped. */
export function onLines(socket: Socket, take: (line: string) => void): void {
  let rest: Buffer = Buffer.alloc(0);
  socket.on('data', (chunk: Buffer) => {
    rest = rest.length === 0 ? chunk : Buffer.concat([rest, chunk]);
    let end = rest.indexOf(10);
    while (end >= 0) {
      take(rest.subarray(0, end).toString('utf8'));
      rest = rest.subarray(end + 1);
      end = rest.indexOf(10);
    }
    if (rest.length > MAX_LINE_BYTES) rest = Buffer.alloc(0);
  });
}

/** Sends JSON requests, one at a time, and pairs each with its answer. Used for QMP and for the guest agent. */
export class JsonRequests {
  readonly #socket: Socket;
  #waiting: ((answer: Record<string, unknown>) => void) | undefined;
  #tail: Promise<unknown> = Promise.resolve();

  constructor(socket: Socket, onEvent: (event: Record<string, unknown>) => void = () => {}) {
    this.#socket = socket;
    onLines(socket, (line) => {
      const message = parseObject(line);
      if (message === undefined) return;
      if ('return' in message || 'error' in message) this.#waiting?.(message);
      else onEvent(message);
    });
  }

  /** Sends one request and gives its `return`. Throws PROGRAM_FAILED on an error answer, TIMEOUT when none comes. */
  async request(execute: string, args: object = {}, timeoutMs = 10_000): Promise<unknown> {
    const turn = this.#tail.then(() => this.#requestNow(execute, args, timeoutMs));
    this.#tail = turn.catch(() => undefined);
    return turn;
  }

  async #requestNow(execute: string, args: object, timeoutMs: number): Promise<unknown> {
    let timer: NodeJS.Timeout | undefined;
    try {
      const answer = await new Promise<Record<string, unknown>>((resolve, reject) => {
        timer = setTimeout(
          () => reject(new PortError('TIMEOUT', `no answer to ${execute} within ${timeoutMs / 1000} s`)),
          timeoutMs,
        );
        this.#waiting = resolve;
        this.#socket.write(`${JSON.stringify({ execute, arguments: args })}\n`);
      });
      if ('error' in answer) {
        throw new PortError(
          'PROGRAM_FAILED',
          `${execute}: ${printable(JSON.stringify(answer.error)).slice(0, 300)}`,
        );
      }
      return answer.return;
    } finally {
      clearTimeout(timer);
      this.#waiting = undefined;
    }
  }
}

/** A JSON object from a line, or undefined. The guest agent starts its answers with 0xff after a sync. */
export function parseObject(line: string): Record<string, unknown> | undefined {
  const start = line.indexOf('{');
  if (start < 0) return undefined;
  try {
    const value: unknown = JSON.parse(line.slice(start));
    return typeof value === 'object' && value !== null && !Array.isArray(value)
      ? (value as Record<string, unknown>)
      : undefined;
  } catch {
    return undefined;
  }
}
