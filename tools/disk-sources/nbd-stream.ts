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

/**
 * What is taken from the kernel at once, always into the same memory: a disk of buffers would wait for the collector.
 */
const BUFFER_BYTES = 256 * 1024;

/** A connection to a server. */
export class NbdStream {
  readonly #socket: net.Socket;
  /** What came and was not taken; while there is any, nothing more is read. */
  #rest: Buffer = Buffer.alloc(0);
  #failure: PortError | undefined;
  #wake: () => void = () => {};

  private constructor(address: NbdAddress, name: string) {
    const buffer = Buffer.allocUnsafeSlow(BUFFER_BYTES);
    const callback = (bytes: number) => {
      this.#rest = buffer.subarray(0, bytes);
      this.#wake();
      return false;
    };
    const socket = net.connect({ ...address, onread: { buffer, callback } });
    this.#socket = socket;
    socket.on('timeout', () => socket.destroy(broken(name, 'the server does not answer any more')));
    socket.on('error', (error) => this.#fail(broken(name, `the connection broke: ${error.message}`, error)));
    for (const event of ['end', 'close']) {
      socket.on(event, () => this.#fail(broken(name, 'the server closed the connection')));
    }
    socket.setKeepAlive(true, 15_000);
    socket.setNoDelay(true);
  }

  /** Connects. Throws SOURCE_REMOTE, INTERRUPTED. */
  static async connect(address: NbdAddress, name: string, signal?: AbortSignal): Promise<NbdStream> {
    const stream = new NbdStream(address, name);
    const socket = stream.#socket;
    const stop = AbortSignal.any([AbortSignal.timeout(CONNECT_TIMEOUT_MS), ...(signal ? [signal] : [])]);
    try {
      await once(socket, 'connect', { signal: stop });
    } catch (error) {
      socket.destroy();
      if (signal?.aborted) throw new PortError('INTERRUPTED', 'connecting stopped', { cause: error });
      if (stop.aborted) throw broken(name, 'the server does not answer', error);
      throw broken(name, `cannot connect: ${printable((error as Error).message)}`, error);
    }
    return stream;
  }

  #fail(error: PortError): void {
    this.#failure ??= error;
    this.#wake();
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
      while (this.#rest.length === 0) await this.#more();
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

  async #more(): Promise<void> {
    if (this.#failure !== undefined) throw this.#failure;
    await new Promise<void>((resolve) => {
      this.#wake = resolve;
      this.#socket.resume();
    });
  }

  /** Ends the connection at once; waiting readers fail. */
  destroy(error?: PortError): void {
    if (error !== undefined) this.#fail(error);
    this.#socket.destroy();
  }
}
