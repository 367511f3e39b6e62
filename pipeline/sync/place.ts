/** Where runs of a state folder come from: two runs of one place cannot be alive at once, because the folder has a lock. */
import { randomBytes } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import * as os from 'node:os';
import * as path from 'node:path';
import { exists, writeFileAtomic } from '../../core/files.ts';

const ID = /^[0-9a-f]{12}$/;

/** `HOST/ID`; the id is made by chance when the folder is first used, so that no other folder or host has it. */
export async function placeOf(stateDir: string): Promise<string> {
  const file = path.join(stateDir, 'place-id');
  const known = (await exists(file)) ? (await readFile(file, 'utf8')).trim() : '';
  if (ID.test(known)) return `${hostName()}/${known}`;
  const id = randomBytes(6).toString('hex');
  await writeFileAtomic(file, `${id}\n`);
  return `${hostName()}/${id}`;
}

/** The name of this machine as a word that fits marks in clouds. */
function hostName(): string {
  return (
    os
      .hostname()
      .replace(/[^A-Za-z0-9.-]/g, '-')
      .slice(0, 60) || 'host'
  );
}
