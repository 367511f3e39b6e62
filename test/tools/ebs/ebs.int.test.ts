import { createHash, randomBytes } from 'node:crypto';
import * as fs from 'node:fs/promises';
import { tmpdir } from 'node:os';
import * as path from 'node:path';
import {
  CompleteSnapshotCommand,
  EBSClient,
  PutSnapshotBlockCommand,
  StartSnapshotCommand,
} from '@aws-sdk/client-ebs';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest';
import {
  BLOCK_BYTES,
  type BlockAnswer,
  type DiskSource,
  type WantedBlock,
} from '../../../core/disk-source.ts';
import { parseSource, type Source } from '../../../core/source.ts';
import type { CaptureContext } from '../../../stages/capture/context.ts';
import { openLiveSource } from '../../../stages/capture/live-sources.ts';
import { runPass } from '../../../stages/capture/pass.ts';
import { openDiskCopy } from '../../../tools/disk-copy/index.ts';
import { openEbsSnapshot } from '../../../tools/ebs/index.ts';
import { type FaultProxy, startFaultProxy } from '../../support/fault-proxy.ts';
import { type EbsManner, findMoto, type Service, startEbsFront, startMoto } from './moto.ts';

const EBS = 512 * 1024;
const GIB = 1024 ** 3;
const REGION = 'eu-central-1';
const SIZE_GIB = 3;
/** Within one block of ours, beside each other, far away, and the last of the disk. */
const STORED = [0, 1, 3, 15, 16, 17, 2050, 4100, (SIZE_GIB * GIB) / EBS - 1];
const LIST = { path: /\/blocks\?/ };
const GET = { path: /\/blocks\/\d+\?/ };
const ordinary: EbsManner = { listedBlocks: 10_000, emptyLists: 0, tokenAge: 1, backwards: false };

const program = await findMoto();

