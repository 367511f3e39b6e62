/** One libguestfs appliance with a guest's disks: the API calls, scripts and file operations stages use. */
import { randomBytes } from 'node:crypto';
import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import { start } from '../core/command.ts';
import { PortError } from '../core/errors.ts';
import { DIR_MODE, FILE_MODE } from '../core/files.ts';
import type { FileKind, GuestSession, WriteOptions } from '../core/guest.ts';
import { type Log, silentLog } from '../core/log.ts';
import { printable } from '../core/text.ts';
import { GuestfishChannel } from './guestfish-channel.ts';
import { withArguments } from './guestfish-quote.ts';

const CHUNK = 6000;
const READ_LIMIT = 16 * 1024 * 1024;
/** Replies over this size do not fit a libguestfs message (4 MiB) with its headers. */
const MESSAGE_LIMIT = 3 * 1024 * 1024;
const EXCHANGE = '/run/port-image';

/**
 * Kernel arguments of an emulated appliance. QEMU's translator keeps translated code by its virtual address; with
 * address randomisation every program start translates libc anew (measured: 35 ms a start, 6 ms without). One
 * processor, because emulated ones wait for each other when the host's cores are busy.
 */
const EMULATION_ARGUMENTS = 'norandmaps';

/** How to launch. */
export interface LaunchOptions {
  /** Our own qcow2 overlays, in disk order. Never a source. */
  overlays: readonly string[];
  /** Private folder for small files of this session. */
  tmpDir: string;
  /** LIBGUESTFS_* environment (KVM or TCG). */
  env: Record<string, string>;
  memoryMiB?: number;
  cpus?: number;
  signal: AbortSignal;
  log?: Log;
  /** Host path of the bytes of a source disk. */
  sourceFile: (disk: number) => Promise<string>;
}

/** A launched appliance. */
export interface Appliance extends GuestSession {
  /** Unmounts everything and shuts down; only then is the overlay whole. Throws APPLIANCE. */
  close(): Promise<void>;
  /** Kills it; the overlay must be thrown away. */
  abort(): Promise<void>;
}

class GuestfishSession implements Appliance {
  readonly exchange = EXCHANGE;
  readonly #channel: GuestfishChannel;
  readonly #options: LaunchOptions;
  #scripts = 0;
  #exchangeReady = false;
  #rootMounted = false;

  constructor(channel: GuestfishChannel, options: LaunchOptions) {
    this.#channel = channel;
    this.#options = options;
  }

  async call(command: string, args: readonly (string | Buffer)[] = [], timeoutMs = 900_000): Promise<string> {
    const output = (await this.#raw(command, args, timeoutMs)).toString('utf8');
    if (/^mount(-options|-vfs)?$/.test(command) && String(args.at(-1)) === '/') this.#rootMounted = true;
    if (command === 'umount-all') {
      this.#rootMounted = false;
      this.#exchangeReady = false;
    }
    return output;
  }

  #raw(command: string, args: readonly (string | Buffer)[], timeoutMs: number): Promise<Buffer> {
    return this.#channel.raw(command, args, timeoutMs);
  }

