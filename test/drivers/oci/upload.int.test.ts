import { mkdtempSync, rmSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import * as path from 'node:path';
import { GetObjectCommand } from '@aws-sdk/client-s3';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { MIB } from '../../../core/sizes.ts';
import { oci } from '../../../drivers/oci/index.ts';
import { OciOptions } from '../../../drivers/oci/options.ts';
import { ociUploaderWith } from '../../../drivers/oci/uploader.ts';
import { S3Bucket } from '../../../tools/s3-put.ts';
import { type FaultProxy, startFaultProxy } from '../../support/fault-proxy.ts';
import { startMotoS3 } from '../../support/moto-s3.ts';
import { serviceProgram } from '../../support/services.ts';
import { sampleFacts } from '../../support/tree-guest.ts';
import { artifactFile, uploadContext } from '../../support/upload-context.ts';
import { startOciServer } from './compute-server.ts';

const program = await serviceProgram('moto');
const uploader = ociUploaderWith({ pollMs: 5, stuckMs: 200 });
const COMPARTMENT = 'ocid1.compartment.oc1..c';

describe.skipIf(program === undefined)('images in Oracle Cloud (moto as its S3 gate)', () => {
  const dir = mkdtempSync(path.join(tmpdir(), 'port-image-oci-'));
  let s3: Awaited<ReturnType<typeof startMotoS3>>;
  let proxy: FaultProxy;
  let compute: Awaited<ReturnType<typeof startOciServer>>;

  beforeAll(async () => {
    s3 = await startMotoS3(program ?? '', 'images');
    proxy = await startFaultProxy(s3.url);
    process.env.AWS_ACCESS_KEY_ID = 'test';
    process.env.AWS_SECRET_ACCESS_KEY = 'test';
  });
  afterAll(async () => {
    await proxy?.close();
    await s3?.stop();
    rmSync(dir, { recursive: true });
  });
  beforeEach(async () => {
    compute = await startOciServer(dir);
    process.env.OCI_CLI_CONFIG_FILE = compute.config;
    proxy.reset();
  });
  afterEach(async () => {
    // each test: nothing was sent that Oracle's model does not know
    expect(compute.problems).toEqual([]);
    await compute.close();
  });
  const options = (more: object = {}) =>
    OciOptions.parse({
      compartment: COMPARTMENT,
      namespace: 'ns',
      bucket: 'images',
      endpoints: { storage: proxy.url, compute: compute.url },
      ...more,
    });
  const plan = { region: '', older: [] };

  test('an image is imported from the file, a second run finds it, the file is removed', async () => {
    const image = artifactFile(dir, oci, 3 * MIB);
    const ctx = uploadContext(dir, oci, options(), [image]);
    expect(await uploader.plan(ctx)).toEqual({ region: 'eu-frankfurt-1', older: [] });
    const made = await uploader.upload(ctx, plan);
    expect(made).toMatchObject({ name: 'shop01', sentBytes: image.bytes, content: 'unverifiable' });
    expect(compute.images.get(made.id)).toMatchObject({
      lifecycleState: 'AVAILABLE',
      launchMode: 'PARAVIRTUALIZED',
      source: { bucketName: 'images', namespaceName: 'ns', sourceImageType: 'QCOW2' },
      freeformTags: { 'port-image-job': ctx.mark },
    });
    expect(await s3.keys()).toEqual([]);
    expect(await uploader.upload(ctx, plan)).toMatchObject({ id: made.id, sentBytes: 0 });
    expect(compute.images.size).toBe(1);
  });

  test('UEFI is asked for by the start command; a further disk is refused before anything is sent', async () => {
    const facts = sampleFacts({ firmware: 'uefi' });
    const ctx = uploadContext(dir, oci, options({ keepObject: true }), [artifactFile(dir, oci, MIB)], {
      facts,
    });
    await uploader.plan(ctx);
    expect(ctx.told.warnings).toEqual([expect.stringContaining('UEFI_64')]);
    const made = await uploader.upload(ctx, plan);
    expect(made.start).toContain('"firmware":"UEFI_64"');
    const [key = ''] = await s3.keys();
    const object = await s3.client.send(new GetObjectCommand({ Bucket: 'images', Key: key }));
    const content = Buffer.from((await object.Body?.transformToByteArray()) ?? []);
    expect(content.equals(await readFile(ctx.artifacts[0]?.path ?? ''))).toBe(true);
    const [disk] = facts.disks;
    const two = { ...facts, disks: [...facts.disks, { ...(disk as NonNullable<typeof disk>), id: 'sdb' }] };
    await expect(uploader.plan({ ...ctx, facts: two })).rejects.toMatchObject({ code: 'CLOUD_REFUSED' });
  });

  test('older images stay, are removed, or refuse the new one', async () => {
    const first = uploadContext(dir, oci, options(), [artifactFile(dir, oci, MIB)]);
    const old = await uploader.upload(first, plan);
    const fail = uploadContext(dir, oci, options({ onExists: 'fail' }), [artifactFile(dir, oci, MIB)]);
    await expect(uploader.plan(fail)).rejects.toMatchObject({ code: 'CLOUD_CONFLICT' });
    await expect(uploader.upload(fail, plan)).rejects.toMatchObject({ code: 'CLOUD_CONFLICT' });
    const next = uploadContext(dir, oci, options({ onExists: 'replace' }), [artifactFile(dir, oci, MIB)]);
    expect((await uploader.plan(next)).older).toEqual([old.id]);
    const made = await uploader.upload(next, plan);
    expect(made.replaced).toEqual([{ id: old.id, action: 'deleted' }]);
    expect([...compute.images.keys()]).toEqual([made.id]);
  });

  test('throttling and server faults are gone through, nothing is made twice', async () => {
    compute.manner.failing = { status: 429, code: 'TooManyRequests', times: 2 };
    proxy.on({ method: 'PUT', times: 1 }, { status: 503 });
    proxy.on({ method: 'PUT', times: 1 }, { cutRequest: { fraction: 0.5 } });
    const ctx = uploadContext(dir, oci, options(), [artifactFile(dir, oci, MIB)]);
    await uploader.upload(ctx, plan);
    expect(compute.images.size).toBe(1);
  });

  test('wrong keys, a used-up limit, a failed and a stuck import are told as such', async () => {
    const { signal } = new AbortController();
    await expect(uploader.login?.(options({ profile: 'WRONG' }), signal)).rejects.toMatchObject({
      code: 'CLOUD_LOGIN',
    });
    const ctx = uploadContext(dir, oci, options(), [artifactFile(dir, oci, MIB)]);
    compute.manner.failing = { status: 400, code: 'LimitExceeded', times: 1, method: 'POST' };
    await expect(uploader.upload(ctx, plan)).rejects.toMatchObject({
      code: 'CLOUD_REFUSED',
      hint: expect.stringContaining('limit'),
    });
    compute.manner.end = 'DISABLED';
    await expect(uploader.upload(ctx, plan)).rejects.toMatchObject({ code: 'CLOUD' });
    // removed by the next run, which begins anew
    compute.manner.polls = 1_000_000;
    await expect(uploader.upload(ctx, plan)).rejects.toThrow(/still IMPORTING/);
    expect(compute.images.size).toBe(1);
    for (const image of compute.images.values()) image.lifecycleState = 'AVAILABLE';
    expect(await uploader.upload(ctx, plan)).toMatchObject({ sentBytes: 0 });
  });

  test('what a broken run sent is not sent again', async () => {
    const file = artifactFile(dir, oci, 33 * MIB);
    const open = () =>
      S3Bucket.open({
        endpoint: proxy.url,
        region: 'us-east-1',
        bucket: 'images',
        pathStyle: true,
        loginHint: '',
      });
    const put = async () => {
      const bucket = await open();
      const { signal } = new AbortController();
      const { path: name, bytes, sha256 } = file;
      return bucket
        .putFile({ file: name, bytes, sha256, key: 'r/x', partBytes: 6 * MIB, signal, onBytes: () => {} })
        .finally(() => bucket.close());
    };
    const refused = proxy.on({ method: 'PUT', path: /partNumber=6/ }, { status: 403 });
    await expect(put()).rejects.toMatchObject({ code: 'CLOUD_REFUSED' });
    refused();
    const sent = await put();
    expect(sent).toBeGreaterThanOrEqual(3 * MIB);
    expect(sent).toBeLessThan(file.bytes);
    const object = await s3.client.send(new GetObjectCommand({ Bucket: 'images', Key: 'r/x' }));
    const content = Buffer.from((await object.Body?.transformToByteArray()) ?? []);
    expect(content.equals(await readFile(file.path))).toBe(true);
    expect(await put()).toBe(0);
  });

  test('keys the gate does not accept, and a bucket that is not there', async () => {
    proxy.on(
      { method: 'PUT', times: 1 },
      {
        status: 403,
        headers: { 'content-type': 'application/xml' },
        body: '<Error><Code>InvalidAccessKeyId</Code><Message>no</Message></Error>',
      },
    );
    const ctx = uploadContext(dir, oci, options(), []);
    await expect(uploader.plan(ctx)).rejects.toMatchObject({
      code: 'CLOUD_LOGIN',
      hint: expect.stringContaining('customer secret key'),
    });
    const none = uploadContext(dir, oci, options({ bucket: 'none' }), []);
    await expect(uploader.plan(none)).rejects.toMatchObject({ code: 'CLOUD_REFUSED' });
  });
});
