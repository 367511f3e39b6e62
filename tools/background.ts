/** A foreign program that lives beside us, such as a virtual machine: watched, stopped with us, never orphaned. */
import { execa } from 'execa';
import { childEnvironment, commandLine } from '../core/command.ts';
import { PortError } from '../core/errors.ts';
import { type Log, silentLog } from '../core/log.ts';

/** How a background program ended. */
export interface BackgroundExit {
  /** Exit status, or undefined when a signal ended it. */
  exitCode: number | undefined;
  signal: string | undefined;
  /** The last 16 KiB of stderr. */
  stderr: string;
}

/** A running background program. */
export interface Background {
  readonly pid: number | undefined;
  /** Resolves when it ended; never rejects except with PROGRAM_MISSING. */
  readonly exited: Promise<BackgroundExit>;
  /** Everything kept of stderr so far. */
  stderr(): string;
  /** SIGTERM, then SIGKILL after two seconds; resolves when it is gone. */
  stop(): Promise<void>;
}

/** Options of startBackground. */
export interface BackgroundOptions {
  signal?: AbortSignal | undefined;
  env?: Record<string, string>;
  log?: Log;
  /** Called for each piece of stderr. */
  onStderr?: (text: string) => void;
}

const STDERR_KEEP_BYTES = 16 * 1024;

/**
 * Starts a program in the background. The kernel kills it when this process dies, even by SIGKILL: `setpriv`
 * (util-linux) sets PR_SET_PDEATHSIG before the program starts.
 */
export function startBackground(
  program: string,
  args: readonly string[],
  options: BackgroundOptions = {},
): Background {
  (options.log ?? silentLog).debug('background', { line: commandLine(program, args) });
  const child = execa('setpriv', ['--pdeathsig', 'SIGKILL', '--', program, ...args], {
    env: childEnvironment(options.env),
    extendEnv: false,
    reject: false,
    stdin: 'ignore',
    stdout: 'ignore',
    stderr: 'pipe',
    buffer: false,
    forceKillAfterDelay: 2_000,
    ...(options.signal === undefined ? {} : { cancelSignal: options.signal }),
  });
  let kept = '';
  child.stderr?.setEncoding('utf8');
  child.stderr?.on('data', (text: string) => {
    kept = (kept + text).slice(-STDERR_KEEP_BYTES);
    options.onStderr?.(text);
  });
  const exited = child.then((result): BackgroundExit => {
    // setpriv itself answers 127 when the program cannot be found.
    if (result.code === 'ENOENT' || (result.exitCode === 127 && kept.includes('No such file'))) {
      throw new PortError('PROGRAM_MISSING', `${program} is not installed`, {
        hint: 'run: port-image doctor',
      });
    }
    return { exitCode: result.exitCode, signal: result.signal, stderr: kept };
  });
  exited.catch(() => {}); // Whoever awaits `exited` sees it; nobody else must crash over it.
  return {
    pid: child.pid,
    exited,
    stderr: () => kept,
    stop: async () => {
      child.kill('SIGTERM');
      await exited.catch(() => undefined);
    },
  };
}
