import { createHash, randomBytes } from 'node:crypto';
import { CreateBucketCommand, ListMultipartUploadsCommand, S3Client } from '@aws-sdk/client-s3';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { MIB } from '../../../core/sizes.ts';
import { openStore } from '../../../drivers/stores/index.ts';
import { S3Store } from '../../../drivers/stores/s3.ts';
import { type FaultProxy, startFaultProxy } from '../../support/fault-proxy.ts';
import { serviceProgram } from '../../support/services.ts';
import { type Service, startMoto } from '../../tools/ebs/moto.ts';
import { bytesOf, keysOf, oddChunks } from './streams.ts';

const program = await serviceProgram('moto');
const sha256 = (data: Uint8Array) => createHash('sha256').update(data).digest('hex');
const KEYS = { AWS_ACCESS_KEY_ID: 'test', AWS_SECRET_ACCESS_KEY: 'test' };
const before = { ...process.env };

describe.skipIf(program === undefined)(
  `a store in S3 (moto${program === undefined ? ', not to be had' : ''})`,
  () => {
    let moto: Service;
    let proxy: FaultProxy;
    let client: S3Client;
    let count = 0;
    const store = () => new S3Store(`data-sets/p${count}/x?endpoint=${proxy.url}`);
    const unfinished = async () =>
      (await client.send(new ListMultipartUploadsCommand({ Bucket: 'data-sets' }))).Uploads ?? [];

    beforeAll(async () => {
      Object.assign(process.env, KEYS);
      moto = await startMoto(program ?? '');
      proxy = await startFaultProxy(moto.url);
      client = new S3Client({ region: 'us-east-1', endpoint: moto.url, forcePathStyle: true });
      await client.send(new CreateBucketCommand({ Bucket: 'data-sets' }));
    });
    afterAll(async () => {
      for (const name of Object.keys(KEYS)) {
        if (before[name] === undefined) delete process.env[name];
        else process.env[name] = before[name];
      }
      client?.destroy();
      await proxy?.close();
      await moto?.stop();
    });
    beforeEach(() => {
      proxy.reset();
      count += 1;
    });

    test('puts, gets with ranges, heads, lists and removes', async () => {
      const s = store();
      await s.check();
      const data = randomBytes(300_000);
      const put = await s.put('a/segments/1.tar', oddChunks(data), { bytes: data.length });
      expect(put).toMatchObject({ bytes: data.length, sha256: sha256(data) });
      expect((await bytesOf(await s.get('a/segments/1.tar'))).equals(data)).toBe(true);
      const part = await s.get('a/segments/1.tar', { offsetBytes: 1000, lengthBytes: 5 });
      expect((await bytesOf(part)).equals(data.subarray(1000, 1005))).toBe(true);
      expect(await bytesOf(await s.get('a/segments/1.tar', { offsetBytes: 300_000 }))).toHaveLength(0);
      expect(await s.head('a/segments/1.tar')).toMatchObject({ bytes: data.length });
      expect(await s.head('a/nothing')).toBeUndefined();
      await expect(s.get('a/nothing')).rejects.toMatchObject({ code: 'STORE', temporary: false });
      await s.put('a/manifest.json', oddChunks(Buffer.from('{}')));
      await s.put('a-b/x', oddChunks(Buffer.alloc(0)), { maxBytes: 10 });
      expect(await bytesOf(await s.get('a-b/x'))).toHaveLength(0);
      expect(await keysOf(s.list(''))).toEqual(['a-b/x', 'a/manifest.json', 'a/segments/1.tar']);
      expect(await keysOf(s.list('a/seg'))).toEqual(['a/segments/1.tar']);
      expect(await keysOf(s.ids())).toEqual(['a', 'a-b']);
      for (const key of ['a/segments/1.tar', 'a/segments/1.tar', 'a/manifest.json']) await s.remove(key);
      expect(await keysOf(s.list(''))).toEqual(['a-b/x']);
      await s.close();
    });

    test.each([0, 1])('content of whole parts and %i bytes more', async (more) => {
      const s = store();
      const data = randomBytes(32 * MIB + more);
      expect(await s.put('a/x', oddChunks(data))).toMatchObject({ bytes: data.length, sha256: sha256(data) });
      expect(sha256(await bytesOf(await s.get('a/x')))).toBe(sha256(data));
      const whole = data.subarray(0, 16 * MIB);
      await s.put('a/x', oddChunks(whole));
      expect(sha256(await bytesOf(await s.get('a/x')))).toBe(sha256(whole));
      expect(await unfinished()).toEqual([]);
      await s.close();
    });

    test('a put that is refused in the middle leaves nothing; a killed one is swept', async () => {
      const s = store();
      const data = randomBytes(33 * MIB);
      const refused = proxy.on({ method: 'PUT', path: /partNumber=2/ }, { status: 403 });
      await expect(s.put('a/x', oddChunks(data))).rejects.toMatchObject({ code: 'CLOUD_REFUSED' });
      expect(await s.head('a/x')).toBeUndefined();
      expect(await unfinished()).toEqual([]);
      // A kill cannot clean up: the request that would is lost.
      proxy.on({ method: 'DELETE', path: /uploadId=/ }, { status: 500 });
      await s.put('a/x', oddChunks(data)).catch(() => {});
      expect(await unfinished()).toHaveLength(1);
      refused();
      proxy.reset();
      expect(await s.sweep('b')).toBe(0);
      expect(await s.sweep('a')).toBe(1);
      expect(await unfinished()).toEqual([]);
      await s.close();
    });

    test('cut connections, throttling and damage on the way', async () => {
      const s = store();
      const data = randomBytes(2 * MIB);
      proxy.on({ method: 'PUT', path: /a\/x/, times: 1 }, { cutRequest: { fraction: 0.5 } });
      proxy.on({ method: 'PUT', path: /a\/x/, times: 1 }, { status: 503 });
      await s.put('a/x', oddChunks(data), { bytes: data.length });
      proxy.on({ method: 'GET', path: /a\/x/, times: 2 }, { cutResponse: { fraction: 0.3 } });
      proxy.on({ method: 'GET', path: /a\/x/, times: 1 }, { status: 503 });
      expect((await bytesOf(await s.get('a/x'))).equals(data)).toBe(true);
      await expect(s.put('a/y', oddChunks(data), { bytes: 5 })).rejects.toMatchObject({
        code: 'STORE_MISMATCH',
      });
      expect(await s.head('a/y')).toBeUndefined();
      await s.close();
    });

    test('places and keys that are none, and a bucket that is not there', async () => {
      for (const bad of [
        'A',
        'b',
        'bucket/../x',
        'bucket/x?y=1',
        'bucket//x',
        'bucket?endpoint=http://s3.example',
      ]) {
        expect(() => new S3Store(bad)).toThrow(expect.objectContaining({ code: 'USAGE' }));
      }
      expect(openStore('s3:bucket').url).toBe('s3:bucket/port-image');
      await expect(store().put('a', oddChunks(Buffer.alloc(1)))).rejects.toMatchObject({
        code: 'UNSAFE_PATH',
      });
      const none = new S3Store(`no-such-bucket?endpoint=${proxy.url}`);
      await expect(none.check()).rejects.toMatchObject({ code: 'CLOUD_REFUSED' });
      await none.close();
    });
  },
);
