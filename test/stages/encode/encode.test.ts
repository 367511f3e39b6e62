import { createHash } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import * as fs from 'node:fs/promises';
import { tmpdir } from 'node:os';
import * as path from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { run } from '../../../core/command.ts';
import type { Facts } from '../../../core/facts.ts';
import { silentLog } from '../../../core/log.ts';
import type { Platform } from '../../../core/platform.ts';
import { Request } from '../../../core/request.ts';
import type { Progress, StageContext } from '../../../core/stage.ts';
import { stage } from '../../../stages/encode/index.ts';
import { planOutputs } from '../../../stages/encode/plan.ts';
import * as qemuImg from '../../../tools/qemu-img.ts';
import { requires } from '../../support/requires.ts';

const MIB = 1024 * 1024;

function platform(name: string, image: Partial<Platform['image']> = {}): Platform {
  return {
    name,
    title: name,
    image: { format: 'qcow2', extension: 'qcow2', alignBytes: MIB, source: 'test', ...image },
  } as Platform;
}

function request(more: Partial<Request> = {}): Request {
  return Request.parse({
    schema: 'port-image/request/1',
    source: '/disk.img',
    to: ['a'],
    name: 'web',
    store: 'file:/store',
    strip: 'none',
    network: 'dhcp',
    verify: false,
    ...more,
  });
}

describe('planOutputs', () => {
  test('platforms that want the same bytes share a file', () => {
    const outputs = planOutputs(request(), [platform('a'), platform('b')]);
    expect(outputs).toMatchObject([{ file: 'web.qcow2', platforms: ['a', 'b'], compress: true }]);
    expect(outputs[0]?.formatOptions.compression_type).toBe('zstd');
  });

  test('different files of one extension carry the platform', () => {
    const outputs = planOutputs(request({ encoding: 'compat' }), [
      platform('a'),
      platform('b', { alignBytes: 4 * MIB }),
    ]);
    expect(outputs.map((o) => o.file)).toEqual(['web-a.qcow2', 'web-b.qcow2']);
    expect(outputs[0]?.formatOptions.compression_type).toBe('zlib');
  });

  test('the encoding changes qcow2 only', () => {
    const vhd = platform('azure', {
      format: 'vpc',
      extension: 'vhd',
      formatOptions: { subformat: 'fixed', force_size: 'on' },
    });
    expect(planOutputs(request({ encoding: 'raw' }), [platform('a'), vhd])).toMatchObject([
      { file: 'web.raw', format: 'raw', compress: false },
      { file: 'web.vhd', format: 'vpc', formatOptions: { subformat: 'fixed' } },
    ]);
  });
});

describe.skipIf(requires('qemu-img'))('encode', () => {
  const dir = mkdtempSync(path.join(tmpdir(), 'port-image-encode-'));
  const base = path.join(dir, 'base.raw');
  const work = path.join(dir, 'work.qcow2');
  const out = path.join(dir, 'out');
  const tmp = path.join(dir, 'tmp');
  const progress: Progress[] = [];
  // an odd size, so that the result must be padded
  const virtualBytes = 20 * MIB + 512;

  function context(platforms: Platform[], more: Partial<Request> = {}): StageContext {
    const facts = {
      disks: [{ id: 'disk0', use: 'system', virtualBytes }],
      bootDisk: 0,
      mounts: [],
      filesystems: [{ type: 'ext4', usedBytes: 5 * MIB, sizeBytes: 19 * MIB }],
      candidates: [],
    } as unknown as Facts;
    return {
      request: request(more),
      paths: { dir, work, out, tmp },
      platforms,
      facts,
      signal: new AbortController().signal,
      result: () => undefined,
      log: silentLog,
      progress: (event: Progress) => progress.push(event),
      change: () => {},
      warn: () => {},
    } as unknown as StageContext;
  }

  beforeAll(async () => {
    await fs.mkdir(out);
    await fs.mkdir(tmp);
    await fs.writeFile(base, Buffer.alloc(3 * MIB, 'a server disk '));
    await fs.truncate(base, virtualBytes);
    await qemuImg.createOverlay({ path: base, format: 'raw' }, work);
    await run('qemu-io', ['-f', 'qcow2', '-c', 'write -P 77 10M 1M', work]);
  });
  afterAll(() => rmSync(dir, { recursive: true, force: true }));

  test.each(['zstd', 'compat', 'raw'] as const)('%s: padded, proven equal, described', async (encoding) => {
    const ctx = context([platform('a'), platform('b')], { encoding });
    const artifacts = await stage.run(ctx, await stage.plan(ctx));
    expect(artifacts.map((a) => a.platform)).toEqual(['a', 'b']);
    const [first] = artifacts;
    if (!first) throw new Error('no artifact');
    expect(first.virtualBytes).toBe(21 * MIB);
    const file = { path: first.path, format: first.format };
    await expect(qemuImg.info(file)).resolves.toMatchObject({
      virtualBytes: 21 * MIB,
      backingFile: undefined,
    });
    await expect(qemuImg.compare({ path: work, format: 'qcow2' }, file)).resolves.toBe(true);
    const content = await fs.readFile(first.path);
    expect(first.sha256).toBe(createHash('sha256').update(content).digest('hex'));
    const sidecar = JSON.parse(await fs.readFile(`${first.path}.json`, 'utf8')) as Record<string, unknown>;
    expect(sidecar).toMatchObject({ sha256: first.sha256, bytes: content.length, platforms: ['a', 'b'] });
    expect((await fs.stat(first.path)).mode & 0o777).toBe(0o600);
    expect(progress.some((p) => p.totalBytes !== undefined && p.doneBytes === p.totalBytes)).toBe(true);
  });

  test('a second run replaces the first and clears what a killed one left', async () => {
    await fs.writeFile(path.join(out, '.web.qcow2.0123456789ab.tmp'), 'half');
    const ctx = context([platform('a')]);
    await stage.run(ctx, await stage.plan(ctx));
    expect((await fs.readdir(out)).filter((name) => name.endsWith('.tmp'))).toEqual([]);
  });

  test('nothing half-made stays when it fails', async () => {
    const ctx = context([platform('a')]);
    const planned = await stage.plan(ctx);
    const before = await fs.readdir(out);
    const stopped = { ...ctx, signal: AbortSignal.abort() };
    await expect(stage.run(stopped, planned)).rejects.toMatchObject({ code: 'INTERRUPTED' });
    expect(await fs.readdir(out)).toEqual(before);
  });

  test('a disk larger than the platform takes is refused in the plan', async () => {
    await expect(stage.plan(context([platform('a', { maxBytes: MIB })]))).rejects.toMatchObject({
      code: 'USAGE',
    });
  });
});
