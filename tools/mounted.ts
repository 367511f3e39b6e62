/** Whether this machine itself writes to a block device: what is mounted read-write from it, or swapped to. */
import * as fs from 'node:fs/promises';
import * as path from 'node:path';

/** `major:minor` of a block device, or undefined. */
async function numberOf(device: string): Promise<string | undefined> {
  const stat = await fs.stat(device).catch(() => undefined);
  if (stat?.isBlockDevice() !== true) return undefined;
  // Linux: minor in bits 0-7 and 20-31, major in bits 8-19
  return `${(stat.rdev >> 8) & 0xfff}:${(stat.rdev & 0xff) | ((stat.rdev >>> 12) & 0xfff00)}`;
}

/** Adds a device, its partitions, and what stands on them (LVM, RAID, encryption), by sysfs. */
async function addFamily(sysfs: string, found: Set<string>): Promise<void> {
  const number = (await fs.readFile(path.join(sysfs, 'dev'), 'utf8').catch(() => '')).trim();
  if (number === '' || found.has(number)) return;
  found.add(number);
  for (const name of await fs.readdir(sysfs).catch(() => [])) {
    const partition = path.join(sysfs, name, 'partition');
    if (await fs.stat(partition).catch(() => undefined)) await addFamily(path.join(sysfs, name), found);
  }
  const holders = path.join(sysfs, 'holders');
  for (const name of await fs.readdir(holders).catch(() => []))
    await addFamily(path.join(holders, name), found);
}

/** Octal escapes of /proc/self/mountinfo and /proc/swaps. */
const withoutEscapes = (text: string) =>
  text.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)));

/** One mount as the kernel lists it (proc(5), mountinfo). */
export interface MountLine {
  number: string;
  target: string;
  source: string;
  writable: boolean;
}

/** Reads mountinfo. A mount is writable when both the mount and its file system are. */
export function parseMountinfo(text: string): MountLine[] {
  return text.split('\n').flatMap((line) => {
    const [left = '', right = ''] = line.split(' - ');
    const [, , number, , target, options = ''] = left.split(' ');
    const [, source = '', superOptions = ''] = right.split(' ');
    if (number === undefined || target === undefined) return [];
    const writable = options.split(',').includes('rw') && superOptions.split(',').includes('rw');
    return [{ number, target: withoutEscapes(target), source: withoutEscapes(source), writable }];
  });
}

/** Mount points (or `swap`) through which this machine writes to the device; empty when there are none. */
export async function writtenThrough(device: string): Promise<string[]> {
  const own = await numberOf(device);
  if (own === undefined) return [];
  const family = new Set<string>([own]);
  const sysfs = await fs.realpath(`/sys/dev/block/${own}`).catch(() => undefined);
  if (sysfs !== undefined) {
    family.delete(own);
    await addFamily(sysfs, family);
  }
  const found = new Set<string>();
  for (const mount of parseMountinfo(await fs.readFile('/proc/self/mountinfo', 'utf8').catch(() => ''))) {
    if (!mount.writable) continue;
    // btrfs shows a number of its own, so its source is asked too
    const numbers = [mount.number, mount.source.startsWith('/') ? await numberOf(mount.source) : undefined];
    if (numbers.some((n) => n !== undefined && family.has(n))) found.add(mount.target);
  }
  const swaps = (await fs.readFile('/proc/swaps', 'utf8').catch(() => '')).split('\n').slice(1);
  for (const line of swaps) {
    const number = await numberOf(withoutEscapes(line.split(/\s/)[0] ?? ''));
    if (number !== undefined && family.has(number)) found.add('swap');
  }
  return [...found];
}
