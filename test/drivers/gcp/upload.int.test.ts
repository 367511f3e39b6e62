import { mkdtempSync, rmSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import * as path from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { MIB } from '../../../core/sizes.ts';
import { gcp } from '../../../drivers/gcp/index.ts';
import { GcpOptions } from '../../../drivers/gcp/options.ts';
import { gcpUploaderWith } from '../../../drivers/gcp/uploader.ts';
import { GcsBucket } from '../../../tools/gcp/bucket.ts';
import { putInParts } from '../../../tools/gcp/put-parts.ts';
import { type FaultProxy, startFaultProxy } from '../../support/fault-proxy.ts';
import { serviceProgram } from '../../support/services.ts';
import { artifactFile, uploadContext } from '../../support/upload-context.ts';
import { type ComputeServer, startComputeServer } from './compute-server.ts';
import { startFakeGcs } from './fake-gcs.ts';

const program = await serviceProgram('fake-gcs');
const BUCKET = 'images-1';
const uploader = gcpUploaderWith({ pollMs: 10, stuckMs: 300 });

describe.skipIf(program === undefined)('images in Google Cloud (fake-gcs-server)', () => {
  const dir = mkdtempSync(path.join(tmpdir(), 'port-image-gcp-'));
  let gcs: Awaited<ReturnType<typeof startFakeGcs>>;
  let proxy: FaultProxy;
  let compute: ComputeServer;

  beforeAll(async () => {
    gcs = await startFakeGcs(program ?? '', BUCKET);
    proxy = await startFaultProxy(gcs.url);
  });
  afterAll(async () => {
    await proxy?.close();
    await gcs?.stop();
    rmSync(dir, { recursive: true });
  });
  const fresh = async () => {
    compute = await startComputeServer(dir);
    process.env.GOOGLE_APPLICATION_CREDENTIALS = compute.credentials;
    proxy.reset();
  };
  afterEach(async () => {
    // each test: nothing was sent that Google's document does not know
    expect(compute.problems).toEqual([]);
    await compute.close();
    delete process.env.GOOGLE_APPLICATION_CREDENTIALS;
    await gcs.bucket.deleteFiles({ force: true });
  });
  const objects = async () => (await gcs.bucket.getFiles())[0].map((f) => f.name);
  const options = (more: object = {}) =>
    GcpOptions.parse({
      project: 'shop-1',
      bucket: BUCKET,
      endpoints: { storage: proxy.url, compute: compute.url },
      ...more,
    });

  test('an image is made of the archive, a second run finds it, nothing is left in the bucket', async () => {
    await fresh();
    const image = artifactFile(dir, gcp, 3 * MIB);
    const ctx = uploadContext(dir, gcp, options(), [image]);
    const plan = await uploader.plan(uploadContext(dir, gcp, options(), [], { mark: ctx.mark }));
    expect(await objects()).toEqual([]);
    const made = await uploader.upload(ctx, plan);
    expect(made).toMatchObject({
      name: `shop01-2026-01-02-${ctx.mark.slice(0, 6)}`,
      place: 'shop-1',
      bytes: image.bytes,
      sentBytes: image.bytes,
      content: 'ok',
      details: { family: 'shop01' },
    });
    expect(compute.images.get(made.name)).toMatchObject({
      status: 'READY',
      architecture: 'X86_64',
      family: 'shop01',
      rawDisk: { containerType: 'TAR' },
      labels: { 'port-image-job': ctx.mark },
    });
    expect(made.start).toContain('gcloud compute instances create shop01 ');
    expect(await objects()).toEqual([]);
    const before = proxy.sentBytes();
    expect(await uploader.upload(ctx, plan)).toMatchObject({ name: made.name, sentBytes: 0 });
    expect(proxy.sentBytes() - before).toBe(0);
    expect(compute.calls.filter((c) => c.endsWith('insert'))).toHaveLength(1);
  });

  test('what Compute Engine is told to read is the file, byte by byte', async () => {
    await fresh();
    const image = artifactFile(dir, gcp, MIB + 17);
    const ctx = uploadContext(dir, gcp, options({ keepObject: true, prefix: 'a/b' }), [image]);
    await uploader.upload(ctx, { family: '', older: [] });
    const [made] = compute.images.values();
    const { rawDisk } = made as unknown as { rawDisk: { source: string } };
    const name = rawDisk.source.replace(`https://storage.googleapis.com/${BUCKET}/`, '');
    expect(await objects()).toEqual([name]);
    const [content] = await gcs.bucket.file(name).download();
    expect(content.equals(await readFile(image.path))).toBe(true);
  });

  test('older images of the family are deprecated or removed, those of others stay', async () => {
    await fresh();
    const old = (name: string, labels: Record<string, string>) =>
      compute.images.set(name, {
        name,
        status: 'READY',
        family: 'shop01',
        labels,
        creationTimestamp: '2020-01-01T00:00:00Z',
      });
    old('shop01-1', { 'port-image-job': 'aa', 'port-image-family': 'shop01' });
    old('shop01-foreign', {});
    const image = artifactFile(dir, gcp, MIB);
    const ctx = uploadContext(dir, gcp, options(), [image]);
    const plan = await uploader.plan(ctx);
    expect(plan.older).toEqual(['shop01-1']);
    const made = await uploader.upload(ctx, plan);
    expect(made.replaced).toEqual([{ id: 'shop01-1', action: 'deprecated' }]);
    expect(compute.images.get('shop01-1')?.deprecated).toMatchObject({ state: 'DEPRECATED' });
    expect(compute.images.get('shop01-foreign')?.deprecated).toBeUndefined();
    const next = uploadContext(dir, gcp, options({ onExists: 'replace' }), [image], {
      identity: { version: '2026.01.03' },
    });
    const replaced = (await uploader.upload(next, plan)).replaced.map((r) => r.id).sort();
    expect(replaced).toEqual(['shop01-1', made.name]);
    expect([...compute.images.keys()].sort()).toEqual([
      `shop01-2026-01-03-${next.mark.slice(0, 6)}`,
      'shop01-foreign',
    ]);
  });

  test('a name somebody else has is refused, before a byte is sent', async () => {
    await fresh();
    compute.images.set('shop01', { name: 'shop01', status: 'READY', labels: {} });
    const fail = options({ onExists: 'fail' });
    const ctx = uploadContext(dir, gcp, fail, [artifactFile(dir, gcp, MIB)]);
    await expect(uploader.plan(ctx)).rejects.toMatchObject({ code: 'CLOUD_CONFLICT' });
    await expect(uploader.upload(ctx, { family: '', older: [] })).rejects.toMatchObject({
      code: 'CLOUD_CONFLICT',
    });
    expect(await objects()).toEqual([]);
    expect(compute.images.size).toBe(1);
  });

  test('a quota that is used up is told in the plan; one that is met later removes the failed image', async () => {
    await fresh();
    compute.manner.quota = { limit: 5, usage: 5 };
    await expect(uploader.plan(uploadContext(dir, gcp, options(), []))).rejects.toMatchObject({
      code: 'CLOUD_REFUSED',
      message: expect.stringContaining('5 of 5'),
    });
    compute.manner.insertError = { code: 'QUOTA_EXCEEDED', message: "Quota 'IMAGES' exceeded" };
    const ctx = uploadContext(dir, gcp, options(), [artifactFile(dir, gcp, MIB)]);
    await expect(uploader.upload(ctx, { family: '', older: [] })).rejects.toMatchObject({
      code: 'CLOUD_REFUSED',
      hint: expect.stringContaining('quota'),
    });
    expect(compute.images.size).toBe(0);
    // the archive stays for the next run, which has nothing to send
    compute.manner.insertError = undefined;
    expect(await uploader.upload(ctx, { family: '', older: [] })).toMatchObject({ sentBytes: 0 });
  });

  test('throttling, server faults and tokens that end are gone through', async () => {
    await fresh();
    compute.manner.failing = { status: 503, reason: 'backendError', times: 2 };
    compute.manner.tokenAnswers = 3;
    proxy.on({ method: 'POST', path: /upload/, times: 1 }, { status: 429 });
    proxy.on({ method: 'POST', path: /compose/, times: 1 }, { status: 503 });
    const ctx = uploadContext(dir, gcp, options(), [artifactFile(dir, gcp, MIB)]);
    expect(await uploader.upload(ctx, await uploader.plan(ctx))).toMatchObject({ content: 'ok' });
    expect(compute.tokens).toBeGreaterThan(1);
  });

  test('credentials that are not accepted are told as such', async () => {
    await fresh();
    compute.manner.tokenAnswers = 0;
    await expect(uploader.login?.(options(), new AbortController().signal)).rejects.toMatchObject({
      code: 'CLOUD_LOGIN',
      hint: expect.stringContaining('gcloud auth'),
    });
    process.env.GOOGLE_APPLICATION_CREDENTIALS = path.join(dir, 'none.json');
    await expect(uploader.login?.(options(), new AbortController().signal)).rejects.toMatchObject({
      code: 'CLOUD_LOGIN',
    });
  });

  test('an operation that never ends is given up, and waited for by the next run', async () => {
    await fresh();
    compute.manner.polls = 1_000_000;
    const ctx = uploadContext(dir, gcp, options(), [artifactFile(dir, gcp, MIB)]);
    await expect(uploader.upload(ctx, { family: '', older: [] })).rejects.toMatchObject({
      code: 'CLOUD',
      message: expect.stringContaining('has not moved'),
    });
    const [image] = compute.images.values();
    if (image !== undefined) image.status = 'READY';
    expect(await uploader.upload(ctx, { family: '', older: [] })).toMatchObject({ sentBytes: 0 });
    expect(compute.calls.filter((c) => c.endsWith('insert'))).toHaveLength(1);
  });

  test('an image of another size than the disk is removed', async () => {
    await fresh();
    compute.manner.diskSizeGb = '1';
    const ctx = uploadContext(dir, gcp, options(), [artifactFile(dir, gcp, MIB)]);
    await expect(uploader.upload(ctx, { family: '', older: [] })).rejects.toMatchObject({
      code: 'CLOUD_MISMATCH',
    });
    expect(compute.images.size).toBe(0);
  });

  describe('an archive in parts', () => {
    const put = async (file: { path: string; bytes: number }, partBytes: number) => {
      const bucket = await GcsBucket.open(BUCKET, { endpoint: proxy.url });
      return putInParts(bucket, {
        file: file.path,
        bytes: file.bytes,
        name: 'x/disk.tar.gz',
        contentType: 'application/gzip',
        partBytes,
        signal: new AbortController().signal,
        onBytes: () => {},
      }).finally(() => bucket.close());
    };
    const content = async () => (await gcs.bucket.file('x/disk.tar.gz').download())[0];

    test('what a broken run sent is not sent again', async () => {
      await fresh();
      const file = artifactFile(dir, gcp, 8 * MIB + 5);
      const refused = proxy.on({ method: 'POST', path: /upload.*part-0006/ }, { status: 403 });
      await expect(put(file, MIB)).rejects.toMatchObject({ code: 'CLOUD_REFUSED' });
      refused();
      const left = (await objects()).length;
      expect(left).toBeGreaterThan(2);
      const { sentBytes } = await put(file, MIB);
      expect(sentBytes).toBeLessThanOrEqual(file.bytes - (left - 1) * MIB);
      expect(await objects()).toEqual(['x/disk.tar.gz']);
      expect((await content()).equals(await readFile(file.path))).toBe(true);
    });

    test('a connection that is cut in the middle of a part', async () => {
      await fresh();
      const file = artifactFile(dir, gcp, 3 * MIB);
      proxy.on({ method: 'POST', path: /upload/, times: 2 }, { cutRequest: { fraction: 0.5 } });
      // the part is there, its answer is lost
      proxy.on({ method: 'POST', path: /upload/, times: 1 }, { cutResponse: { bytes: 0 } });
      await put(file, MIB);
      expect((await content()).equals(await readFile(file.path))).toBe(true);
    });

    test('more parts than one call joins', async () => {
      await fresh();
      const file = artifactFile(dir, gcp, 40 * 65_536 + 1);
      await put(file, 65_536);
      expect(await objects()).toEqual(['x/disk.tar.gz']);
      expect((await content()).equals(await readFile(file.path))).toBe(true);
    });

    test('a part that arrives damaged is not believed', async () => {
      await fresh();
      const file = artifactFile(dir, gcp, 2 * MIB);
      proxy.on({ method: 'POST', path: /upload.*part-0001/, times: 1 }, { flipRequestByte: 100_000 });
      const { sentBytes } = await put(file, MIB);
      expect(sentBytes).toBe(3 * MIB);
      expect((await content()).equals(await readFile(file.path))).toBe(true);
    });
  });
});
