/** Bytes of a socket, as many as are asked for at a time; the kernel holds back what nobody asked for. */
import { once } from 'node:events';
import * as net from 'node:net';
import { PortError } from '../../core/errors.ts';
import { printable } from '../../core/text.ts';

/** Where a server listens. */
export type NbdAddress = { host: string; port: number } | { path: string };

const CONNECT_TIMEOUT_MS = 30_000;

/** The failure of a connection; trying again may heal it. */
export function broken(name: string, why: string, cause?: unknown): PortError {
  return new PortError('SOURCE_REMOTE', `${name}: ${why}`, {
    temporary: true,
    cause,
    hint: 'is the server still running and reachable?',
  });
}

/** A connection to a server. */
export class NbdStream {
  readonly #socket: net.Socket;
  readonly #name: string;
  #rest = Buffer.alloc(0);
  #failure: PortError | undefined;
  #wake: () => void = () => {};

  private constructor(socket: net.Socket, name: string) {
    this.#socket = socket;
    this.#name = name;
    socket.on('error', (error) => this.#fail(broken(name, `the connection broke: ${error.message}`, error)));
    socket.on('close', () => this.#fail(broken(name, 'the server closed the connection')));
    socket.on('timeout', () => socket.destroy(broken(name, 'the server does not answer any more')));
    for (const event of ['readable', 'end', 'error', 'close']) socket.on(event, () => this.#wake());
    socket.setKeepAlive(true, 15_000);
    socket.setNoDelay(true);
  }

  /** Connects. Throws SOURCE_REMOTE, INTERRUPTED. */
  static async connect(address: NbdAddress, name: string, signal?: AbortSignal): Promise<NbdStream> {
    const socket = net.connect(address);
    const stop = AbortSignal.any([AbortSignal.timeout(CONNECT_TIMEOUT_MS), ...(signal ? [signal] : [])]);
    try {
      await once(socket, 'connect', { signal: stop });
    } catch (error) {
      socket.destroy();
      if (signal?.aborted) throw new PortError('INTERRUPTED', 'connecting stopped', { cause: error });
      if (stop.aborted) throw broken(name, 'the server does not answer', error);
      throw broken(name, `cannot connect: ${printable((error as Error).message)}`, error);
    }
    return new NbdStream(socket, name);
  }

  #fail(error: PortError): void {
    this.#failure ??= error;
  }

  /** Sends bytes. */
  send(...pieces: Buffer[]): void {
    this.#socket.write(Buffer.concat(pieces));
  }

  /** Ends the connection when nothing comes for so long; 0 when nothing is expected. */
  expect(withinMs: number): void {
    this.#socket.setTimeout(withinMs);
  }

  /** Fills `target` with the next bytes. Throws SOURCE_REMOTE when there are no more. */
  async fill(target: Buffer): Promise<void> {
    for (let filled = 0; filled < target.length; ) {
      if (this.#rest.length === 0) this.#rest = await this.#more();
      const copied = this.#rest.copy(target, filled);
      this.#rest = this.#rest.subarray(copied);
      filled += copied;
    }
  }

  /** The next bytes. */
  async take(bytes: number): Promise<Buffer> {
    const target = Buffer.allocUnsafe(bytes);
    await this.fill(target);
    return target;
  }

  async #more(): Promise<Buffer<ArrayBuffer>> {
    for (;;) {
      const chunk = this.#socket.read() as Buffer<ArrayBuffer> | null;
      if (chunk !== null) return chunk;
      if (this.#failure !== undefined) throw this.#failure;
      if (this.#socket.readableEnded) throw broken(this.#name, 'the server closed the connection');
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  /** Ends the connection at once; waiting readers fail. */
  destroy(error?: PortError): void {
    if (error !== undefined) this.#fail(error);
    this.#socket.destroy();
  }
}
