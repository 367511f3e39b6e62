/**
 * The one appliance session of a run. All guest edits go to overlays under temporary names; they become the job's work
 * disks only when the session closed cleanly, so a kill at any moment leaves either the old work disks or none.
 */
import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import { fsyncPath, makeDir, renameDurable, sha256File } from '../core/files.ts';
import type { Log } from '../core/log.ts';
import type { JobPaths } from '../core/stage.ts';
import type { CapturedDisk } from '../core/types.ts';
import { workDiskPath } from '../core/work-disks.ts';
import { type Appliance, launch } from '../tools/guestfish.ts';
import { createOverlay } from '../tools/qemu-img.ts';
import { type DiskExport, exportDisk } from '../tools/qemu-storage-daemon.ts';

/** A work disk as it was left. */
export interface WorkDigest {
  /** Id of the disk. */
  disk: string;
  sha256: string;
  bytes: number;
}

/** An open session. */
export interface EditSession {
  guest: Appliance;
  /** Closes the appliance and makes the overlays of the disks with these ids the job's work disks. */
  commit(keep: readonly string[]): Promise<WorkDigest[]>;
  /** Kills the appliance and throws the overlays away. Safe to call twice. */
  discard(): Promise<void>;
}

/** What a session needs. */
export interface SessionOptions {
  paths: JobPaths;
  /** In the order in which the appliance shall have them. */
  disks: readonly Pick<CapturedDisk, 'id' | 'path' | 'format'>[];
  applianceEnv: Record<string, string>;
  signal: AbortSignal;
  log: Log;
}

/** Creates the overlays and launches the appliance on them. */
export async function openSession(options: SessionOptions): Promise<EditSession> {
  const { paths, disks, signal, log } = options;
  await makeDir(paths.tmp);
  const overlays = disks.map((_, i) =>
    path.join(paths.tmp, i === 0 ? 'overlay.qcow2' : `overlay-${i}.qcow2`),
  );
  const exported = new Map<number, Promise<DiskExport>>();
  const removeOverlays = async (): Promise<void> => {
    for (const overlay of overlays) await fs.rm(overlay, { force: true });
  };
  const stopExports = async (): Promise<void> => {
    for (const pending of exported.values()) await (await pending.catch(() => undefined))?.stop();
  };
  const sourceFile = async (index: number): Promise<string> => {
    const disk = disks[index];
    if (disk === undefined) throw new RangeError(`no disk ${index}`);
    if (disk.format === 'raw') return disk.path;
    const pending =
      exported.get(index) ?? exportDisk({ path: disk.path, format: disk.format }, paths.tmp, { signal, log });
    exported.set(index, pending);
    return (await pending).path;
  };
  let guest: Appliance;
  try {
    for (const [i, disk] of disks.entries()) {
      const overlay = overlays[i] ?? '';
      await fs.rm(overlay, { force: true });
      await createOverlay({ path: disk.path, format: disk.format }, overlay, { signal, log });
    }
    guest = await launch({ overlays, tmpDir: paths.tmp, env: options.applianceEnv, signal, log, sourceFile });
  } catch (error) {
    await removeOverlays();
    throw error;
  }
  return {
    guest,
    async commit(keep) {
      await stopExports();
      await guest.close();
      const digests: WorkDigest[] = [];
      for (const [i, { id }] of disks.entries()) {
        const overlay = overlays[i] ?? '';
        if (!keep.includes(id)) continue;
        await fsyncPath(overlay);
        const { size } = await fs.stat(overlay);
        digests.push({ disk: id, sha256: await sha256File(overlay, signal), bytes: size });
        await renameDurable(overlay, workDiskPath(paths, i, id));
      }
      await removeOverlays();
      return digests;
    },
    async discard() {
      await guest.abort().catch(() => {});
      await stopExports().catch(() => {});
      await removeOverlays();
    },
  };
}
