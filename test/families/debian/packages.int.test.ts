import * as fs from 'node:fs/promises';
import * as os from 'node:os';
import * as path from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { silentLog } from '../../../core/log.ts';
import { resolvePackages } from '../../../families/debian/packages.ts';
import { FolderGuest } from './folder-guest.ts';

const hasApt = await fs.access('/usr/bin/apt-get').then(
  () => true,
  () => false,
);
let dir: string;
let guest: FolderGuest;

beforeAll(async () => {
  dir = await fs.mkdtemp(path.join(os.tmpdir(), 'packages-int-'));
  guest = new FolderGuest(path.join(dir, 'guest'));
  await guest.write('/etc/os-release', 'ID=debian\n');
  await guest.write(
    '/var/lib/dpkg/status',
    'Package: dpkg\nStatus: install ok installed\nVersion: 1.21.22\nArchitecture: amd64\n',
  );
  await guest.write(
    '/etc/apt/sources.list',
    'deb http://deb.debian.org/debian bookworm main\ndeb cdrom:x y z\n',
  );
});
afterAll(() => fs.rm(dir, { recursive: true, force: true }));

const options = () => ({
  cacheDir: path.join(dir, 'cache'),
  tmpDir: dir,
  signal: new AbortController().signal,
  log: silentLog,
});

test.skipIf(!hasApt)('from the network, then from the cache, then from a folder', async () => {
  const first = await resolvePackages(guest, ['zstd'], options());
  expect(first.packages.filter((p) => p.requested).map((p) => p.name)).toEqual(['zstd']);
  expect(first.files.length).toBe(first.packages.length);

  const proxy = process.env.http_proxy;
  process.env.http_proxy = 'http://127.0.0.1:1';
  try {
    const second = await resolvePackages(guest, ['zstd'], options());
    expect(second.files).toEqual(first.files);
  } finally {
    if (proxy === undefined) delete process.env.http_proxy;
    else process.env.http_proxy = proxy;
  }

  const pool = path.join(dir, 'a pool');
  await fs.mkdir(pool);
  for (const file of first.files) await fs.copyFile(file, path.join(pool, path.basename(file)));
  const third = await resolvePackages(guest, ['zstd'], { ...options(), offlinePool: pool });
  expect(third.packages.map((p) => p.name).sort()).toEqual(first.packages.map((p) => p.name).sort());
  await expect(resolvePackages(guest, ['curl'], { ...options(), offlinePool: pool })).rejects.toMatchObject({
    code: 'PACKAGES',
  });
});
