/** GNU tar on this machine, for trees of our own making. */
import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import { pipeline } from 'node:stream/promises';
import { run, start } from '../core/command.ts';
import { PortError } from '../core/errors.ts';

/**
 * Packs a folder, owned by root. With `only`, just the folders of that name and what lies in them; then returns false
 * and writes nothing when there is none.
 */
export async function createTar(
  target: string,
  dir: string,
  signal: AbortSignal,
  only?: string,
): Promise<boolean> {
  const common = [
    '--owner=0',
    '--group=0',
    '--numeric-owner',
    '--mode=u=rwX,go=rX',
    '-C',
    dir,
    '-cf',
    target,
  ];
  if (only === undefined) {
    await run('tar', [...common, '.'], { signal });
    return true;
  }
  const entries = await fs.readdir(dir, { recursive: true, withFileTypes: true });
  const names = entries
    .filter((e) => e.isFile() && path.basename(e.parentPath) === only)
    .map((e) => `./${path.relative(dir, path.join(e.parentPath, e.name))}`)
    .sort();
  if (names.length === 0) return false;
  const folders = [...new Set(names.map((n) => path.dirname(n)))];
  const list = [...folders, ...names].join('\0');
  await run('tar', [...common, '--no-recursion', '--null', '--verbatim-files-from', '-T', '-'], {
    signal,
    input: list,
  });
  return true;
}

/** Unpacks members that match wildcards from a program's tar output. Throws PROGRAM_FAILED. */
export async function extractMatching(
  program: string,
  args: readonly string[],
  dir: string,
  patterns: readonly string[],
  signal: AbortSignal,
): Promise<void> {
  const tar = await start(
    'tar',
    ['-x', '--no-same-owner', '--wildcards', '--ignore-command-error', '-C', dir, '-f', '-', ...patterns],
    { signal, pipes: true },
  );
  tar.stdout.resume();
  // The reader first: what a program writes while nobody listens is lost (see `start`).
  const producer = await start(program, args, { signal, pipes: true }).catch(async (error: unknown) => {
    await tar.stop();
    throw error;
  });
  producer.stdin.end();
  await pipeline(producer.stdout, tar.stdin).catch(() => {});
  const [from] = await Promise.all([producer.exited, tar.exited]);
  if (signal.aborted) throw new PortError('INTERRUPTED', `${program} stopped`);
  // tar's status 2 only says that a pattern matched nothing, which is usual.
  if (from.exitCode !== 0)
    throw new PortError('PROGRAM_FAILED', `${program} failed with status ${from.exitCode}`);
}