  async #ensureExchange(): Promise<void> {
    if (this.#exchangeReady || !this.#rootMounted) return;
    this.#exchangeReady = true;
    // The guest's /run is always empty at rest; a tmpfs over it never reaches the image.
    await this.#script(
      Buffer.from(
        'set -e\n[ -d /sysroot/run ] || mkdir -m 755 /sysroot/run\n[ ! -L /sysroot/run ]\n' +
          'mount -t tmpfs -o mode=755 tmpfs /sysroot/run\nmkdir -p -m 700 /sysroot/run/port-image\nmkdir -p -m 1777 /sysroot/run/lock\n',
      ),
      600_000,
    );
  }

  /** Brings a script into the appliance in pieces and runs it; its status comes back as its last line. */
  async #script(script: Buffer, timeoutMs: number): Promise<string> {
    const name = `/tmp/port-image.${++this.#scripts}`;
    const base64 = script.toString('base64');
    for (let at = 0; at < base64.length; at += CHUNK) {
      const piece = base64.slice(at, at + CHUNK);
      await this.#raw('debug', ['sh', `printf %s ${piece} ${at === 0 ? '>' : '>>'} ${name}.b64`], 60_000);
    }
    const run = `base64 -d < ${name}.b64 > ${name} ; sh ${name} 2> ${name}.err ; echo status=$? ; tail -c 3000 ${name}.err ; rm -f ${name} ${name}.b64 ${name}.err`;
    const output = (await this.#raw('debug', ['sh', run], timeoutMs)).toString('utf8');
    const at = output.lastIndexOf('status=');
    const status = /^status=(\d+)\n([\s\S]*)$/.exec(output.slice(at));
    if (at === -1 || status === null)
      throw new PortError('APPLIANCE', 'a script in the appliance left no status');
    if (status[1] !== '0') {
      const message = (status[2] ?? '').trim().split('\n').slice(-3).map(printable).join(' | ');
      throw new PortError(
        'APPLIANCE',
        `a script in the appliance failed with status ${status[1]}: ${message}`,
      );
    }
    return output.slice(0, at);
  }

  async appliance(
    script: string,
    args: readonly (string | Buffer)[] = [],
    timeoutMs = 900_000,
  ): Promise<string> {
    await this.#ensureExchange();
    return this.#script(withArguments(script, args), timeoutMs);
  }

  async guest(
    script: string,
    args: readonly (string | Buffer)[] = [],
    timeoutMs = 1_800_000,
  ): Promise<string> {
    await this.#ensureExchange();
    const name = `${EXCHANGE}/script.${++this.#scripts}`;
    await this.#uploadBytes(withArguments(`exec 2>&1\n${script}`, args), name);
    try {
      // Status and output come as data; a failing guest program is not an appliance fault.
      const run = `/bin/sh ${name} ; s=$? ; echo ; echo status=$s`;
      const output = (await this.#raw('sh', [run], timeoutMs)).toString('utf8');
      const match = /\nstatus=(\d+)\n*$/.exec(output);
      if (match === null) throw new PortError('GUEST_BROKEN', 'a program of the guest left no status');
      const text = output.slice(0, match.index);
      if (match[1] !== '0') {
        const last = text.trim().split('\n').slice(-5).map(printable).join(' | ');
        throw new PortError('GUEST_BROKEN', `a program of the guest failed with status ${match[1]}: ${last}`);
      }
      return text;
    } finally {
      await this.remove(name).catch(() => {});
    }
  }

  async #uploadBytes(content: Uint8Array, guestPath: string): Promise<void> {
    const file = path.join(this.#options.tmpDir, `upload.${randomBytes(8).toString('hex')}`);
    await fs.writeFile(file, content, { mode: FILE_MODE, flag: 'wx' });
    try {
      await this.#raw('upload', [file, guestPath], 900_000);
    } finally {
      await fs.rm(file, { force: true });
    }
  }

  async upload(hostFile: string, guestPath: string): Promise<void> {
    await this.#ensureExchange();
    await this.#raw('upload', [hostFile, guestPath], 3_600_000);
  }

  async download(guestPath: string, hostFile: string): Promise<void> {
    await this.#ensureExchange();
    await this.#raw('download', [guestPath, hostFile], 3_600_000);
  }

  sourceFile(disk: number): Promise<string> {
    return this.#options.sourceFile(disk);
  }

  async #stat(guestPath: string): Promise<Map<string, number> | undefined> {
    let output: string;
    try {
      output = await this.call('lstatns', [guestPath]);
    } catch (error) {
      if (error instanceof PortError && /No such file or directory|Not a directory/.test(error.message))
        return undefined;
      throw error;
    }
    return new Map(output.split('\n').map((l) => [l.split(':')[0] ?? '', Number(l.split(':')[1])]));
  }

  async kind(guestPath: string): Promise<FileKind> {
    const stat = await this.#stat(guestPath);
    if (stat === undefined) return 'missing';
    const type = (stat.get('st_mode') ?? 0) & 0o170000;
    return type === 0o100000 ? 'file' : type === 0o040000 ? 'dir' : type === 0o120000 ? 'symlink' : 'other';
  }

  async read(guestPath: string): Promise<Buffer | undefined> {
    let size: number;
    try {
      size = Number(await this.call('filesize', [guestPath]));
    } catch (error) {
      if (
        error instanceof PortError &&
        /No such file or directory|Not a directory|Too many levels/.test(error.message)
      )
        return undefined;
      throw error;
    }
    if (size > READ_LIMIT)
      throw new PortError(
        'GUEST_BROKEN',
        `${printable(guestPath)} is too large to be a text file (${size} bytes)`,
      );
    if ((await this.call('is-file', [guestPath, 'followsymlinks:true'])).trim() !== 'true') return undefined;
    if (size <= MESSAGE_LIMIT) return this.#raw('read-file', [guestPath], 60_000);
    const file = path.join(this.#options.tmpDir, `download.${randomBytes(8).toString('hex')}`);
    try {
      await this.#raw('download', [guestPath, file], 600_000);
      return await fs.readFile(file);
    } finally {
      await fs.rm(file, { force: true });
    }
  }

  async readText(guestPath: string): Promise<string | undefined> {
    return (await this.read(guestPath))?.toString('utf8');
  }

  async list(guestPath: string): Promise<string[]> {
    if ((await this.call('is-dir', [guestPath, 'followsymlinks:true'])).trim() !== 'true') return [];
    return (await this.call('ls', [guestPath])).split('\n').filter((l) => l !== '');
  }

  async glob(pattern: string): Promise<string[]> {
    return (await this.call('glob-expand', [pattern]))
      .split('\n')
      .filter((l) => l !== '')
      .sort();
  }

  async readLink(guestPath: string): Promise<string> {
    return (await this.call('readlink', [guestPath])).replace(/\n$/, '');
  }

  async mode(guestPath: string): Promise<number> {
    const stat = await this.#stat(guestPath);
    if (stat === undefined)
      throw new PortError('GUEST_BROKEN', `${printable(guestPath)} is missing in the guest`);
    return (stat.get('st_mode') ?? 0) & 0o7777;
  }

  async write(guestPath: string, content: string | Uint8Array, options: WriteOptions = {}): Promise<void> {
    await this.#ensureExchange();
    await this.#uploadBytes(typeof content === 'string' ? Buffer.from(content, 'utf8') : content, guestPath);
    if (options.mode !== undefined) await this.call('chmod', [options.mode.toString(), guestPath]);
    if (options.uid !== undefined || options.gid !== undefined) {
      await this.call('chown', [String(options.uid ?? 0), String(options.gid ?? 0), guestPath]);
    }
  }

  async mkdir(guestPath: string, mode?: number): Promise<void> {
    await this.call('mkdir-p', [guestPath]);
    if (mode !== undefined) await this.call('chmod', [mode.toString(), guestPath]);
  }

  async symlink(target: string, guestPath: string): Promise<void> {
    await this.call('ln-sf', [target, await this.#realName(guestPath)]);
  }

  /**
   * The path with the links of its folders followed inside the guest. For calls whose daemon side runs a program on
   * `/sysroot/PATH` without chroot (ln-sf, rm-rf): there an absolute link such as /home -> /data/home leads into the appliance.
   */
  async #realName(guestPath: string): Promise<string> {
    const parent = path.posix.dirname(guestPath);
    if (parent === '/') return guestPath;
    const real = (await this.call('realpath', [parent])).replace(/\n$/, '');
    return path.posix.join(real, path.posix.basename(guestPath));
  }

  async rename(from: string, to: string): Promise<void> {
    await this.call('rename', [from, to]);
  }

  async remove(guestPath: string): Promise<void> {
    try {
      await this.call('rm-f', [guestPath]);
    } catch (error) {
      if (!(error instanceof PortError && error.code === 'APPLIANCE')) throw error;
      if (/Not a directory/.test(error.message)) return;
      if (!/Is a directory/.test(error.message)) throw error;
      await this.call('rm-rf', [await this.#realName(guestPath)]);
    }
  }

  async close(): Promise<void> {
    try {
      await this.call('umount-all', [], 300_000);
      await this.#raw('shutdown', [], 300_000);
    } catch (error) {
      await this.abort();
      throw error;
    }
    await this.#channel.end();
  }

  async abort(): Promise<void> {
    await this.#channel.kill();
  }
}

/** Launches the appliance with overlays attached and nothing mounted. Throws APPLIANCE, PROGRAM_MISSING. */
export async function launch(options: LaunchOptions): Promise<Appliance> {
  await fs.mkdir(options.tmpDir, { recursive: true, mode: DIR_MODE });
  const stderrFile = path.join(options.tmpDir, `guestfish.${randomBytes(4).toString('hex')}.err`);
  await fs.writeFile(stderrFile, '', { mode: FILE_MODE });
  const child = await start('guestfish', [], {
    signal: options.signal,
    env: options.env,
    stderrFile,
    pipes: true,
  });
  const session = new GuestfishSession(
    new GuestfishChannel(child, stderrFile, options.signal, options.log ?? silentLog),
    options,
  );
  const emulated = options.env.LIBGUESTFS_BACKEND_SETTINGS?.includes('force_tcg') === true;
  try {
    await session.call('set-memsize', [String(options.memoryMiB ?? 2048)]);
    await session.call('set-smp', [String(options.cpus ?? (emulated ? 1 : 2))]);
    if (emulated) await session.call('set-append', [EMULATION_ARGUMENTS]);
    for (const overlay of options.overlays) {
      // unsafe: no flushes while editing; the file is flushed once when the session closed
      await session.call('add-drive', [overlay, 'format:qcow2', 'cachemode:unsafe', 'discard:enable']);
    }
    await session.call('run', [], 600_000);
    return session;
  } catch (error) {
    await session.abort();
    throw error;
  }
}
