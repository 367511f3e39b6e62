/**
 * A guestfish that reads commands from stdin.
 *
 * Why stdin and not `--remote`: a failing remote command ends the listening guestfish, and with a leading `-` its status
 * is 0. Here every command has the leading `-` (guestfish goes on), a marker with a random nonce ends its output, and a
 * failure is what guestfish wrote to stderr meanwhile. guestfish reads lines into a buffer of 8192 bytes (fish.c,
 * `rl_gets`), so longer data travels in files or pieces, never in one line.
 */
import { randomBytes } from 'node:crypto';
import * as fs from 'node:fs/promises';
import type { RunningProcess } from '../core/command.ts';
import { PortError } from '../core/errors.ts';
import type { Log } from '../core/log.ts';
import { printable } from '../core/text.ts';
import { quote } from './guestfish-quote.ts';

const LINE_LIMIT = 8000;

/** The channel to one running guestfish. */
export class GuestfishChannel {
  readonly #child: RunningProcess;
  readonly #stderrFile: string;
  readonly #signal: AbortSignal;
  readonly #log: Log;
  readonly #nonce = randomBytes(12).toString('hex');
  #stderrOffset = 0;
  #output: Buffer[] = [];
  #tail: Buffer = Buffer.alloc(0);
  #wake: (() => void) | undefined;
  #queue: Promise<unknown> = Promise.resolve();
  #sequence = 0;

  constructor(child: RunningProcess, stderrFile: string, signal: AbortSignal, log: Log) {
    this.#child = child;
    this.#stderrFile = stderrFile;
    this.#signal = signal;
    this.#log = log;
    child.stdout.on('data', (chunk: Buffer) => {
      this.#output.push(chunk);
      this.#tail = Buffer.concat([this.#tail, chunk]).subarray(-128);
      this.#wake?.();
    });
    void child.exited.then(() => this.#wake?.());
  }

  /** One command; commands queue up, guestfish does one at a time. Returns its stdout as bytes. */
  raw(command: string, args: readonly (string | Buffer)[], timeoutMs: number): Promise<Buffer> {
    const next = this.#queue.then(() => this.#one(command, args, timeoutMs));
    this.#queue = next.catch(() => {});
    return next;
  }

  async #one(command: string, args: readonly (string | Buffer)[], timeoutMs: number): Promise<Buffer> {
    if (!/^[a-z0-9-]+$/.test(command))
      throw new PortError('BUG', `not a guestfish command: ${printable(command)}`);
    const line = [`-${command}`, ...args.map(quote)].join(' ');
    if (line.length > LINE_LIMIT) throw new PortError('BUG', `guestfish line too long: ${command}`);
    const marker = Buffer.from(`${this.#nonce}-${++this.#sequence}\n`);
    const started = performance.now();
    this.#output = [];
    this.#tail = Buffer.alloc(0);
    if (!this.#child.running()) throw await this.#dead(command);
    this.#child.stdin.write(`${line}\necho ${marker.toString()}`);
    let late = false;
    const timer = setTimeout(() => {
      late = true;
      this.#wake?.();
    }, timeoutMs);
    try {
      while (!this.#tail.subarray(-marker.length).equals(marker)) {
        if (!this.#child.running()) throw await this.#dead(command);
        if (late) {
          await this.#child.stop();
          throw new PortError(
            'TIMEOUT',
            `appliance: ${command} did not end within ${Math.round(timeoutMs / 1000)} s`,
          );
        }
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
          if (this.#tail.subarray(-marker.length).equals(marker) || !this.#child.running() || late) resolve();
        });
      }
    } finally {
      clearTimeout(timer);
      this.#wake = undefined;
    }
    const output = Buffer.concat(this.#output);
    const message = await this.#newErrors();
    this.#log.debug('appliance', {
      command,
      args: args.map((a) => printable(a.toString()).slice(0, 200)),
      seconds: Number(((performance.now() - started) / 1000).toFixed(3)),
      ...(message === '' ? {} : { error: message.slice(0, 1000) }),
    });
    if (message !== '') throw new PortError('APPLIANCE', `${command}: ${message}`);
    return output.subarray(0, output.length - marker.length);
  }

  /** What guestfish complained about since the last look. Other lines (warnings of qemu) only go to the log. */
  async #newErrors(): Promise<string> {
    const handle = await fs.open(this.#stderrFile, 'r');
    try {
      const { size } = await handle.stat();
      if (size <= this.#stderrOffset) return '';
      // guestfish's own words come last, behind whatever the emulator had to say
      const buffer = Buffer.alloc(Math.min(size - this.#stderrOffset, 65_536));
      await handle.read(buffer, 0, buffer.length, size - buffer.length);
      this.#stderrOffset = size;
      const text = buffer.toString('utf8');
      const at = text.search(/^(libguestfs: error:|guestfish:|\*stdin\*:\d+: )/m);
      if (at === -1) {
        this.#log.debug('appliance stderr', { text: printable(text).slice(0, 2000) });
        return '';
      }
      const message = text
        .slice(at)
        .replace(/^(\*stdin\*:\d+: |libguestfs: error: |guestfish: )+/gm, '')
        .trim();
      return message.split('\n').map(printable).join(' | ').slice(-4000);
    } finally {
      await handle.close();
    }
  }

  async #dead(command: string): Promise<PortError> {
    if (this.#signal.aborted) return new PortError('INTERRUPTED', 'appliance stopped');
    const message = await this.#newErrors();
    return new PortError(
      'APPLIANCE',
      `the appliance ended during ${command}${message === '' ? '' : `: ${message}`}`,
      {
        hint: 'run: port-image doctor; the log of the job has the details',
      },
    );
  }

  /** Ends guestfish after its last command. Throws APPLIANCE when it did not end well. */
  async end(): Promise<void> {
    this.#child.stdin.end();
    const { exitCode } = await this.#child.exited;
    if (exitCode !== 0) throw new PortError('APPLIANCE', `guestfish ended with status ${exitCode}`);
  }

  /** Kills guestfish and its appliance. */
  async kill(): Promise<void> {
    await this.#child.stop();
  }
}
