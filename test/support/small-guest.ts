/** Disks of a few MiB that change a little from version to version: guests for tests that look at the way, not at the content. */
import { execFileSync } from 'node:child_process';
import { randomFillSync } from 'node:crypto';
import * as fs from 'node:fs';
import * as path from 'node:path';

const MIB = 2 ** 20;

/** One guest, version after version. */
export interface SmallGuest {
  /** The newest version; nobody may write to it. */
  raw: string;
  qcow2: string;
  /** How many versions there were. */
  version: number;
  /** Makes the next version: `blocks` blocks of 1 MiB are other ones. */
  change(blocks: number): void;
}

/** A disk with one partition, its first `usedMib` random: nothing of them can be compressed or is anywhere else. */
export function smallGuest(dir: string, name: string, { sizeMib = 256, usedMib = 24 } = {}): SmallGuest {
  const at = (version: number, ext: string) => path.join(dir, `${name}-${version}.${ext}`);
  const block = Buffer.alloc(MIB);
  const write = (file: string, blocks: Iterable<number>) => {
    const fd = fs.openSync(file, 'r+');
    for (const number of blocks) fs.writeSync(fd, randomFillSync(block), 0, MIB, (number + 1) * MIB);
    fs.closeSync(fd);
    execFileSync('qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', file, file.replace(/raw$/, 'qcow2')]);
  };
  const guest: SmallGuest = {
    raw: at(1, 'raw'),
    qcow2: at(1, 'qcow2'),
    version: 1,
    change(blocks) {
      const before = guest.raw;
      guest.version += 1;
      guest.raw = at(guest.version, 'raw');
      guest.qcow2 = at(guest.version, 'qcow2');
      execFileSync('cp', ['--sparse=always', '--reflink=auto', before, guest.raw]);
      // other places each time
      write(
        guest.raw,
        Array.from({ length: blocks }, (_, n) => (n * 3 + guest.version) % usedMib),
      );
    },
  };
  fs.writeFileSync(guest.raw, '');
  fs.truncateSync(guest.raw, sizeMib * MIB);
  execFileSync('sfdisk', ['-q', guest.raw], {
    input: 'label: dos\nstart=2048, type=83\n',
    env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin' },
  });
  write(guest.raw, Array(usedMib).keys());
  return guest;
}
