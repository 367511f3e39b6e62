/** The mark of a job in clouds: made by chance, so that no other job, here or elsewhere, takes its things for its own. */
import { randomBytes } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import * as path from 'node:path';
import { exists, makeDir, writeFileAtomic } from '../../core/files.ts';
import type { StageContext } from '../../core/stage.ts';

const MARK_FILE = 'upload-mark';
const MARK = /^[0-9a-f]{20}$/;

/** The mark of this job, 20 hex digits; kept in the job before anything of it is in a cloud. */
export async function jobMark(ctx: Pick<StageContext, 'paths'>): Promise<string> {
  const file = path.join(ctx.paths.data, MARK_FILE);
  if (await exists(file)) {
    const known = (await readFile(file, 'utf8')).trim();
    if (MARK.test(known)) return known;
  }
  const mark = randomBytes(10).toString('hex');
  await makeDir(ctx.paths.data);
  await writeFileAtomic(file, `${mark}\n`);
  return mark;
}
