/** Sources that are brought into the job: what the stage plans, makes of them, and leaves when they are refused. */
import { createHash } from 'node:crypto';
import * as fs from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import * as path from 'node:path';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { silentLog } from '../../../core/log.ts';
import { CaptureOptions } from '../../../core/request.ts';
import { sourceText } from '../../../core/source.ts';
import type { Change, StageContext } from '../../../core/stage.ts';
import type { CaptureResult } from '../../../core/types.ts';
import { goodDisk } from '../../../fixtures/hostile/build.ts';
import { stage } from '../../../stages/capture/index.ts';
import { requires } from '../../support/requires.ts';

const disk = goodDisk();
let dir: string;
let changes: Omit<Change, 'stage'>[];
let servers: Server[];

beforeEach(async () => {
  dir = await fs.mkdtemp(path.join(tmpdir(), 'port-image-sources-'));
  await fs.mkdir(path.join(dir, 'capture'));
  changes = [];
  servers = [];
});
afterEach(async () => {
  for (const server of servers) server.close();
  await fs.rm(dir, { recursive: true, force: true });
});

function context(source: string, more: Partial<StageContext['request']> = {}): StageContext {
  return {
    request: {
      source: sourceText(source),
      moreSources: [],
      disks: {},
      capture: CaptureOptions.parse({}),
      ...more,
    },
    paths: { dir, tmp: dir, capture: path.join(dir, 'capture') },
    signal: new AbortController().signal,
    log: silentLog,
    progress: () => {},
    change: (change: Omit<Change, 'stage'>) => changes.push(change),
    warn: () => {},
  } as unknown as StageContext;
}

async function capture(ctx: StageContext): Promise<CaptureResult> {
  const plan = await stage.plan(ctx);
  expect(await fs.readdir(path.join(dir, 'capture'))).toEqual([]);
  return stage.run(ctx, plan);
}

async function serve(body: Buffer): Promise<string> {
  const server = createServer((_request, response) => {
    response.setHeader('content-length', body.length);
    response.end(body);
  });
  servers.push(server);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

describe.skipIf(requires('qemu-img', 'prlimit'))('brought into the job', () => {
  test.each([
    ['gzip', gzipSync(disk)],
    ['zstd', zstdCompressSync(disk)],
  ])('%s', async (name, packed) => {
    const file = path.join(dir, `-odd "name"\n.${name}`);
    await fs.writeFile(file, packed);
    const { disks, consistency } = await capture(context(file));
    expect(consistency).toBe('offline');
    expect(disks).toMatchObject([{ id: 'disk0', format: 'raw', copied: true, virtualBytes: disk.length }]);
    expect((await fs.readFile(disks[0]?.path ?? '')).equals(disk)).toBe(true);
    expect(path.dirname(disks[0]?.path ?? '')).toBe(path.join(dir, 'capture'));
    expect(changes).toMatchObject([{ path: 'capture/disk0', action: 'create' }]);
  });

  test('a packed image from a web server, by its checksum; the signature of its URL is kept nowhere', async () => {
    const body = gzipSync(disk);
    const sum = createHash('sha256').update(body).digest('hex');
    const url = `${await serve(body)}/shop01.raw.gz?sig=very-secret`;
    const ctx = context(url, { capture: CaptureOptions.parse({ checksum: `sha256:${sum}` }) });
    expect(ctx.request.source).not.toContain('very-secret');
    const { disks } = await capture(ctx);
    expect((await fs.readFile(disks[0]?.path ?? '')).equals(disk)).toBe(true);
    expect(disks[0]?.copied).toBe(true);
    for (const name of await fs.readdir(path.join(dir, 'capture'))) {
      const content = await fs.readFile(path.join(dir, 'capture', name));
      expect(content.includes('very-secret'), name).toBe(false);
    }
  });

  test('a wrong checksum leaves nothing', async () => {
    const ctx = context(`${await serve(disk)}/disk.raw`, {
      capture: CaptureOptions.parse({ checksum: `sha256:${'0'.repeat(64)}` }),
    });
    const plan = await stage.plan(ctx);
    await expect(stage.run(ctx, plan)).rejects.toMatchObject({ code: 'DAMAGED', exitStatus: 4 });
    expect(await fs.readdir(path.join(dir, 'capture'))).toEqual([]);
  });

  test('several files are several disks, named in their order; one can be left out', async () => {
    const [a, b] = [path.join(dir, 'a.raw'), path.join(dir, 'b.raw.gz')];
    await fs.writeFile(a, disk);
    await fs.writeFile(b, gzipSync(disk));
    const both = await capture(context(a, { moreSources: [b] }));
    expect(both.disks.map((d) => [d.id, d.copied])).toEqual([
      ['disk0', false],
      ['disk1', true],
    ]);
    const one = await stage.run(
      context(a, { moreSources: [b], disks: { disk1: 'skip' } }),
      await stage.plan(context(a, { moreSources: [b] })),
    );
    expect(one.disks.map((d) => d.id)).toEqual(['disk0']);
    const unknown = context(a, { disks: { sdz: 'skip' } });
    await expect(stage.plan(unknown).then((p) => stage.run(unknown, p))).rejects.toMatchObject({
      code: 'USAGE',
    });
  });

  test('a running machine cannot be combined with a file', async () => {
    const ctx = context('/x.raw', { moreSources: ['ssh://h/dev/sda'] });
    await expect(stage.plan(ctx)).rejects.toMatchObject({ code: 'USAGE' });
  });

  test('what a server sends is looked at like any other file', async () => {
    const ctx = context(`${await serve(Buffer.from('<html>not here</html>'.repeat(100)))}/disk.raw`);
    const plan = await stage.plan(ctx);
    await expect(stage.run(ctx, plan)).rejects.toMatchObject({ code: 'NOT_A_DISK' });
    expect(await fs.readdir(path.join(dir, 'capture'))).toEqual([]);
  });
});
