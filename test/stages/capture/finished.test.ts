/** When a copy that an earlier run left is taken as it is, and when the source is asked again. */
import * as fs from 'node:fs/promises';
import { tmpdir } from 'node:os';
import * as path from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { DiskSource } from '../../../core/disk-source.ts';
import { PortError } from '../../../core/errors.ts';
import { silentLog } from '../../../core/log.ts';
import { CaptureOptions, type Request } from '../../../core/request.ts';
import type { StageContext } from '../../../core/stage.ts';
import type { CaptureResult, Consistency } from '../../../core/types.ts';
import { goodDisk } from '../../../fixtures/hostile/build.ts';
import { stage } from '../../../stages/capture/index.ts';
import { captureLive, type LiveSource } from '../../../stages/capture/live.ts';
import { readState } from '../../../stages/capture/state.ts';
import { openFileSource } from '../../../tools/disk-sources/file.ts';
import { requires } from '../../support/requires.ts';

const MIB = 1024 * 1024;
/** Nobody listens there: whoever asks the source again fails at once. */
const GONE = 'nbd://127.0.0.1:1/gone';
/** A disk that passes the gate, with a mark in each block. */
const content = (mark: number): Buffer => {
  const disk = Buffer.alloc(8 * MIB);
  goodDisk().copy(disk, 0, 0, 4 * MIB);
  for (const at of [4 * MIB - 512, 8 * MIB - 512]) disk.fill(mark, at, at + 512);
  return disk;
};

const missing = requires('qemu-img', 'prlimit');
let dir: string;
let warnings: string[];

beforeEach(async () => {
  dir = await fs.mkdtemp(path.join(tmpdir(), 'port-image-finished-'));
  warnings = [];
  await fs.mkdir(path.join(dir, 'capture'));
  for (const id of ['sda', 'sdb']) await fs.writeFile(path.join(dir, id), content(1));
});
afterEach(() => fs.rm(dir, { recursive: true, force: true }));

function context(disks: Request['disks'] = {}, capture: Partial<CaptureOptions> = {}): StageContext {
  return {
    request: { source: GONE, moreSources: [], disks, capture: CaptureOptions.parse(capture) },
    paths: { dir, capture: path.join(dir, 'capture'), tmp: dir },
    signal: new AbortController().signal,
    log: silentLog,
    progress: () => {},
    change: () => {},
    warn: (text: string) => warnings.push(text),
  } as unknown as StageContext;
}

interface Behaviour {
  found?: Consistency;
  /** Wraps the disks when they are read. */
  wrap?: (disk: DiskSource) => DiskSource;
  release?: () => Promise<number>;
}

/** A machine with two disks. */
function machine({ found = 'live', wrap = (d) => d, release = async () => 5 }: Behaviour = {}): LiveSource {
  const open = async (id: string) => wrap(await openFileSource(path.join(dir, id)));
  return {
    name: 'shop01',
    disks: ['sda', 'sdb'].map((id) => ({
      id,
      device: `/dev/${id}`,
      sizeBytes: 8 * MIB,
      open: () => open(id),
    })),
    inventory: undefined,
    consistency: async () => found,
    hold: async () => ({ consistency: 'frozen', open, release }),
    close: async () => {},
  };
}

/** Takes the disks that the context does not skip, as a run of its own. */
async function capture(live: LiveSource, ctx = context()) {
  const before = await readState(ctx.paths.capture, GONE);
  const disks = live.disks.filter((d) => ctx.request.disks[d.id] !== 'skip');
  return captureLive(ctx, live, disks, before, { final: true });
}

/** What a conversion takes. */
async function convert(ctx = context()): Promise<CaptureResult> {
  return stage.run(ctx, await stage.plan(ctx));
}

const isAskedAgain = (ctx = context()) =>
  expect(convert(ctx)).rejects.toMatchObject({ code: 'SOURCE_REMOTE' });

/** A disk whose blocks come and then stop. */
const cut = (disk: DiskSource): DiskSource => ({
  ...disk,
  name: disk.name,
  sizeBytes: disk.sizeBytes,
  read: (o, l) => disk.read(o, l),
  close: () => disk.close(),
  async *readBlocks(wanted, signal) {
    for await (const answer of disk.readBlocks(wanted, signal)) {
      yield answer;
      throw new PortError('SOURCE_REMOTE', 'gone for good');
    }
  },
});

/** A disk with one sector that cannot be read. */
const failing = (disk: DiskSource): DiskSource => ({
  ...cut(disk),
  async *readBlocks(wanted, signal) {
    for await (const answer of disk.readBlocks(wanted, signal)) {
      yield answer.index === 0 ? { ...answer, bad: [{ startBytes: 0, lengthBytes: 512 }] } : answer;
    }
  },
});

describe.skipIf(missing)('a copy that is here', () => {
  test('is taken without the source', async () => {
    await capture(machine());
    const { disks, consistency } = await convert();
    expect([disks.map((d) => d.id), consistency, warnings]).toEqual([['sda', 'sdb'], 'frozen', []]);
  });

  test('is not believed while a later pass over it did not end', async () => {
    await capture(machine());
    await fs.writeFile(path.join(dir, 'sda'), content(9));
    await expect(capture(machine({ wrap: cut }))).rejects.toMatchObject({ code: 'SOURCE_REMOTE' });
    await isAskedAgain();
    await capture(machine());
    expect((await convert()).consistency).toBe('frozen');
  });

  test('is not believed when the source went on too early', async () => {
    const release = async () => {
      throw new PortError('LIVE_SOURCE', 'the watchdog thawed');
    };
    await expect(capture(machine({ release }))).rejects.toMatchObject({ code: 'LIVE_SOURCE' });
    await isAskedAgain();
  });

  test.each(['auto', 'none'] as const)(
    'with more bad places than accepted is no copy (--freeze %s)',
    async (freeze) => {
      const run = capture(machine({ wrap: failing }), context({}, { freeze }));
      await expect(run).rejects.toMatchObject({ code: 'BAD_SECTORS' });
      await isAskedAgain(context({}, { freeze }));
    },
  );

  test('holds no disk that was skipped, and gives none that is to be skipped', async () => {
    await capture(machine(), context({ sdb: 'skip' }));
    await isAskedAgain();
    expect((await convert(context({ sdb: 'skip' }))).disks.map((d) => d.id)).toEqual(['sda']);
    await capture(machine());
    expect((await convert(context({ sdb: 'skip' }))).disks.map((d) => d.id)).toEqual(['sda']);
    expect((await convert()).disks.map((d) => d.id)).toEqual(['sda', 'sdb']);
    await expect(convert(context({ sdc: 'skip' }))).rejects.toMatchObject({ code: 'USAGE' });
  });

  test('taken from a source in use is for --freeze none alone, and said to be maybe torn each time', async () => {
    const asItIs = context({}, { freeze: 'none' });
    await capture(machine(), asItIs);
    await isAskedAgain();
    warnings = [];
    expect((await convert(asItIs)).consistency).toBe('live');
    expect(warnings.join()).toMatch(/may be torn/);
  });
});
