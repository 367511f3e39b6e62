import { expect, test } from 'vitest';
import { parseMountinfo, writtenThrough } from '../../tools/mounted.ts';

test('mountinfo: writable only when mount and file system are', () => {
  const text = [
    '29 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw,errors=remount-ro',
    '30 29 8:2 / /mnt/a\\040b ro,relatime - ext4 /dev/sda2 rw',
    '31 29 8:3 / /snap rw,relatime shared:3 master:1 - squashfs /dev/sda3 ro',
    '',
  ].join('\n');
  expect(parseMountinfo(text)).toEqual([
    { number: '8:1', target: '/', source: '/dev/sda1', writable: true },
    { number: '8:2', target: '/mnt/a b', source: '/dev/sda2', writable: false },
    { number: '8:3', target: '/snap', source: '/dev/sda3', writable: false },
  ]);
});

test('what is no block device is written through nothing', async () => {
  expect(await writtenThrough('/dev/null')).toEqual([]);
  expect(await writtenThrough('/nonexistent')).toEqual([]);
  expect(await writtenThrough(import.meta.filename)).toEqual([]);
});
