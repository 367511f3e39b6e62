/** Runs the command line as users do: as a process of its own. */
import * as path from 'node:path';
import { execa } from 'execa';

/** Root of the checkout. */
export const ROOT = path.resolve(import.meta.dirname, '../..');

/** How to run it. */
export interface CliOptions {
  cwd?: string;
  /** Added to this process' environment. */
  env?: Record<string, string>;
  input?: string;
  /** Wall time in milliseconds; default ten minutes. */
  timeoutMs?: number;
  /** An installed `port-image` to run instead of the checkout's cli/main.ts. */
  bin?: string;
  signal?: AbortSignal;
}

/** What it left. */
export interface CliResult {
  /** Exit status; undefined when a signal ended it. */
  exitCode: number | undefined;
  signal: string | undefined;
  stdout: string;
  stderr: string;
  /** stdout as JSON; throws, with stderr in the message, when it is none. */
  json(): unknown;
}

/** Runs `port-image ARGS…` and returns however it ended. */
export async function runCli(args: readonly string[], options: CliOptions = {}): Promise<CliResult> {
  const [file, argv] =
    options.bin === undefined ? [path.join(ROOT, 'scripts/port-image'), [...args]] : [options.bin, [...args]];
  const result = await execa(file, argv, {
    reject: false,
    timeout: options.timeoutMs ?? 600_000,
    forceKillAfterDelay: 15_000,
    maxBuffer: 256 * 1024 * 1024,
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    ...(options.env === undefined ? {} : { env: options.env }),
    ...(options.signal === undefined ? {} : { cancelSignal: options.signal }),
    ...(options.input === undefined ? { stdin: 'ignore' as const } : { input: options.input }),
  });
  const { stdout, stderr } = result;
  return {
    exitCode: result.exitCode,
    signal: result.signal,
    stdout,
    stderr,
    json() {
      try {
        return JSON.parse(stdout);
      } catch (cause) {
        throw new Error(`stdout is no JSON: ${stdout.slice(0, 2000)}\nstderr: ${stderr.slice(-2000)}`, {
          cause,
        });
      }
    },
  };
}
