/** The one door to foreign programs: no shell, arguments as arrays, an environment built from nothing. */
import { open } from 'node:fs/promises';
import type { Readable, Writable } from 'node:stream';
import { execa, type Options } from 'execa';
import { PortError } from './errors.ts';
import { type Log, silentLog } from './log.ts';
import { printable } from './text.ts';

/** Limits put on a child by `prlimit` (util-linux), for programs that read hostile input. */
export interface ResourceLimits {
  /** CPU seconds (RLIMIT_CPU). */
  cpuSeconds?: number;
  /** Address space in bytes (RLIMIT_AS). */
  memoryBytes?: number;
  /** Largest file it may write, in bytes (RLIMIT_FSIZE). */
  fileBytes?: number;
  /** Stack of each thread in bytes (RLIMIT_STACK); counts against `memoryBytes` for every thread. */
  stackBytes?: number;
}

/** How to run a program. */
export interface CommandOptions {
  /** Stops the child and its descendants. */
  signal?: AbortSignal | undefined;
  /** Wall time in milliseconds; default one hour. */
  timeoutMs?: number;
  /** Data for stdin; otherwise stdin is closed. */
  input?: string | Uint8Array;
  /** More environment. Secrets go here or to stdin, never to the arguments. */
  env?: Record<string, string>;
  cwd?: string;
  /** Most bytes of stdout kept; more is an error. Default 64 MiB. */
  maxOutputBytes?: number;
  limits?: ResourceLimits;
  /** Receives stdout as it comes, instead of `stdout` in the result (which is then empty). */
  onStdout?: (text: string) => void;
  /** Exit statuses that are no failure; default only 0. */
  okStatus?: readonly number[];
  log?: Log;
}

/** What a finished program left. */
export interface CommandResult {
  exitCode: number;
  stdout: string;
  stderr: string;
}

/** Environment every child gets: nothing of ours leaks in, messages are in English. */
export function childEnvironment(extra: Record<string, string> = {}): Record<string, string> {
  const kept: Record<string, string> = {};
  for (const name of [
    'PATH',
    'HOME',
    'TMPDIR',
    'LIBGUESTFS_PATH',
    'SUPERMIN_KERNEL',
    'SUPERMIN_MODULES',
    'XDG_CACHE_HOME',
  ]) {
    const value = process.env[name];
    if (value !== undefined) kept[name] = value;
  }
  for (const name of ['http_proxy', 'https_proxy', 'no_proxy', 'SSL_CERT_FILE', 'SSL_CERT_DIR']) {
    const value = process.env[name];
    if (value !== undefined) kept[name] = value;
  }
  return { ...kept, LANG: 'C.UTF-8', LC_ALL: 'C.UTF-8', TZ: 'UTC', ...extra };
}

/** The command as a line for people, quoted for reading only. */
export function commandLine(program: string, args: readonly string[]): string {
  return [program, ...args]
    .map((a) => (/^[\w@%+=:,./-]+$/.test(a) ? a : `'${printable(a).replaceAll("'", "'\\''")}'`))
    .join(' ');
}

function withLimits(
  program: string,
  args: readonly string[],
  limits: ResourceLimits | undefined,
): [string, string[]] {
  const flags: string[] = [];
  if (limits?.cpuSeconds !== undefined) flags.push(`--cpu=${limits.cpuSeconds}`);
  if (limits?.memoryBytes !== undefined) flags.push(`--as=${limits.memoryBytes}`);
  if (limits?.fileBytes !== undefined) flags.push(`--fsize=${limits.fileBytes}`);
  if (limits?.stackBytes !== undefined) flags.push(`--stack=${limits.stackBytes}`);
  return flags.length === 0 ? [program, [...args]] : ['prlimit', [...flags, '--', program, ...args]];
}

/**
 * Runs a program to its end and returns its output.
 * Throws PROGRAM_MISSING, PROGRAM_FAILED (status not in okStatus, or killed), TIMEOUT, INTERRUPTED.
 */
