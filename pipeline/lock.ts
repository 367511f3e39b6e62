/** One run at a time in a job folder. The lock names its owner, so a dead owner's lock can be taken over. */
import { createHash, randomBytes } from 'node:crypto';
import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import { PortError } from '../core/errors.ts';
import { FILE_MODE } from '../core/files.ts';
import { pause } from '../core/pause.ts';

interface Owner {
  pid: number;
  /** Field 22 of /proc/PID/stat: start time in clock ticks since boot (proc(5)); tells a reused pid apart. */
  startTicks: string;
  bootId: string;
  /** Made by chance: no two locks are the same, also of one process. */
  nonce: string;
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

/** Content of a lock; undefined when there is none. */
async function readLock(file: string): Promise<string | undefined> {
  return fs.readFile(file, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined;
    throw error;
  });
}

/** Who a lock names; undefined when it names nobody, as a lock cut short by a crash does. */
function ownerOf(text: string): Owner | undefined {
  try {
    return JSON.parse(text) as Owner;
  } catch {
    return undefined;
  }
}

async function alive(owner: Owner | undefined): Promise<boolean> {
  if (owner === undefined || owner.bootId !== (await bootId())) return false;
  return (await startTicks(owner.pid)) === owner.startTicks;
}

/** Tries of one lock; a claim on a dead one is held for moments only. */
const TRIES = 50;
const PAUSE_MS = 20;

/**
 * Puts `mine` at `file`. A dead owner's lock is replaced by the one who holds the claim on this very lock: a lock of its own, named
 * by the dead one's content, so that of many takers one replaces it and the others find a living lock. Undefined on success, else
 * the living owner.
 */
async function acquire(file: string, mine: string): Promise<Owner | undefined> {
  const temporary = `${file}.${randomBytes(6).toString('hex')}`;
  await fs.writeFile(temporary, mine, { mode: FILE_MODE, flag: 'wx' });
  try {
    for (let tried = 0; ; tried++) {
      try {
        await fs.link(temporary, file); // atomic: fails when the name exists
        return undefined;
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
      }
      const found = await readLock(file);
      const owner = found === undefined ? undefined : ownerOf(found);
      if (await alive(owner)) return owner;
      if (tried >= TRIES) throw new PortError('JOB_LOCKED', `the lock ${file} keeps changing hands`);
      if (found === undefined) continue;
      const claim = `${file}.${createHash('sha256').update(found).digest('hex').slice(0, 16)}`;
      if ((await acquire(claim, mine)) !== undefined) {
        await pause(PAUSE_MS, new AbortController().signal);
        continue;
      }
      try {
        // Nobody but the holder of the claim replaces it, so between this look and the rename it stays what it is.
        if ((await readLock(file)) !== found) continue;
        await fs.rename(temporary, file);
        return undefined;
      } finally {
        await fs.rm(claim, { force: true });
      }
    }
  } finally {
    await fs.rm(temporary, { force: true });
  }
}

/** Takes the lock of a folder; returns what releases it. Throws JOB_LOCKED naming the pid that holds it. */
export async function lockFolder(dir: string): Promise<() => Promise<void>> {
  const file = path.join(dir, 'lock');
  const mine = JSON.stringify({
    pid: process.pid,
    startTicks: (await startTicks(process.pid)) ?? '',
    bootId: await bootId(),
    nonce: randomBytes(8).toString('hex'),
  } satisfies Owner);
  const holder = await acquire(file, mine);
  if (holder !== undefined) {
    throw new PortError('JOB_LOCKED', `process ${holder.pid} works in ${dir}`, {
      hint: 'wait for it, or use another job folder',
    });
  }
  return async () => {
    if ((await readLock(file)) === mine) await fs.rm(file, { force: true });
  };
}
