import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import * as path from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { MIB } from '../../../core/sizes.ts';
import { alibaba } from '../../../drivers/alibaba/index.ts';
import { AlibabaOptions } from '../../../drivers/alibaba/options.ts';
import { alibabaUploaderWith } from '../../../drivers/alibaba/uploader.ts';
import { type FaultProxy, startFaultProxy } from '../../support/fault-proxy.ts';
import { startMotoS3 } from '../../support/moto-s3.ts';
import { serviceProgram } from '../../support/services.ts';
import { artifactFile, uploadContext } from '../../support/upload-context.ts';
import { startEcsServer } from './ecs-server.ts';

const program = await serviceProgram('moto');
const uploader = alibabaUploaderWith({ pollMs: 5, stuckMs: 200 });

describe.skipIf(program === undefined)('images in Alibaba Cloud (moto as its S3 gate)', () => {
  const dir = mkdtempSync(path.join(tmpdir(), 'port-image-alibaba-'));
  let s3: Awaited<ReturnType<typeof startMotoS3>>;
  let proxy: FaultProxy;
  let ecs: Awaited<ReturnType<typeof startEcsServer>>;

  beforeAll(async () => {
    s3 = await startMotoS3(program ?? '', 'images');
    proxy = await startFaultProxy(s3.url);
  });
  afterAll(async () => {
    await proxy?.close();
    await s3?.stop();
    rmSync(dir, { recursive: true });
  });
  beforeEach(async () => {
    ecs = await startEcsServer();
    process.env.ALIBABA_CLOUD_ACCESS_KEY_ID = 'test';
    process.env.ALIBABA_CLOUD_ACCESS_KEY_SECRET = 'secret';
    proxy.reset();
  });
  afterEach(async () => {
    // each test: nothing was sent that Alibaba's metadata does not know
    expect(ecs.problems).toEqual([]);
    await ecs.close();
  });
  const options = (more: object = {}) =>
    AlibabaOptions.parse({
      region: 'eu-central-1',
      bucket: 'images',
      endpoints: { storage: proxy.url, compute: ecs.url },
      ...more,
    });
  const plan = { older: [] };

  test('one image of all disks is imported, a second run finds it, the files are removed', async () => {
    const files = [
      artifactFile(dir, alibaba, 2 * MIB),
      artifactFile(dir, alibaba, MIB, { disk: 'sdb', virtualBytes: 5 * 2 ** 30 + 1 }),
    ];
    const ctx = uploadContext(dir, alibaba, options(), files);
    await uploader.plan(ctx);
    const made = await uploader.upload(ctx, plan);
    expect(made).toMatchObject({ sentBytes: 3 * MIB, content: 'unverifiable' });
    expect(made.name).toBe(`shop01-2026.01.02-${ctx.mark.slice(0, 6)}`);
    expect(ecs.images.get(made.id)?.given).toMatchObject({
      Architecture: 'x86_64',
      BootMode: 'BIOS',
      Platform: 'Debian',
      RoleName: 'AliyunECSImageImportDefaultRole',
      'DiskDeviceMapping.1.DiskImageSize': '2',
      'DiskDeviceMapping.2.DiskImageSize': '6',
      'DiskDeviceMapping.2.OSSBucket': 'images',
    });
    expect(await s3.keys()).toEqual([]);
    expect(await uploader.upload(ctx, plan)).toMatchObject({ id: made.id, sentBytes: 0 });
    expect(ecs.images.size).toBe(1);
  });

  test('older images stay, are removed, or refuse the new one', async () => {
    const old = await uploader.upload(
      uploadContext(dir, alibaba, options(), [artifactFile(dir, alibaba, MIB)]),
      plan,
    );
    const fail = uploadContext(dir, alibaba, options({ onExists: 'fail' }), [
      artifactFile(dir, alibaba, MIB),
    ]);
    await expect(uploader.plan(fail)).rejects.toMatchObject({ code: 'CLOUD_CONFLICT' });
    await expect(uploader.upload(fail, plan)).rejects.toMatchObject({ code: 'CLOUD_CONFLICT' });
    const replace = options({ onExists: 'replace' });
    const next = uploadContext(dir, alibaba, replace, [artifactFile(dir, alibaba, MIB)]);
    const made = await uploader.upload(next, await uploader.plan(next));
    expect(made.replaced).toEqual([{ id: old.id, action: 'deleted' }]);
    expect([...ecs.images.keys()]).toEqual([made.id]);
  });

  test('throttling and server faults are gone through, nothing is made twice', async () => {
    ecs.manner.failing = { status: 400, code: 'Throttling.User', times: 2 };
    proxy.on({ method: 'PUT', times: 1 }, { status: 503 });
    const ctx = uploadContext(dir, alibaba, options(), [artifactFile(dir, alibaba, MIB)]);
    await uploader.upload(ctx, plan);
    expect(ecs.images.size).toBe(1);
  });

  test('each refusal says what to do', async () => {
    const ctx = uploadContext(dir, alibaba, options(), [artifactFile(dir, alibaba, MIB)]);
    const refused = async (code: string) => {
      ecs.manner.failing = { status: 400, code, times: 1, action: 'ImportImage' };
      return uploader.upload(ctx, plan).catch((e: unknown) => e);
    };
    // the spelling of the API
    expect(await refused('NoSetRoletoECSServiceAcount')).toMatchObject({
      code: 'CLOUD_REFUSED',
      hint: expect.stringContaining('AliyunECSImageImportDefaultRole'),
    });
    expect(await refused('QuotaExceed.Image')).toMatchObject({
      code: 'CLOUD_REFUSED',
      hint: expect.stringContaining('quota'),
    });
    expect(await refused('InvalidSecurityToken.Expired')).toMatchObject({ code: 'CLOUD_LOGIN' });
    expect(await refused('InvalidImageName.Duplicated')).toMatchObject({ code: 'CLOUD_CONFLICT' });
    process.env.ALIBABA_CLOUD_ACCESS_KEY_SECRET = 'wrong';
    const { signal } = new AbortController();
    await expect(uploader.login?.(options(), signal)).rejects.toMatchObject({ code: 'CLOUD_LOGIN' });
  });

  test('a failed import is removed; a stuck one is waited for by the next run', async () => {
    const ctx = uploadContext(dir, alibaba, options(), [artifactFile(dir, alibaba, MIB)]);
    ecs.manner.end = 'Failed';
    await expect(uploader.upload(ctx, plan)).rejects.toThrow(/task t-test1 failed/);
    expect(ecs.images.size).toBe(0);
    ecs.manner.polls = 1_000_000;
    await expect(uploader.upload(ctx, plan)).rejects.toThrow(/has not moved/);
    expect(ecs.images.size).toBe(1);
    // even when its state was never written
    rmSync(ctx.stateFile);
    for (const image of ecs.images.values()) image.Status = 'Available';
    expect(await uploader.upload(ctx, plan)).toMatchObject({ sentBytes: 0 });
    expect(ecs.images.size).toBe(1);
  });
});
