/**
 * The one appliance session of a run. All guest edits go to an overlay under a temporary name; it becomes the job's
 * work disk only when the session closed cleanly, so a kill at any moment leaves either the old work disk or none.
 */
import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import { fsyncPath, makeDir, renameDurable, sha256File } from '../core/files.ts';
import type { Log } from '../core/log.ts';
import type { JobPaths } from '../core/stage.ts';
import type { CaptureResult } from '../core/types.ts';
import { type Appliance, launch } from '../tools/guestfish.ts';
import { createOverlay } from '../tools/qemu-img.ts';
import { exportDisk } from '../tools/qemu-storage-daemon.ts';

/** An open session. */
export interface EditSession {
  guest: Appliance;
  /** Closes the appliance and makes the overlay the job's work disk. Returns its sha256 and size. */
  commit(): Promise<{ workSha256: string; workBytes: number }>;
  /** Kills the appliance and throws the overlay away. Safe to call twice. */
  discard(): Promise<void>;
}

/** What a session needs. */
export interface SessionOptions {
  paths: JobPaths;
  source: CaptureResult;
  applianceEnv: Record<string, string>;
  signal: AbortSignal;
  log: Log;
}

/** Creates the overlay and launches the appliance on it. */
export async function openSession(options: SessionOptions): Promise<EditSession> {
  const { paths, source, signal, log } = options;
  await makeDir(paths.tmp);
  const overlay = path.join(paths.tmp, 'overlay.qcow2');
  await fs.rm(overlay, { force: true });
  await createOverlay({ path: source.path, format: source.format }, overlay, { signal, log });
  let exported: Awaited<ReturnType<typeof exportDisk>> | undefined;
  const sourceFile = async (): Promise<string> => {
    if (source.format === 'raw') return source.path;
    exported ??= await exportDisk({ path: source.path, format: source.format }, paths.tmp, { signal, log });
    return exported.path;
  };
  let guest: Appliance;
  try {
    guest = await launch({
      overlays: [overlay],
      tmpDir: paths.tmp,
      env: options.applianceEnv,
      signal,
      log,
      sourceFile,
    });
  } catch (error) {
    await fs.rm(overlay, { force: true });
    throw error;
  }
  return {
    guest,
    async commit() {
      await exported?.stop();
      await guest.close();
      await fsyncPath(overlay);
      const workSha256 = await sha256File(overlay, signal);
      const { size } = await fs.stat(overlay);
      await renameDurable(overlay, paths.work);
      return { workSha256, workBytes: size };
    },
    async discard() {
      await guest.abort().catch(() => {});
      await exported?.stop().catch(() => {});
      await fs.rm(overlay, { force: true });
    },
  };
}
