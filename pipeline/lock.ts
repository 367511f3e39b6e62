/** One run at a time in a job folder. The lock names its owner, so a dead owner's lock can be taken over. */
import { randomBytes } from 'node:crypto';
import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import { PortError } from '../core/errors.ts';
import { FILE_MODE } from '../core/files.ts';

interface Owner {
  pid: number;
  /** Field 22 of /proc/PID/stat: start time in clock ticks since boot (proc(5)); tells a reused pid apart. */
  startTicks: string;
  bootId: string;
}

async function startTicks(pid: number): Promise<string | undefined> {
  try {
    const stat = await fs.readFile(`/proc/${pid}/stat`, 'utf8');
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19];
  } catch {
    return undefined;
  }
}

async function bootId(): Promise<string> {
  return (await fs.readFile('/proc/sys/kernel/random/boot_id', 'utf8')).trim();
}

async function readOwner(file: string): Promise<Owner | undefined> {
  try {
    return JSON.parse(await fs.readFile(file, 'utf8')) as Owner;
  } catch {
    return undefined;
  }
}

async function alive(owner: Owner | undefined): Promise<boolean> {
  if (owner === undefined || owner.bootId !== (await bootId())) return false;
  return (await startTicks(owner.pid)) === owner.startTicks;
}

/** Takes the lock of a folder; returns what releases it. Throws JOB_LOCKED naming the pid that holds it. */
export async function lockFolder(dir: string): Promise<() => Promise<void>> {
  const file = path.join(dir, 'lock');
  const mine: Owner = {
    pid: process.pid,
    startTicks: (await startTicks(process.pid)) ?? '',
    bootId: await bootId(),
  };
  const temporary = `${file}.${randomBytes(6).toString('hex')}`;
  await fs.writeFile(temporary, JSON.stringify(mine), { mode: FILE_MODE, flag: 'wx' });
  try {
    for (let attempt = 0; attempt < 5; attempt++) {
      try {
        await fs.link(temporary, file); // atomic: fails when the name exists
        return async () => {
          const owner = await readOwner(file);
          if (owner?.pid === mine.pid && owner.startTicks === mine.startTicks)
            await fs.rm(file, { force: true });
        };
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
      }
      const owner = await readOwner(file);
      if (await alive(owner)) {
        throw new PortError('JOB_LOCKED', `process ${owner?.pid} works in ${dir}`, {
          hint: 'wait for it, or use another job folder',
        });
      }
      // move the dead lock aside under a name of ours; only one taker wins the move of this very lock
      const aside = `${file}.dead.${randomBytes(6).toString('hex')}`;
      await fs.rename(file, aside).catch(() => {});
      const moved = await readOwner(aside);
      if (await alive(moved)) await fs.link(aside, file).catch(() => {}); // it was a new owner's: give it back
      await fs.rm(aside, { force: true });
    }
    throw new PortError('JOB_LOCKED', `the lock of ${dir} keeps changing hands`);
  } finally {
    await fs.rm(temporary, { force: true });
  }
}
