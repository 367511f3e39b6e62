/** Jobs by folder or by name. */
import * as path from 'node:path';
import { PortError } from '../core/errors.ts';
import { exists } from '../core/files.ts';
import { printable } from '../core/text.ts';
import { jobPaths, jobsHome } from '../pipeline/job.ts';

/** The folder of a job named by path, or by its name below the jobs' home. Throws JOB_UNKNOWN. */
export async function findJob(nameOrDir: string): Promise<string> {
  for (const dir of [path.resolve(nameOrDir), path.join(jobsHome(), path.basename(nameOrDir))]) {
    if (await exists(jobPaths(dir).request)) return dir;
  }
  throw new PortError('JOB_UNKNOWN', `no job ${printable(nameOrDir)}`, {
    hint: 'port-image jobs list shows what is there',
  });
}
