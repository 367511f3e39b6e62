/** One connection to a helper: the program is sent over it, then requests and answers. */
import { randomBytes } from 'node:crypto';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import * as os from 'node:os';
import * as path from 'node:path';
import { finished } from 'node:stream/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { type RunningProcess, start } from '../../core/command.ts';
import { PortError } from '../../core/errors.ts';
import { silentLog } from '../../core/log.ts';
import { printable } from '../../core/text.ts';
import { bootstrapCommand, helperPrograms } from './bootstrap.ts';
import { encodeFrame, type Fields, type Frame, FrameDecoder, findMark, PROTOCOL_VERSION } from './frames.ts';
import type { RateLimit } from './rate-limit.ts';
import { connectionError, sshArguments, targetName } from './ssh.ts';
import type { MachineOptions, MachineTarget } from './types.ts';

/** What a login may print before the helper speaks (motd, banner, profile). */
const MAX_NOISE_BYTES = 256 * 1024;

/** What the source may write to stderr, which is kept in a file, before ssh is killed (RLIMIT_FSIZE). */
const MAX_STDERR_BYTES = 16 * 1024 * 1024;

/** Of stderr, what is read to explain an end. */
const STDERR_TAIL_CHARACTERS = 8_000;

const DEFAULT_OPEN_TIMEOUT_MS = 60_000;

/** Options of one connection. */
export interface ConnectionOptions extends MachineOptions {
  lowPriority: boolean;
  /** The machine's limit, shared by its connections. */
  limit?: RateLimit | undefined;
  /** Memory of payloads. */
  takeBuffer?: (lengthBytes: number) => Buffer;
}

interface Waiting {
  resolve: (frame: Frame) => void;
  reject: (error: PortError) => void;
}

/** The connection after its helper answered. */
export class Connection {
  readonly target: MachineTarget;
  readonly name: string;
  /** Language of the helper. */
  language: 'python' | 'perl' = 'python';
  private readonly options: ConnectionOptions;
  private readonly waiting = new Map<number, Waiting>();
  private readonly decoder: FrameDecoder;
  private readonly nonce = randomBytes(8).toString('hex');
  private process: RunningProcess | undefined;
  private lastId = 0;
  private failure: PortError | undefined;
  private ended: Promise<void> | undefined;
  private phase: 'mark' | 'hello' | 'frames' = 'mark';
  private noise: Buffer = Buffer.alloc(0);
  private settleOpen: Waiting = { resolve: () => {}, reject: () => {} };

  private constructor(target: MachineTarget, options: ConnectionOptions) {
    this.target = target;
    this.options = options;
    this.name = targetName(target);
    this.decoder = new FrameDecoder(options.takeBuffer);
  }

  /** Connects and waits for the helper's first frame. Throws SOURCE_REMOTE, CONFIG, PROGRAM_MISSING, INTERRUPTED. */
  static async open(target: MachineTarget, options: ConnectionOptions): Promise<Connection> {
    const connection = new Connection(target, options);
    const opened = new Promise<Frame>((resolve, reject) => {
      connection.settleOpen = { resolve, reject };
    });
    opened.catch(() => {}); // awaited below, after the start
    const programs = helperPrograms(connection.nonce);
    const command = bootstrapCommand(connection.nonce, programs, options);
    await connection.launch(command, programs);
    const timeoutMs = options.openTimeoutMs ?? DEFAULT_OPEN_TIMEOUT_MS;
    const timer = setTimeout(() => {
      connection.fail(
        new PortError('SOURCE_REMOTE', `${connection.name} does not answer within ${timeoutMs / 1000} s`, {
          hint: 'check that a login by hand works and is quick',
          temporary: true,
        }),
      );
    }, timeoutMs);
    try {
      const hello = await opened;
      if (Number(hello.fields.get('version')) !== PROTOCOL_VERSION) {
        throw new PortError('BUG', 'helper and program are of different versions');
      }
    } catch (error) {
      await connection.close();
      throw error;
    } finally {
      clearTimeout(timer);
    }
    return connection;
  }

