/** What commands of the queue have in common. */
import * as os from 'node:os';
import { InvalidArgumentError } from 'commander';
import { type Log, silentLog } from '../core/log.ts';
import { Queue, type QueueOptions } from '../pipeline/sync/fleet/queue.ts';
import { say } from './output.ts';

/** Text of `--queue` in helps. */
export const QUEUE_HELP =
  'postgres://USER@HOST/DATABASE (password by PGPASSWORD or PGPASSFILE), or where that URL is: env:NAME or file:/PATH';

/** A whole number of an option. */
export function wholeNumber(least: number, most: number): (text: string) => number {
  return (text) => {
    const value = /^-?\d{1,9}$/.test(text) ? Number(text) : Number.NaN;
    if (Number.isNaN(value) || value < least || value > most)
      throw new InvalidArgumentError(`a whole number from ${least} to ${most}`);
    return value;
  };
}

/** Opens the queue for `work` and closes it afterwards, however that ends. */
export async function withQueue<T>(
  url: string,
  role: QueueOptions['role'],
  work: (queue: Queue) => Promise<T>,
  options: { log?: Log; name?: string; connections?: number } = {},
): Promise<T> {
  hidePassword(url);
  const queue = await Queue.open(url, { log: silentLog, name: os.hostname(), ...options, role });
  try {
    return await work(queue);
  } finally {
    await queue.close();
  }
}

/** A password on the command line can be read by every user of this machine until the line is overwritten. */
export function hidePassword(url: string): void {
  if (!/^postgres(ql)?:\/\/([^/?#]*:[^/?#]*@|.*[?&]password=)/.test(url)) return;
  // the title takes the place of the arguments in /proc/PID/cmdline
  process.title = 'port-image';
  say(
    'warning: the password of the queue is on the command line; use PGPASSWORD, PGPASSFILE, env:NAME or file:/PATH',
  );
}
