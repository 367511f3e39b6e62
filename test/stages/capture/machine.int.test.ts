/** This machine as a source, a loop device as its disk: what is in use, what is frozen, what is started again. */
import { execFileSync, spawn } from 'node:child_process';
import * as fs from 'node:fs/promises';
import { tmpdir } from 'node:os';
import * as path from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { silentLog } from '../../../core/log.ts';
import { CaptureOptions } from '../../../core/request.ts';
import type { CaptureContext } from '../../../stages/capture/context.ts';
import type { LiveSource } from '../../../stages/capture/live.ts';
import { openMachineSource } from '../../../stages/capture/machine.ts';
import { type LoopDisk, loopDisk, noLoopDevices } from '../../support/loop-disk.ts';
import { requires } from '../../support/requires.ts';

const missing = requires('losetup', 'mkfs.ext4', 'blkid', 'python3', 'unshare', 'prlimit') ?? noLoopDevices();
let dir: string;
let loop: LoopDisk;
let warnings: string[];
let source: LiveSource | undefined;

beforeEach(async () => {
  if (missing) return;
  dir = await fs.mkdtemp(path.join(tmpdir(), 'port-image-machine-'));
  warnings = [];
  loop = loopDisk('ext4', 32 * 1024 * 1024);
});
afterEach(async () => {
  if (missing) return;
  await source?.close();
  source = undefined;
  loop.remove();
  await fs.rm(dir, { recursive: true, force: true });
});

async function open(capture: Partial<CaptureOptions> = {}): Promise<LiveSource> {
  const ctx: CaptureContext = {
    request: {
      source: `host:${loop.device}`,
      format: undefined,
      moreSources: [],
      disks: {},
      capture: CaptureOptions.parse(capture),
    },
    paths: { dir, capture: dir, tmp: dir },
    signal: new AbortController().signal,
    log: silentLog,
    progress: () => {},
    warn: (text) => warnings.push(text),
  };
  source = await openMachineSource(ctx, { kind: 'host', devices: [loop.device] });
  return source;
}

describe.skipIf(missing)('a mounted device that is no whole disk', () => {
  test('is in use; when it is not mounted any more, it is not', async () => {
    const live = await open();
    expect(await live.consistency()).toBe('live');
    execFileSync('umount', [loop.mountPoint]);
    try {
      expect(await live.consistency()).toBe('offline');
    } finally {
      execFileSync('mount', [loop.device, loop.mountPoint]);
    }
  });

  test('mounted by a container alone, it is in use, and frozen there', async () => {
    execFileSync('umount', [loop.mountPoint]);
    const script = `mount ${loop.device} ${loop.mountPoint} && echo mounted && read -r _`;
    const container = spawn('unshare', ['-m', '--propagation', 'private', 'sh', '-c', script]);
    await new Promise((resolve) => container.stdout.once('data', resolve));
    const ended = new Promise((resolve) => container.once('exit', resolve));
    try {
      const live = await open();
      expect(await live.consistency()).toBe('live');
      const hold = await live.hold?.();
      expect(hold?.consistency).toBe('frozen');
      expect(await hold?.release()).toBeGreaterThanOrEqual(0);
    } finally {
      container.stdin.end('\n');
      await ended;
      execFileSync('mount', [loop.device, loop.mountPoint]);
    }
  });

  test('one that is mounted during the freeze ends it', async () => {
    execFileSync('umount', [loop.mountPoint]);
    const live = await open();
    const hold = await live.hold?.();
    execFileSync('mount', [loop.device, loop.mountPoint]);
    await expect(hold?.release()).rejects.toMatchObject({
      code: 'LIVE_SOURCE',
      message: expect.stringContaining('was mounted'),
    });
  });
});

describe.skipIf(missing)('the commands of the operator', () => {
  test('a service that cannot be started again is told, whatever else happened', async () => {
    const live = await open({ freeze: 'none', quiesce: 'true', resume: 'echo no such unit; exit 4' });
    const hold = await live.hold?.();
    await hold?.release().catch(() => {});
    expect(warnings.join()).toMatch(/may stand still.*no such unit/);
  });

  test('a quiesce that fails is undone, once', async () => {
    const file = path.join(dir, 'said');
    const live = await open({ quiesce: `echo stop >> '${file}'; exit 1`, resume: `echo start >> '${file}'` });
    await expect(live.hold?.()).rejects.toMatchObject({ code: 'LIVE_SOURCE' });
    expect(await fs.readFile(file, 'utf8')).toBe('stop\nstart\n');
    expect(warnings).toEqual([]);
  });
});
