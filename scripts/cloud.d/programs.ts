/** Programs of further test services: which versions, where they lie, how they come there. */
import { execFile } from 'node:child_process';
import { mkdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);

/** Pinned: what the tests were written against. */
export const PROGRAM_VERSIONS = {
  azurite: '3.35.0',
  moto: '5.2.5',
  'fake-gcs': '1.56.1',
  // The last release whose programs lie in the module that the Go proxy has.
  govc: '0.46.3',
  vcsim: '0.46.3',
} as const;

/** A program the tests use when it can be had. */
export type ProgramName = keyof typeof PROGRAM_VERSIONS;

/** npm, pip and go each fetch and build within it even on a slow line. */
const INSTALL_MS = 10 * 60_000;
/** A failure counts for so long, or a run without a network would wait for it in every test file. */
const FAILED_FOR_MS = 10 * 60_000;

/** The cache folder that the scripts use too. */
export function cacheFolder(): string {
  return (
    process.env.PORT_IMAGE_CACHE ??
    path.join(process.env.XDG_CACHE_HOME ?? path.join(os.homedir(), '.cache'), 'port-image')
  );
}

/**
 * Absolute path of the program, installed into the cache on first use. Two processes that ask at once wait for each other.
 * Throws with the reason when it cannot be had; a failure less than ten minutes old is told again without a new try.
 */
export async function installProgram(name: ProgramName): Promise<string> {
  const version = PROGRAM_VERSIONS[name];
  const tools = path.join(cacheFolder(), 'tools');
  const folder = path.join(tools, `${name}-${version}`);
  const failed = `${folder}.failed`;
  mkdirSync(tools, { recursive: true, mode: 0o700 });
  if (isFresh(failed))
    throw new Error(
      `${name} ${version} could not be installed a short while ago (remove ${failed} to try again)`,
    );
  try {
    const { stdout } = await run(path.join(import.meta.dirname, 'install-program'), [name, version, folder], {
      timeout: INSTALL_MS,
      maxBuffer: 2 ** 24,
    });
    rmSync(failed, { force: true });
    return stdout.trim();
  } catch (error) {
    const { stderr, message } = error as { stderr?: string; message: string };
    writeFileSync(failed, stderr ?? message, { mode: 0o600 });
    const lines = (stderr?.trim() || message).split('\n');
    throw new Error(`${name} ${version} cannot be installed: ${lines.slice(-3).join(' / ')}`, {
      cause: error,
    });
  }
}

function isFresh(file: string): boolean {
  const stat = statSync(file, { throwIfNoEntry: false });
  return stat !== undefined && Date.now() - stat.mtimeMs < FAILED_FOR_MS;
}
