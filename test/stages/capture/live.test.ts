/** The order of passes over sources that hold still, do not, or break; on real files as disks. */
import * as fs from 'node:fs/promises';
import { tmpdir } from 'node:os';
import * as path from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { DiskSource } from '../../../core/disk-source.ts';
import { PortError } from '../../../core/errors.ts';
import { silentLog } from '../../../core/log.ts';
import { CaptureOptions } from '../../../core/request.ts';
import type { Consistency } from '../../../core/types.ts';
import type { CaptureContext } from '../../../stages/capture/context.ts';
import { captureLive, type Hold, type LiveSource } from '../../../stages/capture/live.ts';
import { type CaptureState, readState } from '../../../stages/capture/state.ts';
import { openFileSource } from '../../../tools/disk-sources/file.ts';
import { requires } from '../../support/requires.ts';

const MIB = 1024 * 1024;
const missing = requires('qemu-img');
let dir: string;
let disk: string;
let events: string[];
let warnings: string[];

beforeEach(async () => {
  dir = await fs.mkdtemp(path.join(tmpdir(), 'port-image-live-'));
  disk = path.join(dir, 'disk');
  await fs.writeFile(disk, Buffer.alloc(12 * MIB, 7));
  events = [];
  warnings = [];
  await fs.mkdir(path.join(dir, 'capture'));
});
afterEach(() => fs.rm(dir, { recursive: true, force: true }));

function context(
  capture: Partial<CaptureOptions> = {},
  signal = new AbortController().signal,
): CaptureContext {
  return {
    request: {
      source: 'ssh://shop01/dev/sda',
      format: undefined,
      moreSources: [],
      disks: {},
      capture: CaptureOptions.parse(capture),
    },
    paths: { dir, capture: path.join(dir, 'capture'), tmp: dir },
    signal,
    log: silentLog,
    progress: () => {},
    warn: (text) => warnings.push(text),
  };
}

/** Writes a mark into one block of the disk. */
async function scribble(block: number, value: number): Promise<void> {
  const handle = await fs.open(disk, 'r+');
  await handle.write(Buffer.alloc(512, value), 0, 512, block * 4 * MIB);
  await handle.close();
}

interface Behaviour {
  found?: Consistency[];
  hold?: (() => Promise<Hold>) | undefined;
  /** Breaks the first opening after so many blocks. */
  breakAfter?: number;
  /** How many openings break, every other one; default one. */
  breaks?: number;
  /** Called when the disk is opened; counts from 1. */
  onOpen?: (count: number) => Promise<void>;
}

function source(behaviour: Behaviour = {}): LiveSource {
  let asked = 0;
  let opened = 0;
  const { found = ['live'] } = behaviour;
  const open = async (): Promise<DiskSource> => {
    opened += 1;
    events.push('open');
    await behaviour.onOpen?.(opened);
    const real = await openFileSource(disk);
    const isCut = opened % 2 === 1 && opened < 2 * (behaviour.breaks ?? 1);
    if (!isCut || behaviour.breakAfter === undefined) return real;
    const limit = behaviour.breakAfter;
    return {
      ...real,
      read: (o, l) => real.read(o, l),
      close: () => real.close(),
      async *readBlocks(wanted, signal) {
        let count = 0;
        for await (const answer of real.readBlocks(wanted, signal)) {
          if (count++ >= limit) throw new PortError('SOURCE_REMOTE', 'cut', { temporary: true });
          yield answer;
        }
      },
    };
  };
  return {
    name: 'shop01',
    disks: [{ id: 'sda', device: '/dev/sda', sizeBytes: 12 * MIB, open }],
    inventory: undefined,
    consistency: async () => found[Math.min(asked++, found.length - 1)] ?? 'live',
    ...(behaviour.hold === undefined ? {} : { hold: behaviour.hold }),
    close: async () => {},
  };
}

/** A hold that records when it begins and ends. */
function hold(release: () => Promise<number> = async () => 1234): () => Promise<Hold> {
  return async () => {
    events.push('hold');
    return {
      consistency: 'frozen',
      open: async () => {
        events.push('open held');
        return openFileSource(disk);
      },
      release: async () => {
        events.push('release');
        return release();
      },
    };
  };
}

function capture(live: LiveSource, options = { final: true }, ctx = context(), before?: CaptureState) {
  return captureLive(ctx, live, live.disks, before, options);
}

const copied = () => fs.readFile(path.join(dir, 'capture', 'sda.raw'));
const expectEqual = async () => expect((await copied()).equals(await fs.readFile(disk))).toBe(true);

describe.skipIf(missing)('a source nobody writes to', () => {
  test('one pass is enough, and it is called offline', async () => {
    const state = await capture(source({ found: ['offline'], hold: hold() }));
    expect(state.passes).toHaveLength(1);
    expect(state.passes[0]).toMatchObject({
      number: 1,
      final: true,
      consistency: 'offline',
      sentBytes: 12 * MIB,
    });
    expect(events).toEqual(['open']);
    expect(await readState(path.join(dir, 'capture'), 'ssh://shop01/dev/sda')).toEqual(state);
    await expectEqual();
  });

  test('a broken connection costs a second pass: the halves may be of two moments', async () => {
    const cut = source({
      found: ['offline'],
      breakAfter: 1,
      onOpen: async (count) => {
        if (count === 2) await scribble(0, 9); // the machine ran between the two connections
      },
    });
    const state = await capture(cut);
    expect(state.passes.map((p) => [p.final, p.consistency])).toEqual([
      [false, 'live'],
      [true, 'offline'],
    ]);
    expect(state.passes[1]).toMatchObject({ changedBlocks: 1, sentBytes: 4 * MIB });
    await expectEqual();
  });

  test('one that breaks in every pass, and cannot be held, is called live', async () => {
    const cut = source({ found: ['crash-consistent'], breakAfter: 1, breaks: 99 });
    const state = await capture(cut);
    expect(state.passes.at(-1)).toMatchObject({ final: true, consistency: 'live' });
    expect(warnings.join()).toMatch(/mix of several moments/);
    const healed = await capture(source({ found: ['crash-consistent'], breakAfter: 1, breaks: 3 }));
    expect(healed.passes.at(-1)).toMatchObject({ final: true, consistency: 'crash-consistent' });
  });

  test('one that somebody mounts meanwhile is not called offline', async () => {
    const state = await capture(source({ found: ['offline', 'live'], hold: hold() }));
    expect(state.passes.at(-1)).toMatchObject({ final: true, consistency: 'frozen', frozenMs: 1234 });
    expect(events.slice(-3)).toEqual(['hold', 'open held', 'release']);
  });
});