describe.skipIf(program === undefined)(
  'a snapshot in EBS (moto, lists and tokens by a front before it)',
  () => {
    let moto: Service;
    let front: Service;
    let proxy: FaultProxy;
    let dir: string;
    let source: Extract<Source, { kind: 'ebs' }>;
    const blocks = new Map(STORED.map((index) => [index, randomBytes(EBS)]));
    const manner: EbsManner = { ...ordinary };
    const open: DiskSource[] = [];

    const opened = async (): Promise<DiskSource> => {
      const disk = await openEbsSnapshot(source);
      open.push(disk);
      return disk;
    };
    const content = (offset: number, length: number): Buffer => {
      const all = Buffer.alloc(length);
      for (const [index, data] of blocks) {
        const at = index * EBS - offset;
        if (at > -EBS && at < length) data.copy(all, Math.max(0, at), Math.max(0, -at));
      }
      return all;
    };
    const wholeBlock = (index: number): WantedBlock => ({
      index,
      lengthBytes: BLOCK_BYTES,
      parts: [{ startBytes: 0, lengthBytes: BLOCK_BYTES }],
    });
    const answers = async (disk: DiskSource, wanted: WantedBlock[]): Promise<BlockAnswer[]> => {
      const all: BlockAnswer[] = [];
      for await (const answer of disk.readBlocks(wanted))
        all.push(answer.data === undefined ? answer : { ...answer, data: Buffer.from(answer.data) });
      return all;
    };
    const refusal = (status: number, type: string, message = 'no') => ({
      status,
      headers: { 'x-amzn-errortype': type, 'content-type': 'application/json' },
      body: JSON.stringify({ Message: message }),
    });

    beforeAll(async () => {
      vi.stubEnv('AWS_ACCESS_KEY_ID', 'test');
      vi.stubEnv('AWS_SECRET_ACCESS_KEY', 'not-a-secret');
      vi.stubEnv('AWS_EC2_METADATA_DISABLED', 'true');
      vi.stubEnv('AWS_CONFIG_FILE', '/dev/null');
      vi.stubEnv('AWS_SHARED_CREDENTIALS_FILE', '/dev/null');
      dir = await fs.mkdtemp(path.join(tmpdir(), 'port-image-ebs-'));
      moto = await startMoto(program ?? '');
      front = await startEbsFront(moto.url, manner);
      proxy = await startFaultProxy(front.url);
      const client = new EBSClient({ region: REGION, endpoint: moto.url });
      const { SnapshotId } = await client.send(new StartSnapshotCommand({ VolumeSize: SIZE_GIB }));
      // last first: the order of lists must not come from here
      for (const [BlockIndex, BlockData] of [...blocks].reverse()) {
        const Checksum = createHash('sha256').update(BlockData).digest('base64');
        await client.send(
          new PutSnapshotBlockCommand({
            ...{ SnapshotId, BlockIndex, BlockData, DataLength: EBS, Checksum, ChecksumAlgorithm: 'SHA256' },
          }),
        );
      }
      await client.send(new CompleteSnapshotCommand({ SnapshotId, ChangedBlocksCount: blocks.size }));
      client.destroy();
      source = parseSource(`ebs://${REGION}/${SnapshotId}`) as typeof source;
    });
    beforeEach(() => {
      Object.assign(manner, ordinary);
      proxy.reset();
      vi.stubEnv('AWS_ENDPOINT_URL_EBS', proxy.url);
    });
    afterEach(async () => {
      for (const disk of open.splice(0)) await disk.close();
    });
    afterAll(async () => {
      vi.unstubAllEnvs();
      await proxy?.close();
      await front?.stop();
      await moto?.stop();
      await fs.rm(dir, { recursive: true, force: true });
    });

    test('reads bytes anywhere, zeros where nothing is stored, and nothing behind the end', async () => {
      const disk = await opened();
      expect(disk.name).toBe(`ebs://${REGION}/${source.snapshot}`);
      expect(disk.sizeBytes).toBe(SIZE_GIB * GIB);
      for (const [offset, length] of [
        [0, 512],
        [EBS - 100, 3 * EBS + 7],
        [2 * EBS, EBS],
        [17 * EBS + 1, 4 * EBS],
        [SIZE_GIB * GIB - 600, 4096],
      ] as const) {
        const found = await disk.read(offset, length);
        expect(found.equals(content(offset, Math.min(length, SIZE_GIB * GIB - offset)))).toBe(true);
      }
      expect(await disk.read(SIZE_GIB * GIB, 512)).toHaveLength(0);
    });

    test('is a live source with one disk', async () => {
      const signal = new AbortController().signal;
      const live = await openLiveSource({ signal } as CaptureContext, source);
      expect(live.name).toBe(`ebs://${REGION}/${source.snapshot}`);
      expect(live.disks.map((d) => d.sizeBytes)).toEqual([SIZE_GIB * GIB]);
      const disk = await live.disks[0]?.open();
      if (disk !== undefined) open.push(disk);
      expect((await disk?.read(EBS, 512))?.equals(content(EBS, 512))).toBe(true);
    });

    test('a block is asked for once when its parts are read one after the other', async () => {
      const disk = await opened();
      for (let at = 0; at < EBS; at += 64 * 1024) await disk.read(at, 4096);
      expect(proxy.count(GET)).toBe(1);
    });

    test('answers blocks as zero, same and data, in order and summed', async () => {
      const disk = await opened();
      const known = createHash('sha256')
        .update(content(2 * BLOCK_BYTES, BLOCK_BYTES))
        .digest();
      const part = { startBytes: EBS + 512, lengthBytes: 1024 };
      const found = await answers(disk, [
        wholeBlock(0),
        { ...wholeBlock(1), parts: [part] },
        { ...wholeBlock(2), known },
        wholeBlock(5),
        wholeBlock(256),
      ]);
      expect(found.map(({ index, kind }) => [index, kind])).toEqual([
        [0, 'data'],
        [1, 'zero'],
        [2, 'same'],
        [5, 'zero'],
        [256, 'data'],
      ]);
      expect(found[0]?.data?.equals(content(0, BLOCK_BYTES))).toBe(true);
      expect(found[4]?.sha256).toEqual(
        createHash('sha256')
          .update(content(256 * BLOCK_BYTES, BLOCK_BYTES))
          .digest(),
      );
      // what is not stored is not asked for
      expect(proxy.count(GET)).toBe(STORED.filter((i) => [0, 2, 256].includes(Math.floor(i / 8))).length);
    });

    test.each([
      { ...ordinary },
      { ...ordinary, listedBlocks: 2 },
      { ...ordinary, listedBlocks: 3, emptyLists: 2 },
    ])('knows what is stored from lists of $listedBlocks after $emptyLists empty ones', async (given) => {
      Object.assign(manner, given);
      const disk = await opened();
      const inBlocks = (await disk.dataRanges?.())?.map((r) => [r.startBytes / EBS, r.lengthBytes / EBS]);
      expect(inBlocks).toEqual([
        [0, 2],
        [3, 1],
        [15, 3],
        [2050, 1],
        [4100, 1],
        [6143, 1],
      ]);
      for (const index of [4100, 2, 0, 17]) {
        expect((await disk.read(index * EBS, EBS)).equals(content(index * EBS, EBS))).toBe(true);
      }
    });

    test('is captured through refused tokens, a busy server, broken and changed bodies', async () => {
      proxy.on({ ...LIST, after: 1, times: 1 }, refusal(400, 'RequestThrottledException'));
      proxy.on({ ...GET, times: 3 }, refusal(503, 'InternalServerException'));
      proxy.on({ ...GET, after: 1, times: 1 }, { cutResponse: { fraction: 0.5 } });
      proxy.on({ ...GET, after: 1, times: 2 }, { flipResponseByte: EBS - 1 });
      const copy = await openDiskCopy(dir, 'copy', { sizeBytes: SIZE_GIB * GIB, sourceId: 'ebs' });
      try {
        const result = await runPass({
          open: opened,
          copy,
          allocation: async (disk) => {
            manner.tokenAge++;
            return { ranges: [{ startBytes: 0, lengthBytes: disk.sizeBytes }] };
          },
          pass: 1,
          mode: 'resume',
        });
        expect(result.reconnects).toBe(0);
        // refused by the front, for its token
        expect(proxy.requests.some((r) => r.status === 400 && !r.faulty)).toBe(true);
        expect(proxy.requests.filter((r) => r.faulty)).toHaveLength(7);
        const handle = await fs.open(copy.rawPath);
        for (const index of [...STORED, 2, 4, 14, 100, 4101]) {
          const { buffer } = await handle.read(Buffer.alloc(EBS), 0, EBS, index * EBS);
          expect(buffer.equals(content(index * EBS, EBS)), `block ${index}`).toBe(true);
        }
        await handle.close();
      } finally {
        await copy.close();
      }
    });

    test('a body that is always changed is refused, one that always breaks off is temporary', async () => {
      const disk = await opened();
      const heal = proxy.on(GET, { flipResponseByte: 77 });
      await expect(disk.read(0, 512)).rejects.toMatchObject({
        code: 'SOURCE_REMOTE',
        temporary: false,
        message: expect.stringContaining('not what its checksum says'),
      });
      await expect(answers(disk, [wholeBlock(0)])).rejects.toMatchObject({ code: 'SOURCE_REMOTE' });
      heal();
      const join = proxy.on(GET, { cutResponse: { bytes: 1000 } });
      await expect(disk.read(0, 512)).rejects.toMatchObject({ code: 'SOURCE_REMOTE', temporary: true });
      join();
      proxy.on(GET, { headers: { 'x-amz-Data-Length': '4096' } });
      await expect(disk.read(0, 512)).rejects.toMatchObject({ code: 'SOURCE_REMOTE', temporary: false });
      proxy.reset();
      // a failure is not kept
      expect((await disk.read(0, 512)).equals(content(0, 512))).toBe(true);
    });

    test.each([
      { status: 403, type: 'AccessDeniedException', temporary: false, hint: /ListSnapshotBlocks/ },
      { status: 400, type: 'ExpiredTokenException', temporary: false, hint: /credentials/ },
      { status: 403, type: 'UnrecognizedClientException', temporary: false, hint: /credentials/ },
      { status: 404, type: 'ResourceNotFoundException', temporary: false, hint: /snapshot id/ },
      { status: 400, type: 'ValidationException', temporary: false, hint: /pending/ },
      { status: 503, type: 'InternalServerException', temporary: true, hint: /later/ },
    ])('$status $type is told with its hint', async ({ status, type, temporary, hint }) => {
      proxy.on(LIST, refusal(status, type, 'no\u001b[2J'));
      const opening = openEbsSnapshot(source);
      await expect(opening).rejects.toMatchObject({
        code: 'SOURCE_REMOTE',
        temporary,
        hint: expect.stringMatching(hint),
        message: expect.stringContaining(`${type}: no\\x1b[2J`),
      });
      // only what can heal is asked again
      expect(proxy.count(LIST) > 1).toBe(temporary);
    });

    test('no credentials, and no server', async () => {
      vi.stubEnv('AWS_ACCESS_KEY_ID', undefined);
      await expect(openEbsSnapshot(source)).rejects.toMatchObject({
        code: 'SOURCE_REMOTE',
        temporary: false,
      });
      expect(proxy.requests).toEqual([]);
      vi.stubEnv('AWS_ACCESS_KEY_ID', 'test');
      vi.stubEnv('AWS_ENDPOINT_URL_EBS', 'http://127.0.0.1:1');
      await expect(openEbsSnapshot(source)).rejects.toMatchObject({ code: 'SOURCE_REMOTE', temporary: true });
    });

    test('lists that are not in order, do not end, or are of other blocks are refused', async () => {
      manner.backwards = true;
      await expect(openEbsSnapshot(source)).rejects.toThrow('not in order');
      Object.assign(manner, ordinary, { emptyLists: 1_000_000 });
      await expect(openEbsSnapshot(source)).rejects.toThrow('do not end');
      vi.stubEnv('AWS_ENDPOINT_URL_EBS', moto.url);
      await expect(openEbsSnapshot(source)).rejects.toThrow('not of 512 KiB');
    });

    test('stops in the middle of a body when it is told to', async () => {
      const disk = await opened();
      proxy.on(GET, { stallResponse: { bytes: 1000 } });
      const stop = new AbortController();
      const reading = disk.readBlocks([wholeBlock(0)], stop.signal).next();
      await expect.poll(() => proxy.requests.some((r) => r.responseBytes === 1000)).toBe(true);
      stop.abort();
      await expect(reading).rejects.toMatchObject({ code: 'INTERRUPTED' });
      const closing = opened();
      await (await closing).close();
      await expect((await closing).read(0, 512)).rejects.toMatchObject({ code: 'SOURCE_REMOTE' });
    });
  },
);
