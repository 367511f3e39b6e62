/** A server that is captured through a connection and converted, then again unchanged, with one package updated, and gone. */
import { type ChildProcess, spawn } from 'node:child_process';
import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { SourceConfig } from '../../../../core/sync/config.ts';
import { SYNC_WORD } from '../../../../core/sync/types.ts';
import { openServersSource } from '../../../../pipeline/sync/sources/servers.ts';
import { info } from '../../../../tools/qemu-img.ts';
import { nights, noNights } from '../../../support/nightly.ts';
import { requires } from '../../../support/requires.ts';
import { CountedDigests, syncContext } from '../../../support/sync-context.ts';

const missing = noNights() ?? requires('guestfish', 'qemu-nbd');
const HOUR_MS = 3_600_000;

describe.skipIf(missing)('a server of a sync', () => {
  let base: string;
  let socket: string;
  let serving: ChildProcess | undefined;

  /** Shows a disk as a server would, read only. */
  async function serve(disk: string): Promise<void> {
    const child = spawn('qemu-nbd', ['-r', '-t', '-e', '8', '-f', 'raw', '-k', socket, disk], {
      stdio: 'ignore',
    });
    serving = child;
    for (let tries = 0; tries < 600; tries++) {
      if ((await fs.lstat(socket).catch(() => undefined)) !== undefined) return;
      if (child.exitCode !== null) throw new Error('qemu-nbd does not start');
      await sleep(100);
    }
  }
  async function stop(): Promise<void> {
    const child = serving;
    serving = undefined;
    if (child === undefined || child.exitCode !== null) return;
    const ended = new Promise((resolve) => child.once('close', resolve));
    child.kill('SIGTERM');
    await ended;
    await fs.rm(socket, { force: true });
  }

  beforeAll(async () => {
    base = await fs.mkdtemp(path.join(process.env.TMPDIR ?? '/var/tmp', 'sync-servers-'));
    socket = path.join(base, 'disk.sock');
  });
  afterAll(async () => {
    await stop();
    await fs.rm(base, { recursive: true, force: true });
  });

  const open = () => {
    const options = { to: 'qemu', verify: false, compare: false, freeze: 'none' };
    const config = SourceConfig.parse({
      servers: [
        { name: 'gone', source: 'nowhere.raw', job: 'jobs/gone', options },
        { name: 'web', source: `nbd+unix:///?socket=${socket}`, job: 'jobs/web', options },
      ],
    });
    if (!('servers' in config)) throw new Error('no servers');
    return openServersSource('fleet', config, { base, digests: new CountedDigests() });
  };
  const journal = () => fs.readFile(path.join(base, 'jobs/web/journal.jsonl'), 'utf8');

  const passes = async () => {
    const text = await fs.readFile(path.join(base, 'jobs/web/capture/capture.json'), 'utf8');
    return (JSON.parse(text) as { passes: { changedBlocks: number; sameBlocks: number }[] }).passes;
  };

  test(
    'is captured and converted; unchanged it costs a pass and no conversion; changed it is made anew; gone it keeps its image',
    async () => {
      const { raw, virtualBytes } = await nights();
      await serve(raw[0]);
      const ctx = syncContext();
      const first = open();
      expect((await first.refresh(ctx)).map((f) => f.what)).toEqual(['gone']);
      const [image, ...more] = await first.list(ctx);
      expect(more).toEqual([]);
      if (image === undefined) throw new Error(`no image: ${ctx.warnings.join('; ')}`);
      expect(image).toMatchObject({
        series: 'web',
        format: 'qcow2',
        virtualBytes,
        firmware: 'bios',
        arch: 'x86_64',
      });
      expect(image.version).toMatch(/^\d{8}T\d{6}Z$/);
      expect(image.version).toMatch(SYNC_WORD);
      expect(image.properties).toMatchObject({
        os_type: 'linux',
        os_distro: 'debian',
        hw_disk_bus: 'virtio',
      });
      const fetched = await first.fetch(image, base, ctx);
      expect((await info({ path: fetched.path, format: 'qcow2' })).virtualBytes).toBe(virtualBytes);
      const conversions = (await journal()).split('"event":"run-done"').length - 1;
      expect(conversions).toBe(1);

      const second = open();
      const again = syncContext();
      expect((await second.refresh(again)).map((f) => f.what)).toEqual(['gone']);
      expect((await journal()).split('"event":"run-done"').length - 1).toBe(1);
      const { length } = await passes();
      expect(length).toBeGreaterThan(1);
      expect((await passes()).at(-1)?.changedBlocks).toBe(0);
      expect(await second.list(again)).toEqual([image]);

      await stop();
      await serve(raw[1]);
      const third = open();
      const changed = syncContext();
      expect((await third.refresh(changed)).map((f) => f.what)).toEqual(['gone']);
      const last = (await passes()).at(-1);
      expect(last?.changedBlocks).toBeGreaterThan(0);
      // One package was updated: most of what is in use is what it was.
      expect(last?.changedBlocks).toBeLessThan((last?.sameBlocks ?? 0) / 2);
      const [newer] = await third.list(changed);
      if (newer === undefined) throw new Error('no newer image');
      expect(newer.version > image.version).toBe(true);
      expect(newer.fileDigest).not.toBe(image.fileDigest);

      await stop();
      const fourth = open();
      const away = syncContext();
      expect(await fourth.refresh(away)).toMatchObject([
        { what: 'gone' },
        { what: 'web', code: 'SOURCE_REMOTE' },
      ]);
      expect(await fourth.list(away)).toEqual([newer]);
      expect((await fourth.fetch(newer, base, away)).path).toBe(newer.ref);
    },
    HOUR_MS,
  );
});
