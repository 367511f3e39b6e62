/** Puts package files where the guest's own tool finds them (memory of the appliance, never the image) and has it install them. */
import * as fs from 'node:fs/promises';
import * as os from 'node:os';
import * as path from 'node:path';
import { PortError } from '../core/errors.ts';
import { makeDir } from '../core/files.ts';
import type { GuestSession } from '../core/guest.ts';
import type { Log } from '../core/log.ts';
import { createTar } from '../tools/gnu-tar.ts';

/** How a family's tool installs files. */
export interface FileInstaller {
  /** Name in the log. */
  tool: string;
  /** Of the files, so that the script's pattern finds them. */
  suffix: string;
  /** Constant; its argument is the exchange folder, the files are in `packages/in` of it. */
  script: string;
  timeoutMs: number;
}

/** Sends the files and runs the script. Throws GUEST_BROKEN when it fails. */
export async function installFiles(
  guest: GuestSession,
  files: readonly string[],
  installer: FileInstaller,
  log: Log,
  signal: AbortSignal,
): Promise<void> {
  await sendPackages(guest, files, installer.suffix, signal);
  try {
    const output = await guest.guest(installer.script, [guest.exchange], installer.timeoutMs);
    log.debug(installer.tool, { output: output.slice(-20_000) });
  } finally {
    await guest.remove(`${guest.exchange}/packages`);
  }
}

/** Throws GUEST_BROKEN naming what an installation left out. */
export function requireInstalled(lacking: Iterable<string>): void {
  const names = [...lacking];
  if (names.length > 0)
    throw new PortError('GUEST_BROKEN', `not installed in the guest: ${names.join(', ')}`);
}

/** Copies `files` to `packages/in` of the exchange folder, numbered, with `suffix`. Names on the host never reach the guest. */
async function sendPackages(
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