describe.skipIf(missing)('a source that is written to', () => {
  test('passes while it works, the last one while it holds still', async () => {
    const live = source({ hold: hold(), onOpen: (count) => scribble(1, 100 + count) });
    const state = await capture(live);
    const last = state.passes.at(-1);
    expect(state.passes.length).toBeGreaterThan(1);
    expect(state.passes.slice(0, -1).every((p) => !p.final && p.consistency === 'live')).toBe(true);
    expect(last).toMatchObject({ final: true, consistency: 'frozen', frozenMs: 1234 });
    expect(last?.sentBytes).toBe(0);
    await expectEqual();
    expect(warnings).toEqual([]);
  });

  test('without --final nothing is held still, and each run sends what changed', async () => {
    const first = await capture(source({ hold: hold() }), { final: false });
    await scribble(2, 1);
    const second = await capture(source({ hold: hold() }), { final: false }, context(), first);
    expect(second.passes.map((p) => [p.number, p.final, p.sentBytes])).toEqual([
      [1, false, 12 * MIB],
      [2, false, 4 * MIB],
    ]);
    expect(events).toEqual(['open', 'open']);
    await expectEqual();
  });

  test('it goes on whatever the last pass ends with', async () => {
    const broken = hold();
    const failing: LiveSource = source({
      hold: async () => ({
        ...(await broken()),
        open: async () => {
          throw new PortError('SOURCE_REMOTE', 'gone');
        },
      }),
    });
    await expect(capture(failing)).rejects.toMatchObject({ code: 'SOURCE_REMOTE' });
    expect(events.filter((e) => e === 'release')).toHaveLength(1);
    const state = await readState(path.join(dir, 'capture'), 'ssh://shop01/dev/sda');
    expect(state?.passes.every((p) => !p.final)).toBe(true);
  });

  test('a freeze that ended too early makes no consistent copy', async () => {
    const early = hold(async () => {
      throw new PortError('LIVE_SOURCE', 'the watchdog thawed');
    });
    await expect(capture(source({ hold: early }))).rejects.toMatchObject({ code: 'LIVE_SOURCE' });
    expect(events.filter((e) => e === 'release')).toHaveLength(1);
    const state = await readState(path.join(dir, 'capture'), 'ssh://shop01/dev/sda');
    expect(state?.passes.map((p) => p.consistency)).not.toContain('frozen');
  });

  test('a freeze longer than allowed is refused before it begins', async () => {
    const first = await capture(source({ hold: hold() }), { final: false });
    const slow = first.passes.map((p) => ({ ...p, seconds: 3600, sentBytes: 0 }));
    const before = { ...first, passes: slow };
    events = [];
    const again = captureLive(
      context({ maxFreezeSeconds: 5 }),
      source({ hold: hold() }),
      source().disks,
      before,
      {
        final: true,
        passes: 0,
      },
    );
    await expect(again).rejects.toMatchObject({
      code: 'LIVE_SOURCE',
      message: expect.stringContaining('60 min'),
    });
    expect(events).not.toContain('hold');
  });

  test('with --freeze none it is taken as it is, and said so', async () => {
    const state = await capture(source({ hold: hold() }), { final: true }, context({ freeze: 'none' }));
    expect(events).not.toContain('hold');
    expect(state.passes.at(-1)).toMatchObject({ final: true, consistency: 'live' });
    expect(warnings.join()).toMatch(/may be torn/);
  });

  test('an interrupt keeps what came, and the next run goes on', async () => {
    const stop = new AbortController();
    const live = source({
      hold: hold(),
      onOpen: async () => stop.abort(),
    });
    const stopped = capture(live, { final: true }, context({}, stop.signal));
    await expect(stopped).rejects.toMatchObject({ code: 'INTERRUPTED' });
    const state = await capture(source({ hold: hold() }));
    expect(state.passes.at(-1)?.final).toBe(true);
    await expectEqual();
  });
});

test.skipIf(missing)('a copy of another source is never gone on with', async () => {
  await capture(source({ found: ['offline'] }));
  await expect(readState(path.join(dir, 'capture'), 'ssh://other/dev/sda')).rejects.toMatchObject({
    code: 'JOB_MISMATCH',
  });
});

test.skipIf(missing)(
  'nothing that was made before is forgotten while the source does not answer',
  async () => {
    let told = 0;
    const options = {
      final: true,
      beforeWriting: async () => {
        told += 1;
      },
    };
    await capture(source({ found: ['offline'] }), options);
    expect(told).toBe(1);
    // another disk under the same name
    const first = await readState(path.join(dir, 'capture'), 'ssh://shop01/dev/sda');
    const other: LiveSource = { ...source(), disks: [{ ...source().disks[0], sizeBytes: 8 * MIB }] as never };
    await expect(capture(other, options, context(), first)).rejects.toMatchObject({ code: 'JOB_MISMATCH' });
  },
);
