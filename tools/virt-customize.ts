/** virt-customize on an overlay of ours, without network; and what of its command files is accepted. */
import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import { run } from '../core/command.ts';
import { PortError } from '../core/errors.ts';
import type { Log } from '../core/log.ts';
import { printable } from '../core/text.ts';

/** One command of a file. */
export interface CustomizeCommand {
  line: number;
  name: string;
  argument: string;
}

/** How a command's argument names a file on this machine. */
type HostFile = 'whole' | 'before-colon' | 'selector' | 'none';

/** Commands that work without network and leave the session to us. */
const COMMANDS: Readonly<Record<string, HostFile>> = {
  'append-line': 'none',
  chmod: 'none',
  copy: 'none',
  'copy-in': 'before-colon',
  delete: 'none',
  edit: 'none',
  firstboot: 'whole',
  'firstboot-command': 'none',
  hostname: 'none',
  link: 'none',
  mkdir: 'none',
  move: 'none',
  password: 'selector',
  'password-crypto': 'none',
  'root-password': 'selector',
  run: 'whole',
  'run-command': 'none',
  scrub: 'none',
  'selinux-relabel': 'none',
  'ssh-inject': 'selector',
  timezone: 'none',
  touch: 'none',
  truncate: 'none',
  'truncate-recursive': 'none',
  uninstall: 'none',
  upload: 'before-colon',
  write: 'none',
};

/** Commands virt-customize knows and we refuse, with the reason. */
const REFUSED: Readonly<Record<string, string>> = {
  install: 'there is no network in the guest; bring the packages with upload and run-command "dpkg -i …"',
  update: 'there is no network in the guest',
  'firstboot-install': 'it needs a network the tool cannot check',
  'commands-from-file': 'one file only, so that all of it is checked',
  'sm-attach': 'it needs a network',
  'sm-credentials': 'it needs a network',
  'sm-register': 'it needs a network',
  'sm-remove': 'it needs a network',
  'sm-unregister': 'it needs a network',
};

/** Parses a command file: `name argument` per line, `#` comments, `\` at the end joins lines. Throws CONFIG. */
export function parseCommands(text: string): CustomizeCommand[] {
  const commands: CustomizeCommand[] = [];
  const lines = text.split('\n');
  for (let at = 0; at < lines.length; at++) {
    const line = at + 1;
    let whole = (lines[at] ?? '').trimStart();
    if (whole === '' || whole.startsWith('#')) continue;
    while (whole.endsWith('\\') && at + 1 < lines.length) whole = `${whole.slice(0, -1)}${lines[++at] ?? ''}`;
    const match = /^([a-z][a-z-]*)(?:[ \t:]\s*([\s\S]*))?$/.exec(whole);
    const name = match?.[1] ?? '';
    if (REFUSED[name] !== undefined)
      throw new PortError('CONFIG', `line ${line}: ${name} is not possible here`, { hint: REFUSED[name] });
    if (match === null || COMMANDS[name] === undefined) {
      throw new PortError('CONFIG', `line ${line}: not a command: ${printable(whole).slice(0, 80)}`, {
        hint: `known: ${Object.keys(COMMANDS).join(', ')} (see virt-customize(1), without the two dashes)`,
      });
    }
    commands.push({ line, name, argument: match[2] ?? '' });
  }
  return commands;
}

/** Files of this machine the commands name, relative ones below `dir`. */
export function hostFiles(
  commands: readonly CustomizeCommand[],
  dir: string,
): { line: number; file: string }[] {
  return commands.flatMap(({ line, name, argument }) => {
    const how = COMMANDS[name] ?? 'none';
    const found =
      how === 'whole'
        ? argument
        : how === 'before-colon'
          ? argument.slice(0, Math.max(0, argument.indexOf(':')))
          : how === 'selector'
            ? /(?:^|:)file:(.+)$/.exec(argument)?.[1]
            : undefined;
    return found === undefined || found === '' ? [] : [{ line, file: path.resolve(dir, found) }];
  });
}

/** Reads and checks a command file and the files it names. Throws CONFIG. */
export async function readCommandFile(file: string): Promise<CustomizeCommand[]> {
  const text = await fs.readFile(file, 'utf8').catch((cause: unknown) => {
    throw new PortError('CONFIG', `cannot read the customisation file ${printable(file)}`, { cause });
  });
  const commands = parseCommands(text);
  for (const { line, file: wanted } of hostFiles(commands, path.dirname(file))) {
    await fs.access(wanted, fs.constants.R_OK).catch((cause: unknown) => {
      throw new PortError('CONFIG', `line ${line}: cannot read ${printable(wanted)}`, { cause });
    });
  }
  return commands;
}

/** How to run. */
export interface CustomizeOptions {
  /** Overlays of ours, qcow2, in disk order. */
  overlays: readonly string[];
  /** Checked command file. Relative names in it are relative to its folder. */
  file: string;
  /** LIBGUESTFS_* environment (KVM or TCG). */
  env: Record<string, string>;
  signal: AbortSignal;
  log: Log;
  timeoutMs?: number;
}

/**
 * Runs the commands, then empties again what virt-customize fills by itself (machine-id, random seed, its log).
 * Throws PROGRAM_FAILED with virt-customize's own words; the overlay must then be thrown away.
 */
export async function customize(options: CustomizeOptions): Promise<void> {
  await run(
    'virt-customize',
    [
      '--quiet',
      '--no-network',
      '--no-logfile',
      ...options.overlays.flatMap((overlay) => ['--format', 'qcow2', '-a', overlay]),
      '--commands-from-file',
      options.file,
      '--run-command',
      ': > /etc/machine-id; rm -f /var/lib/systemd/random-seed /var/lib/random-seed /var/lib/urandom/random-seed',
    ],
    {
      env: options.env,
      cwd: path.dirname(options.file),
      signal: options.signal,
      log: options.log,
      timeoutMs: options.timeoutMs ?? 3_600_000,
    },
  );
}