export async function run(
  program: string,
  args: readonly string[],
  options: CommandOptions = {},
): Promise<CommandResult> {
  const line = commandLine(program, args);
  const [file, argv] = withLimits(program, args, options.limits);
  const log = options.log ?? silentLog;
  const started = performance.now();
  const execaOptions = {
    // glibc reserves 64 MiB of address space for the heap of each thread: under RLIMIT_AS a few threads would use it up
    env: childEnvironment({
      ...(options.limits?.memoryBytes === undefined ? {} : { MALLOC_ARENA_MAX: '1' }),
      ...options.env,
    }),
    extendEnv: false,
    reject: false,
    stripFinalNewline: false,
    timeout: options.timeoutMs ?? 3_600_000,
    maxBuffer: options.maxOutputBytes ?? 64 * 1024 * 1024,
    killDescendants: true,
    forceKillAfterDelay: 5_000,
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    ...(options.signal === undefined ? {} : { cancelSignal: options.signal }),
    ...(options.input === undefined ? { stdin: 'ignore' as const } : { input: options.input }),
  } satisfies Options;
  const child = execa(file, argv, {
    ...execaOptions,
    ...(options.onStdout ? { buffer: { stdout: false } } : {}),
  });
  if (options.onStdout) {
    child.stdout.setEncoding('utf8');
    child.stdout.on('data', options.onStdout);
  }
  const result = await child;
  const stdout = String(result.stdout ?? '');
  const stderr = String(result.stderr ?? '');
  log.debug('command', {
    line,
    status: result.exitCode ?? -1,
    seconds: Number(((performance.now() - started) / 1000).toFixed(3)),
  });
  if (result.isCanceled) throw new PortError('INTERRUPTED', `${program} stopped`);
  if (result.timedOut) throw new PortError('TIMEOUT', `${program} did not end in time: ${line}`);
  if (result.code === 'ENOENT' && result.exitCode === undefined) {
    throw new PortError('PROGRAM_MISSING', `${program} is not installed`, {
      hint: 'run: port-image doctor',
      cause: result.cause,
    });
  }
  const ok = options.okStatus ?? [0];
  if (result.exitCode === undefined || !ok.includes(result.exitCode)) {
    const how =
      result.exitCode === undefined
        ? `was killed (${result.signal ?? result.code ?? '?'})`
        : `failed with status ${result.exitCode}`;
    throw new PortError(
      'PROGRAM_FAILED',
      `${program} ${how}: ${lastLine(stderr) || lastLine(stdout) || 'no message'}`,
      {
        hint: `command: ${line}`,
        cause: result.cause,
      },
    );
  }
  return { exitCode: result.exitCode, stdout, stderr };
}

/** The last line that says something, printable. */
export function lastLine(text: string): string {
  return printable(text.trim().split('\n').at(-1) ?? '').slice(0, 500);
}

/** A long-lived child: an appliance, a virtual machine, a daemon. */
export interface RunningProcess {
  readonly pid: number;
  readonly stdin: Writable;
  readonly stdout: Readable;
  /** Ends when the child ended; never rejects. */
  readonly exited: Promise<{ exitCode: number | undefined; signal: string | undefined }>;
  /** True until the child ended. */
  running(): boolean;
  /** Asks the child and its descendants to end, then kills them; resolves when they are gone. */
  stop(graceMs?: number): Promise<void>;
}

/** How to start a long-lived child. */
export interface StartOptions {
  signal?: AbortSignal | undefined;
  env?: Record<string, string>;
  cwd?: string;
  /** File that receives stderr (created 0600); otherwise stderr is dropped. */
  stderrFile?: string;
  /** True to write to stdin or read stdout; otherwise closed and dropped. */
  pipes?: boolean;
}

/** Starts a program that runs until it is stopped. Throws PROGRAM_MISSING. */
export async function start(
  program: string,
  args: readonly string[],
  options: StartOptions = {},
): Promise<RunningProcess> {
  const stderr = options.stderrFile === undefined ? undefined : await open(options.stderrFile, 'a', 0o600);
  const stream = options.pipes === true ? ('pipe' as const) : ('ignore' as const);
  const child = execa(program, [...args], {
    env: childEnvironment(options.env),
    extendEnv: false,
    reject: false,
    buffer: false,
    stdin: stream,
    stdout: stream,
    // the child writes to the descriptor itself; execa's types only know the numbers 0 to 8
    stderr: stderr === undefined ? ('ignore' as const) : (stderr.fd as 8),
    killDescendants: true,
    forceKillAfterDelay: 3_000,
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    ...(options.signal === undefined ? {} : { cancelSignal: options.signal }),
  } satisfies Options);
  let running = true;
  const exited = child.then((result) => {
    running = false;
    return { exitCode: result.exitCode, signal: result.signal };
  });
  // not awaited: after one turn of the event loop execa drains a stream nobody listens to, and its first bytes would be lost
  stderr?.close().catch(() => {});
  if (child.pid === undefined) {
    const result = await child;
    throw new PortError('PROGRAM_MISSING', `${program} could not be started`, {
      hint: 'run: port-image doctor',
      cause: result.cause,
    });
  }
  child.stdin?.on('error', () => {}); // EPIPE after the child died; `exited` tells
  return {
    pid: child.pid,
    stdin: child.stdin as Writable,
    stdout: child.stdout as Readable,
    exited,
    running: () => running,
    async stop(graceMs = 3_000) {
      if (!running) return;
      child.kill('SIGTERM');
      const timer = setTimeout(() => child.kill('SIGKILL'), graceMs);
      await exited;
      clearTimeout(timer);
    },
  };
}
