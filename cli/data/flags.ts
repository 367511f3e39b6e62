/** What all subcommands of `data` share: the store they work on, and how they ask before they remove. */
import * as fs from 'node:fs/promises';
import { createInterface } from 'node:readline/promises';
import type { Command } from 'commander';
import { PortError } from '../../core/errors.ts';
import { printable } from '../../core/text.ts';
import { withStore } from '../../drivers/stores/index.ts';
import type { Store } from '../../drivers/stores/store.ts';
import { cloudName, loadCloud } from '../../tools/openstack/config.ts';
import { CloudSession } from '../../tools/openstack/session.ts';
import type { Interruption } from '../signals.ts';

/** Flags every subcommand has. */
export interface StoreFlags {
  store?: string;
  osCloud?: string;
  json?: boolean;
}

/** Adds the shared flags to a subcommand. */
export function withStoreFlags(command: Command): Command {
  return command
    .option(
      '--store <url>',
      'data store: file:DIR, swift:PREFIX, s3:BUCKET/PREFIX, azure:ACCOUNT/PREFIX or gs:BUCKET/PREFIX (default: PORT_IMAGE_STORE)',
    )
    .option('--os-cloud <name>', 'cloud of a swift: store, as in clouds.yaml (default: OS_CLOUD)')
    .option('--json', 'print JSON')
    .exitOverride();
}

/** Opens the store the flags or PORT_IMAGE_STORE name, runs a task on it, closes it. Throws USAGE without a name. */
export async function onStore<T>(
  flags: StoreFlags,
  signal: AbortSignal,
  task: (store: Store) => Promise<T>,
): Promise<T> {
  const url = flags.store ?? process.env.PORT_IMAGE_STORE;
  if (url === undefined || url === '') {
    throw new PortError('USAGE', 'no data store named', {
      hint: 'name it with --store file:DIR, swift:PREFIX, s3:…, azure:… or gs:…, or set PORT_IMAGE_STORE',
    });
  }
  return withStore({ store: url, storeCloud: flags.osCloud }, signal, task);
}

/** Logs in to the cloud the flags or the environment name. Throws USAGE without one. */
export async function openCloud(flags: StoreFlags, interruption: Interruption): Promise<CloudSession> {
  const name = cloudName(flags.osCloud);
  if (name === undefined) {
    throw new PortError('USAGE', 'no cloud named', {
      hint: 'use --os-cloud, OS_CLOUD or the OS_* variables',
    });
  }
  return CloudSession.open(await loadCloud(name), { signal: interruption.signal });
}

/** The secret of an application credential, from a file or the environment; never from an argument. */
export async function credentialSecret(file: string | undefined): Promise<string | undefined> {
  if (file === undefined) return process.env.OS_APPLICATION_CREDENTIAL_SECRET || undefined;
  let text: string;
  try {
    text = (await fs.readFile(file, 'utf8')).replace(/\r?\n$/, '');
  } catch (error) {
    throw new PortError('CONFIG', `cannot read ${printable(file)}`, { cause: error });
  }
  if (text === '' || /[\u0000-\u001f]/.test(text)) {
    throw new PortError('CONFIG', `${printable(file)} holds no secret: one line is expected`);
  }
  return text;
}

/** Asks on a terminal; elsewhere `--yes` has to be there. Throws USAGE without it, INTERRUPTED on a no. */
export async function confirm(
  question: string,
  yes: boolean | undefined,
  signal: AbortSignal,
): Promise<void> {
  if (yes === true) return;
  if (process.stdin.isTTY !== true || process.stderr.isTTY !== true) {
    throw new PortError('USAGE', `${question} Nobody can be asked here.`, { hint: 'add --yes' });
  }
  const reader = createInterface({ input: process.stdin, output: process.stderr });
  try {
    const answer = await reader.question(`${question} [y/N] `, { signal });
    if (/^y(es)?$/i.test(answer.trim())) return;
  } finally {
    reader.close();
  }
  throw new PortError('INTERRUPTED', 'nothing was removed');
}
