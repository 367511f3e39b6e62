import { execFile, spawn } from 'node:child_process';
import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { bytesOf, chunked, MIB, md5, random, type SwiftWorld, swiftWorld } from './swift-world.ts';

const run = promisify(execFile);
const CHILD = path.join(import.meta.dirname, 'swift-kill-child.ts');
const data = random(48 * MIB + 3);
let world: SwiftWorld;
let file: string;
beforeAll(async () => {
  world = await swiftWorld('resume');
  file = path.join(world.project.dir, 'disk');
  await fs.writeFile(file, data);
});
afterAll(() => world?.close());
beforeEach(() => world.proxy.reset());

const sent = () => world.proxy.sentBytes({ method: 'PUT' });

/** Starts a run and kills it when so much of the data passed. */
async function killedAt(mode: string, fraction: number): Promise<void> {
  const child = spawn(process.execPath, [CHILD, world.project.cloudsYaml, mode, file], { stdio: 'inherit' });
  const ended = new Promise<NodeJS.Signals | null>((resolve) =>
    child.once('exit', (_code, by) => resolve(by)),
  );
  const watch = setInterval(() => {
    if (sent() > data.length * fraction) child.kill('SIGKILL');
  }, 2);
  expect(await ended).toBe('SIGKILL');
  clearInterval(watch);
}

test.each(['segments', 'stream', 'file'])(
  '%s: a run killed at 90 % sends less than 15 % again',
  async (mode) => {
    await killedAt(mode, 0.9);
    expect(sent()).toBeLessThan(data.length);
    world.proxy.reset();
    await run(process.execPath, [CHILD, world.project.cloudsYaml, mode, file]);
    expect(sent()).toBeGreaterThan(0);
    expect(sent()).toBeLessThan(data.length * 0.15);
    const api = await world.api();
    const store = world.store('killed');
    if (mode === 'segments') {
      for (let at = 0; at < data.length; at += MIB)
        expect(
          (await bytesOf(await store.get(`set/segments/${at}`))).equals(data.subarray(at, at + MIB)),
        ).toBe(true);
    } else {
      const [container, name] = mode === 'file' ? ['images', 'disk.qcow2'] : ['killed.set', 'big'];
      expect((await bytesOf(await api.getObject(container ?? '', name ?? ''))).equals(data)).toBe(true);
      const parts: string[] = [];
      for await (const o of api.listObjects(container ?? '', `${name}.parts/`)) parts.push(o.name);
      expect(parts).toHaveLength(49);
    }
    // and a third one nothing but questions
    world.proxy.reset();
    await run(process.execPath, [CHILD, world.project.cloudsYaml, mode, file]);
    expect(sent()).toBe(0);
  },
);

test('a file: what changed is sent, what it held before is readable until the new one is complete', async () => {
  const api = await world.api();
  await api.ensureContainer('images', 'image/1');
  const options = { partBytes: 4 * MIB, lanes: 3 };
  let counted = 0;
  const onBytes = (bytes: number) => {
    counted += bytes;
  };
  const first = await api.putFile('images', 'x', file, { ...options, onBytes });
  expect(first).toMatchObject({ bytes: data.length, sent: data.length });
  expect(counted).toBe(data.length);
  const joined = md5(Buffer.from(first.md5Parts.join('')));
  expect(first.etag).toBe(joined);
  expect((await api.headObject('images', 'x'))?.etag).toBe(joined);
  expect((await api.putFile('images', 'x', file, options)).sent).toBe(0);

  const other = Buffer.from(data);
  other.fill(1, 5 * MIB, 5 * MIB + 10);
  await fs.writeFile(`${file}.2`, other);
  world.proxy.on({ method: 'PUT', path: /multipart-manifest=put/, times: 1 }, { status: 403 });
  await expect(api.putFile('images', 'x', `${file}.2`, options)).rejects.toMatchObject({
    code: 'CLOUD_REFUSED',
  });
  expect((await bytesOf(await api.getObject('images', 'x'))).equals(data)).toBe(true);
  expect((await api.putFile('images', 'x', `${file}.2`, options)).sent).toBe(0);
  expect((await bytesOf(await api.getObject('images', 'x'))).equals(other)).toBe(true);
  await fs.truncate(`${file}.2`, 100);
  expect(await api.putFile('images', 'x', `${file}.2`, options)).toMatchObject({
    bytes: 100,
    etag: md5(other.subarray(0, 100)),
  });
  const left: string[] = [];
  for await (const o of api.listObjects('images', 'x')) left.push(o.name);
  expect(left).toEqual(['x']);
  await fs.writeFile(`${file}.0`, '');
  expect(await api.putFile('images', 'empty', `${file}.0`)).toMatchObject({ bytes: 0, sent: 0 });
  await api.removeObject('images', 'x');
  await expect(api.putFile('images', 'x', `${file}.none`)).rejects.toMatchObject({ code: 'HOST_IO' });
});

test('independent readers see and read it: swift, aws s3', async () => {
  const store = world.store('readers', { partBytes: 8 * MIB });
  await store.put('set/manifest.json', chunked(Buffer.from('{}')).content);
  await store.put('set/segments/000001.tar.zst', chunked(data).content);
  const { env, dir } = world.project;
  const listed = (await run('/usr/bin/swift', ['list', 'readers.set'], { env })).stdout.trim().split('\n');
  expect(listed.filter((n) => !n.includes('.parts/'))).toEqual(['manifest.json', 'segments/000001.tar.zst']);
  const stat = (await run('/usr/bin/swift', ['stat', 'readers.set', 'segments/000001.tar.zst'], { env }))
    .stdout;
  expect(stat).toContain(`Content Length: ${data.length}`);
  expect(stat).toMatch(/X-Static-Large-Object: True/i);
  const out = path.join(dir, 'read.swift');
  await run('/usr/bin/swift', ['download', 'readers.set', 'segments/000001.tar.zst', '-o', out], { env });
  expect((await fs.readFile(out)).equals(data)).toBe(true);
  const { access, secret } = await world.project.ec2();
  const s3 = {
    ...env,
    AWS_ACCESS_KEY_ID: access,
    AWS_SECRET_ACCESS_KEY: secret,
    AWS_DEFAULT_REGION: 'us-east-1',
  };
  const endpoint = ['--endpoint-url', world.cloud.objectStoreUrl];
  const target = path.join(dir, 'read.s3');
  const from = 's3://readers.set/segments/000001.tar.zst';
  await run('/usr/bin/aws', [...endpoint, 's3', 'cp', '--no-progress', from, target], { env: s3 });
  expect((await fs.readFile(target)).equals(data)).toBe(true);
});
