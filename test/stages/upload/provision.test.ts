import { createHash } from 'node:crypto';
import { chmodSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import * as path from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { parse } from 'yaml';
import { run } from '../../../core/command.ts';
import { silentLog } from '../../../core/log.ts';
import type { StageContext } from '../../../core/stage.ts';
import type { Artifact } from '../../../core/types.ts';
import type { CloudImage } from '../../../core/uploader.ts';
import { handOver } from '../../../stages/upload/hand-over.ts';
import { rawDigest } from '../../../stages/upload/raw-digest.ts';
import { provisionUserData } from '../../../tools/user-data.ts';
import { requires } from '../../support/requires.ts';

let dir = '';
beforeAll(() => {
  dir = mkdtempSync(path.join(tmpdir(), 'provision-'));
  chmodSync(dir, 0o755);
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

const URL = 'https://swift/v1/AUTH_x/c/set?temp_url_sig=0123&temp_url_expires=1&temp_url_prefix=set';

test('user data is cloud-config that writes the document, closed to others', () => {
  const provision = { version: 1 as const, data: { set: { url: URL } } };
  const { text, encodedBytes } = provisionUserData(provision);
  expect(encodedBytes).toBe(Buffer.from(text).toString('base64').length);
  expect(text.startsWith('#cloud-config\n')).toBe(true);
  const [file, ...others] = parse(text).write_files;
  expect(others).toEqual([]);
  expect(file).toMatchObject({
    path: '/run/port-image/provision.json',
    permissions: '0600',
    owner: 'root:root',
  });
  expect(JSON.parse(file.content)).toEqual(provision);
});

const image: CloudImage = {
  platform: 'openstack',
  place: 'my cloud',
  id: '0b5d2c1e-1111-4222-8333-444455556666',
  name: 'shop',
  method: 'put',
  bytes: 1,
  sentBytes: 1,
  content: 'ok',
  proof: 'sha512 of the file',
  replaced: [],
  start: 'openstack server create shop',
  disks: [],
  details: { os_distro: 'debian', flavor: 'disk of 8 GiB' },
};

test('the text for people names the image, what it needs and how long the URLs live', () => {
  const artifact = { platform: 'openstack', path: '/o/shop.qcow2', format: 'qcow2', bytes: 1 } as Artifact;
  const input = {
    name: 'shop',
    store: 'swift:shop',
    firmware: 'bios' as const,
    artifacts: [artifact],
    dataSets: [{ id: 'set', path: '/srv', bytes: 5, mode: 'eager' as const }],
    arch: 'x86_64',
    hasNetworkData: false,
    provisioning: { signed: true, expires: '2026-01-02T00:00:00Z' },
    images: [image],
  };
  const text = handOver(input);
  for (const part of [
    image.id,
    '8 GiB',
    'os_distro: debian',
    'until 2026-01-02',
    'server create',
    'verified',
  ]) {
    expect(text).toContain(part);
  }
  expect(text).not.toContain('image create');
  expect(handOver({ ...input, images: [{ ...image, content: 'unverifiable' }] })).toContain('NOT verified');
});

test.skipIf(requires('qemu-img', 'qemu-storage-daemon'))(
  'the digest of a disk is that of its raw form, holes and all',
  async () => {
    const raw = path.join(dir, 'disk.raw');
    const qcow2 = path.join(dir, 'disk.qcow2');
    const content = Buffer.alloc(5 * 2 ** 20 + 512);
    content.fill('head', 0, 70_000);
    content.fill('tail', 4 * 2 ** 20 + 12_345, 5 * 2 ** 20 - 300);
    writeFileSync(raw, content);
    await run('qemu-img', ['convert', '-c', '-f', 'raw', '-O', 'qcow2', raw, qcow2]);
    const artifact: Artifact = {
      platform: 'openstack',
      path: qcow2,
      format: 'qcow2',
      bytes: statSync(qcow2).size,
      virtualBytes: content.length,
      sha256: 'of the file',
    };
    const ctx = {
      paths: { tmp: dir },
      signal: new AbortController().signal,
      log: silentLog,
    } as unknown as StageContext;
    const wanted = createHash('sha256').update(content).digest('hex');
    expect(await rawDigest(ctx, artifact)).toBe(wanted);
    expect(await rawDigest(ctx, { ...artifact, format: 'raw' })).toBe('of the file');
  },
);
