/** Puts package files where the guest's own tool finds them: memory of the appliance, never the image. */
import * as fs from 'node:fs/promises';
import * as os from 'node:os';
import * as path from 'node:path';
import { makeDir } from '../core/files.ts';
import type { GuestSession } from '../core/guest.ts';
import { createTar } from '../tools/gnu-tar.ts';

/**
 * Copies `files` to `packages/in` of the exchange folder, numbered, with `suffix`. Names on the host never reach the guest. The caller
 * removes `packages`.
 */
export async function sendPackages(
  guest: GuestSession,
  files: readonly string[],
  suffix: string,
  signal: AbortSignal,
): Promise<void> {
  const dir = await fs.mkdtemp(path.join(os.tmpdir(), 'port-image-packages-'));
  try {
    const input = path.join(dir, 'tree', 'in');
    await makeDir(input);
    for (const [i, file] of files.entries()) {
      signal.throwIfAborted();
      await fs.copyFile(file, path.join(input, `${String(i).padStart(4, '0')}${suffix}`));
    }
    const tar = path.join(dir, 'packages.tar');
    await createTar(tar, path.join(dir, 'tree'), signal);
    await guest.guest('mkdir -p "$1/packages"', [guest.exchange]);
    await guest.call('tar-in', [tar, `${guest.exchange}/packages`]);
  } finally {
    await fs.rm(dir, { recursive: true, force: true });
  }
}
