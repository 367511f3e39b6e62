/** Opens an image as `inspect` does: header gate first, then an appliance on a throw-away overlay. Nothing is kept. */
import * as fs from 'node:fs/promises';
import * as os from 'node:os';
import * as path from 'node:path';
import { CONTRACT_PATH, Contract } from '../../core/contract.ts';
import { PortError } from '../../core/errors.ts';
import type { GuestSession } from '../../core/guest.ts';
import { silentLog } from '../../core/log.ts';
import type { SourceFormat } from '../../core/request.ts';
import { printable } from '../../core/text.ts';
import { gate } from '../../stages/capture/index.ts';
import { mountGuest } from '../../stages/inspect/mount.ts';
import { parseProbe } from '../../stages/inspect/probe.ts';
import { chooseRoot, planMounts, refuseBroken } from '../../stages/inspect/root.ts';
import { PROBE } from '../../stages/inspect/scripts.ts';
import type { ImageFile } from '../../tools/image-format/index.ts';
import { libguestfsEnvironment, probeKvm } from '../../tools/kvm.ts';
import { jobPaths } from '../job.ts';
import { openSession } from '../session.ts';

/** How to open an image. */
export interface OpenOptions {
  /** Format, when the content does not tell. */
  format?: SourceFormat | undefined;
  /** Device of the system, when there are several. */
  root?: string | undefined;
  signal: AbortSignal;
  onProgress?: (text: string) => void;
  warn?: (text: string) => void;
}

/** An image in the appliance; nothing is mounted yet. */
export interface OpenImage {
  guest: GuestSession;
  file: ImageFile;
  /** Scratch folder of the session, removed with it. */
  tmpDir: string;
}

/**
 * Launches the appliance on an overlay over the image, calls `look`, throws the overlay away.
 * Throws what the gate throws, APPLIANCE, PROGRAM_MISSING, and what `look` throws.
 */
export async function withImage<T>(
  image: string,
  options: OpenOptions,
  look: (open: OpenImage) => Promise<T>,
): Promise<T> {
  const { signal } = options;
  const temporary = process.env.TMPDIR ?? (os.tmpdir() === '/tmp' ? '/var/tmp' : os.tmpdir());
  const paths = jobPaths(await fs.mkdtemp(path.join(temporary, 'port-image-contract-')));
  try {
    await fs.mkdir(paths.tmp, { mode: 0o700 });
    options.onProgress?.('checking the image');
    const file = await gate(path.resolve(image), {
      format: options.format,
      tmp: paths.tmp,
      signal,
      warn: options.warn,
    });
    options.onProgress?.('starting the appliance');
    const session = await openSession({
      paths,
      disks: [{ id: 'disk0', ...file }],
      applianceEnv: libguestfsEnvironment(await probeKvm()),
      signal,
      log: silentLog,
    });
    try {
      return await look({ guest: session.guest, file, tmpDir: paths.tmp });
    } finally {
      await session.discard();
    }
  } catch (error) {
    // a child that was stopped fails in its own words
    throw signal.aborted ? new PortError('INTERRUPTED', 'interrupted', { cause: error }) : error;
  } finally {
    await fs.rm(paths.dir, { recursive: true, force: true });
  }
}

/** Mounts the image's system and no more; `inspectGuest` does this and looks at everything. */
export async function mountSystem(guest: GuestSession, root: string | undefined): Promise<void> {
  const probe = parseProbe(await guest.appliance(PROBE));
  refuseBroken(probe);
  await mountGuest(guest, planMounts(probe, chooseRoot(probe, root)));
}

/** The first thing wrong with a contract, for people. */
function firstIssue(text: string): string | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return 'it is not JSON';
  }
  const parsed = Contract.safeParse(value);
  // no path or unit has one, and neither the appliance nor a shell can be asked about it
  if (parsed.success) return JSON.stringify(value).includes('\\u0000') ? 'it holds a NUL' : undefined;
  const issue = parsed.error.issues[0];
  return `${issue?.path.join('.') || 'it'}: ${issue?.message ?? 'wrong'}`;
}

/** Reads a contract's text. `where` names the file in messages. Throws NO_CONTRACT. */
export function parseContract(text: string, where: string): Contract {
  const issue = firstIssue(text);
  if (issue !== undefined) {
    throw new PortError('NO_CONTRACT', `${printable(where)} is no contract: ${printable(issue)}`, {
      hint: 'a contract follows schemas/contract.json; docs/contract.md explains it',
    });
  }
  return Contract.parse(JSON.parse(text));
}

/** The text of the contract the mounted guest carries. Throws NO_CONTRACT when there is none. */
export async function contractText(guest: GuestSession, image: string): Promise<string> {
  const text = await guest.readText(CONTRACT_PATH);
  if (text === undefined) {
    throw new PortError('NO_CONTRACT', `${printable(image)} carries no contract (${CONTRACT_PATH})`, {
      hint: 'only images made by port-image convert have one',
    });
  }
  return text;
}

/** Opens the image and reads its contract, without looking at anything else. Throws NO_CONTRACT and as `withImage`. */
export async function readImageContract(image: string, options: OpenOptions): Promise<Contract> {
  return withImage(image, options, async ({ guest }) => {
    await mountSystem(guest, options.root);
    return parseContract(await contractText(guest, image), `${CONTRACT_PATH} in ${image}`);
  });
}
