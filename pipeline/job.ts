/** The job folder: everything about one conversion, the unit of resume, debugging and hand-over. */
import * as fs from 'node:fs/promises';
import * as os from 'node:os';
import * as path from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { PortError } from '../core/errors.ts';
import { exists, makeDir, writeJson } from '../core/files.ts';
import { Request } from '../core/request.ts';
import type { JobPaths } from '../core/stage.ts';
import { printable } from '../core/text.ts';

/** Paths of a job folder. */
export function jobPaths(dir: string): JobPaths {
  const at = (name: string): string => path.join(dir, name);
  return {
    dir,
    request: at('job.json'),
    journal: at('journal.jsonl'),
    facts: at('facts.json'),
    plan: at('plan.json'),
    capture: at('capture'),
    work: at('work.qcow2'),
    data: at('data'),
    out: at('out'),
    logs: at('logs'),
    report: at('report.html'),
    tmp: at('tmp'),
  };
}

/** Folder that holds jobs made without `--job`. */
export function jobsHome(): string {
  const state = process.env.XDG_STATE_HOME ?? path.join(os.homedir(), '.local', 'state');
  return process.env.PORT_IMAGE_JOBS ?? path.join(state, 'port-image', 'jobs');
}

/** Creates a job folder for a request, or opens an existing one that holds the same request. Throws JOB_MISMATCH. */
export async function createJob(dir: string, request: Request): Promise<JobPaths> {
  const paths = jobPaths(path.resolve(dir));
  await requireJobFolder(paths);
  if (await exists(paths.request)) {
    const { request: existing } = await openJob(dir);
    if (!isDeepStrictEqual(existing, request)) {
      const differs = Object.keys({ ...existing, ...request }).filter(
        (k) => !isDeepStrictEqual(existing[k as keyof Request], request[k as keyof Request]),
      );
      throw new PortError(
        'JOB_MISMATCH',
        `${paths.dir} holds another request (differs in: ${differs.join(', ')})`,
        {
          hint: 'run port-image resume to go on with it as it was asked, or choose another --job',
        },
      );
    }
    return paths;
  }
  await makeDir(paths.dir);
  await writeJson(paths.request, request);
  return paths;
}

/**
 * A folder is written to, and things in it removed, only when it is ours: a job, what `port-image capture` made, empty, or not
 * there yet. Throws USAGE, JOB_TAMPERED.
 */
export async function requireJobFolder(paths: JobPaths): Promise<void> {
  if (paths.dir.includes(':')) {
    // libguestfs refuses disk names with a colon (guestfs(3), "add-drive"), and our overlay lies in this folder
    throw new PortError('USAGE', `a job folder must not have a colon in its path: ${printable(paths.dir)}`, {
      hint: 'choose another folder with --job',
    });
  }
  if (await exists(paths.request)) {
    await openJob(paths.dir);
    return;
  }
  if ((await exists(paths.dir)) && !(await isForNewJob(paths))) {
    throw new PortError('USAGE', `${printable(paths.dir)} is not empty and holds no job`, {
      hint: 'choose another folder with --job',
    });
  }
}

/** An empty folder, or one that `port-image capture` made and used. */
async function isForNewJob(paths: JobPaths): Promise<boolean> {
  const names = await fs.readdir(paths.dir).catch((cause: NodeJS.ErrnoException) => {
    if (cause.code !== 'ENOTDIR') throw cause;
    throw new PortError('USAGE', `${printable(paths.dir)} is no folder`, {
      cause,
      hint: 'choose another folder with --job',
    });
  });
  // `lock.…`: a run that begins at this moment, or that was killed at its first
  const ours = names.filter((n) => n !== 'lock' && !n.startsWith('lock.'));
  const made = [paths.capture, paths.logs, paths.tmp].map((p) => path.basename(p));
  return ours.length === 0 || (ours.includes('capture') && ours.every((n) => made.includes(n)));
}

/** Makes a folder again what `port-image capture` left: the copy of the source, and no job. */
export async function forgetJob(paths: JobPaths): Promise<void> {
  for (const name of await fs.readdir(paths.dir)) {
    const target = path.join(paths.dir, name);
    if (target !== paths.capture && target !== paths.logs)
      await fs.rm(target, { recursive: true, force: true });
  }
}

/** Opens an existing job. Throws JOB_UNKNOWN, JOB_TAMPERED. */
export async function openJob(dir: string): Promise<{ paths: JobPaths; request: Request }> {
  const paths = jobPaths(path.resolve(dir));
  let text: string;
  try {
    const stat = await fs.lstat(paths.request);
    if (typeof process.getuid === 'function' && stat.uid !== process.getuid()) {
      throw new PortError('JOB_TAMPERED', `${printable(paths.request)} belongs to another user`);
    }
    text = await fs.readFile(paths.request, 'utf8');
  } catch (error) {
    if (error instanceof PortError) throw error;
    throw new PortError('JOB_UNKNOWN', `no job in ${printable(paths.dir)}`, {
      cause: error,
      hint: 'port-image jobs list shows what is there',
    });
  }
  try {
    return { paths, request: Request.parse(JSON.parse(text)) };
  } catch (error) {
    throw new PortError('JOB_TAMPERED', `${paths.request} is not a request of this program`, {
      cause: error,
    });
  }
}
