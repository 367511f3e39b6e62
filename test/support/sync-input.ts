/** Small disks, and what a target of a sync is asked to make of them. */
import { randomBytes } from 'node:crypto';
import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import { silentLog } from '../../core/log.ts';
import { MIB } from '../../core/sizes.ts';
import type { CreateInput, ListContext, LocalDisk, WantedImage } from '../../core/sync/types.ts';
import { indexDisk } from '../../tools/blocks/index-disk.ts';

/** Blocks with random content, by number; 'zero' writes zeros. */
export type DiskChange = Record<number, 'random' | 'zero' | Buffer>;

/** Writes a disk, as a change of another one when that is given, and reads its index. */
export async function diskFile(
  file: string,
  virtualBytes: number,
  change: DiskChange,
  base?: LocalDisk,
): Promise<LocalDisk> {
  if (base !== undefined) await fs.copyFile(base.rawPath, file);
  const handle = await fs.open(file, base === undefined ? 'w' : 'r+');
  await handle.truncate(virtualBytes);
  for (const [number, what] of Object.entries(change)) {
    const block = what === 'zero' ? Buffer.alloc(MIB) : what === 'random' ? randomBytes(MIB) : what;
    const start = Number(number) * MIB;
    await handle.write(block, 0, Math.min(block.length, virtualBytes - start), start);
  }
  await handle.close();
  return { rawPath: file, virtualBytes, index: await indexDisk(file, { virtualBytes }) };
}

/** What a run told. */
export interface SyncTold {
  warnings: string[];
}

/** A context that remembers warnings. */
export function syncContext(signal = new AbortController().signal): ListContext & { told: SyncTold } {
  const told: SyncTold = { warnings: [] };
  return {
    told,
    signal,
    log: silentLog,
    progress: () => {},
    warn: (text) => told.warnings.push(text),
    leaveOut: (what, { message }) => told.warnings.push(`${what} is left out: ${message}`),
  };
}

/** How an image shall look when nothing special is asked. */
export const plainWanted = (more: Partial<WantedImage> = {}): WantedImage => ({
  name: 'shop',
  visibility: 'private',
  members: [],
  protected: false,
  properties: { os_distro: 'debian' },
  ...more,
});

/** Input of `create` for a disk. */
export function createInput(
  dir: string,
  disk: LocalDisk,
  version: string,
  more: Partial<CreateInput> = {},
): CreateInput & { told: SyncTold } {
  return {
    ...syncContext(),
    image: {
      series: 'shop',
      version,
      ref: path.basename(disk.rawPath),
      name: 'shop',
      rawSha256: disk.index.rawSha256,
      fileDigest: `sha256:${disk.index.rawSha256}`,
      format: 'raw',
      fileBytes: disk.virtualBytes,
      createdAt: '2026-01-02T03:04:05Z',
      arch: 'x86_64',
      firmware: 'bios',
      minDiskGib: 1,
      minRamMib: 512,
      properties: {},
      dataSets: [],
    },
    identity: { series: 'shop', version, rawSha256: disk.index.rawSha256 },
    disk,
    wanted: plainWanted(),
    wantedDigest: 'wanted-1',
    owner: 'run-1@here',
    staleAfterMs: 60_000,
    stateDir: path.join(dir, 'state'),
    tmp: dir,
    ...more,
  };
}
