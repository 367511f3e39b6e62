import { execFileSync, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { BLOCK_BYTES, type WantedBlock } from '../../../core/disk-source.ts';
import { openMachine } from '../../../tools/source-machine/index.ts';
import { noLoopDevices } from '../../support/loop-disk.ts';
import { requires } from '../../support/requires.ts';

const missing = requires('qemu-storage-daemon', 'losetup', 'python3', 'perl') ?? noLoopDevices();
const SECTORS = [5_000, 20_000] as const;
const SECTOR_BYTES = 512;

let folder: string;
let content: Buffer;
let failing: string;
let device: string | undefined;
let daemon: ReturnType<typeof spawn>;

beforeAll(async () => {
  if (missing) return;
  folder = mkdtempSync(path.join(os.tmpdir(), 'port-image-failing-'));
  failing = path.join(folder, 'failing');
  content = randomBytes(4 * BLOCK_BYTES);
  writeFileSync(path.join(folder, 'disk'), content);
  writeFileSync(failing, '');
  // a file that answers EIO for two sectors, and a block device on it
  const errors = SECTORS.map(
    (sector, i) =>
      `inject-error.${i}.event=none,inject-error.${i}.iotype=read,inject-error.${i}.errno=5,inject-error.${i}.sector=${sector}`,
  );
  daemon = spawn(
    'qemu-storage-daemon',
    [
      ...['--blockdev', `driver=file,node-name=file,filename=${folder}/disk`],
      ...['--blockdev', `driver=blkdebug,node-name=bad,image=file,${errors.join(',')}`],
      ...['--export', `type=fuse,id=export,node-name=bad,mountpoint=${failing},writable=off`],
    ],
    { stdio: 'ignore' },
  );
  await vi.waitFor(() => expect(statSync(failing).size).toBe(content.length), { timeout: 10_000 });
  device = execFileSync('losetup', ['-r', '-f', '--show', failing], { encoding: 'utf8' }).trim();
});

afterAll(async () => {
  if (missing) return;
  if (device !== undefined) execFileSync('losetup', ['-d', device]);
  const gone = new Promise((resolve) => daemon.once('exit', resolve));
  daemon.kill();
  await gone;
  rmSync(folder, { recursive: true, force: true });
});

describe.skipIf(missing).each(['python', 'perl'] as const)('a failing disk, the helper in %s', (language) => {
  test.each([
    // the loop device reads pages: what is lost around a bad sector is 4 KiB
    ['a block device', () => device ?? '', 4096],
    ['sector by sector', () => failing, SECTOR_BYTES],
  ] as const)('bad sectors are told, the rest arrives: %s', async (_, disk, grain) => {
    const machine = await openMachine({ kind: 'host' }, { language, allowRegularFiles: true });
    try {
      const source = await machine.disk(disk());
      const wanted: WantedBlock[] = [0, 1, 2, 3].map((index) => ({
        index,
        lengthBytes: BLOCK_BYTES,
        parts: [{ startBytes: 0, lengthBytes: BLOCK_BYTES }],
      }));
      const bad: number[][] = [];
      for await (const answer of source.readBlocks(wanted)) {
        const expected = Buffer.from(
          content.subarray(answer.index * BLOCK_BYTES, (answer.index + 1) * BLOCK_BYTES),
        );
        for (const { startBytes, lengthBytes } of answer.bad) {
          bad.push([answer.index * BLOCK_BYTES + startBytes, lengthBytes]);
          expected.fill(0, startBytes, startBytes + lengthBytes);
        }
        expect(answer.data?.equals(expected)).toBe(true);
      }
      expect(bad).toEqual(
        SECTORS.map((sector) => {
          const at = sector * SECTOR_BYTES;
          return [at - (at % grain), grain];
        }),
      );
      await expect(source.read(SECTORS[0] * SECTOR_BYTES - 100, 5_000)).rejects.toMatchObject({
        code: 'BAD_SECTORS',
      });
      const beside = (SECTORS[0] + 8) * SECTOR_BYTES;
      expect((await source.read(beside, 4096)).equals(content.subarray(beside, beside + 4096))).toBe(true);
    } finally {
      await machine.close();
    }
  });

  test('what is not wanted is no fault, even when it is bad', async () => {
    const machine = await openMachine({ kind: 'host' }, { language, allowRegularFiles: true });
    try {
      const source = await machine.disk(failing);
      const at = SECTORS[0] * SECTOR_BYTES;
      const parts = [
        { startBytes: at - 4096, lengthBytes: 4096 },
        { startBytes: at + SECTOR_BYTES, lengthBytes: 4096 },
      ];
      for await (const answer of source.readBlocks([{ index: 0, lengthBytes: BLOCK_BYTES, parts }])) {
        expect(answer.bad).toEqual([]);
        expect(answer.data?.subarray(at - 4096, at).equals(content.subarray(at - 4096, at))).toBe(true);
        expect(answer.data?.[at]).toBe(0);
      }
    } finally {
      await machine.close();
    }
  });
});