  private async launch(command: string, programs: ReturnType<typeof helperPrograms>): Promise<void> {
    const { target, options } = this;
    const folder = await mkdtemp(path.join(os.tmpdir(), 'port-image-ssh-'));
    const stderrFile = path.join(folder, 'stderr');
    const agent = process.env.SSH_AUTH_SOCK;
    const [program, args] =
      target.kind === 'ssh' ? ['ssh', sshArguments(target, command, options)] : ['sh', ['-c', command]];
    (options.log ?? silentLog).debug('connect', { to: this.name });
    try {
      this.process = await start('prlimit', [`--fsize=${MAX_STDERR_BYTES}`, '--', program, ...args], {
        pipes: true,
        stderrFile,
        signal: options.signal,
        ...(agent === undefined ? {} : { env: { SSH_AUTH_SOCK: agent } }),
      });
    } catch (error) {
      await rm(folder, { recursive: true, force: true });
      throw error;
    }
    const { stdout, exited } = this.process;
    stdout.on('data', (chunk: Buffer) => {
      try {
        this.received(chunk, programs);
      } catch (error) {
        this.fail(error as PortError);
        return;
      }
      const waitMs = options.limit?.passed(chunk.length, performance.now()) ?? 0;
      if (waitMs >= 1) {
        stdout.pause();
        setTimeout(() => stdout.resume(), waitMs);
      }
    });
    const drained = finished(stdout).catch(() => {});
    this.ended = exited.then(async () => {
      // answers that came before the end count
      await Promise.race([drained, sleep(1_000)]);
      const stderr = await readFile(stderrFile, 'utf8').catch(() => '');
      await rm(folder, { recursive: true, force: true });
      this.fail(
        options.signal?.aborted === true
          ? new PortError('INTERRUPTED', 'interrupted')
          : connectionError({
              target,
              stderr: stderr.slice(-STDERR_TAIL_CHARACTERS),
              established: this.phase === 'frames',
            }),
      );
    });
  }

  private received(chunk: Buffer, programs: ReturnType<typeof helperPrograms>): void {
    let bytes = chunk;
    if (this.phase !== 'frames') {
      this.noise = Buffer.concat([this.noise, chunk]);
      const found = findMark(this.noise, `@port-image ${this.nonce}`);
      if (found === undefined) {
        if (this.noise.length < MAX_NOISE_BYTES) return;
        throw new PortError('SOURCE_REMOTE', `${this.name} prints without end before it runs a command`, {
          hint: 'its login shell or profile is at fault: try ssh HOST true',
        });
      }
      this.noise = found.rest;
      if (this.phase === 'mark') {
        this.announced(found.word, programs);
        this.phase = 'hello';
        this.received(Buffer.alloc(0), programs);
        return;
      }
      this.phase = 'frames';
      bytes = found.rest;
    }
    for (const frame of this.decoder.push(bytes)) {
      const id = Number(frame.fields.get('id') ?? 0);
      if (id === 0) this.settleOpen.resolve(frame);
      else this.waiting.get(id)?.resolve(frame);
      this.waiting.delete(id);
    }
  }

  private announced(word: string, programs: ReturnType<typeof helperPrograms>): void {
    const program = programs.find((p) => p.language === word);
    if (program !== undefined) {
      this.language = program.language;
      this.process?.stdin.write(program.text);
      return;
    }
    throw word === 'nosudo'
      ? new PortError('SOURCE_REMOTE', `on ${this.name} the user is not root and there is no sudo`, {
          hint: 'log in as root',
        })
      : new PortError('SOURCE_REMOTE', `${this.name} has neither python3 nor perl with dd and sha256sum`, {
          hint: 'install one of them, or capture the disk from a rescue system',
        });
  }

  private fail(error: PortError): void {
    if (this.failure !== undefined) return;
    this.failure = error;
    this.settleOpen.reject(error);
    for (const { reject } of this.waiting.values()) reject(error);
    this.waiting.clear();
    void this.process?.stop(1_000);
  }

  /** False when it failed or was closed. */
  connected(): boolean {
    return this.failure === undefined;
  }

  /** True when it is connected and no answer is due. */
  idle(): boolean {
    return this.connected() && this.waiting.size === 0;
  }

  /** Sends a request; resolves with its answer, also when that tells of a failure. Throws SOURCE_REMOTE, INTERRUPTED. */
  ask(fields: Fields, payload?: Buffer): Promise<Frame> {
    if (this.failure !== undefined) return Promise.reject(this.failure);
    const id = ++this.lastId;
    return new Promise((resolve, reject) => {
      this.waiting.set(id, { resolve, reject });
      this.process?.stdin.write(encodeFrame([['id', id], ...fields], payload));
    });
  }

  /** As ask; a failure that the helper tells is thrown as SOURCE_REMOTE. */
  async call(what: string, fields: Fields, payload?: Buffer): Promise<Frame> {
    const frame = await this.ask(fields, payload);
    const error = frame.fields.get('error');
    if (error !== null) throw new PortError('SOURCE_REMOTE', `${what}: ${printable(error)}`);
    return frame;
  }

  /** Ends the connection; the helper thaws what it froze. */
  async close(): Promise<void> {
    if (this.failure === undefined) {
      this.failure = new PortError('SOURCE_REMOTE', `the connection to ${this.name} is closed`);
      for (const { reject } of this.waiting.values()) reject(this.failure);
      this.waiting.clear();
      this.process?.stdin.end(encodeFrame([['op', 'bye']]));
      const gone = this.process?.exited.then(() => true);
      const late = new Promise<false>((resolve) => setTimeout(resolve, 3_000, false).unref());
      if ((await Promise.race([gone, late])) !== true) await this.process?.stop(1_000);
    }
    await this.ended;
  }
}
