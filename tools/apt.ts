/**
 * apt-get in a private root: its own configuration, sources, keys, status and lists. Nothing of the host's apt takes
 * part except how this machine reaches the network (proxy, certificates, date checks), and nothing of a guest's apt
 * configuration at all.
 */
import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import { run } from '../core/command.ts';
import { PortError } from '../core/errors.ts';
import { FILE_MODE, makeDir } from '../core/files.ts';
import type { Log } from '../core/log.ts';
import { printable } from '../core/text.ts';

/** What a private root is made of. */
export interface AptRootOptions {
  /** Folder to make; its path must hold no white space and no comma (apt's file syntax). */
  dir: string;
  architecture: string;
  foreignArchitectures: readonly string[];
  /** dpkg status text. */
  status: string;
  /** deb822 text. */
  sources: string;
  /** Keyrings every source without Signed-By trusts: name and content. */
  defaultKeyrings: readonly { name: string; content: Uint8Array }[];
  signal: AbortSignal;
  log: Log;
}

/** A private apt root on this machine. */
export interface AptRoot {
  readonly dir: string;
  readonly lists: string;
  readonly archives: string;
  readonly signal: AbortSignal;
  readonly log: Log;
}

/** One step of apt's solution. */
export interface AptAction {
  action: 'install' | 'remove';
  name: string;
  /** New version, or the version removed. */
  version: string;
  /** Version that is installed now, when it is an upgrade. */
  replaces?: string;
  architecture: string;
}

/** A file apt would download. */
export interface AptUri {
  uri: string;
  fileName: string;
  bytes: number;
  /** Hex, from the signed index. */
  sha256: string;
}

const HOST_SETTINGS =
  /^(Acquire::(?:https?(?:::[\w.:-]+)?::(?:Proxy(?:::[\w.-]+)?|Proxy-Auto-Detect|CAInfo|CAPath|Verify-Peer|Timeout|User-Agent)|Check-Valid-Until|Check-Date|Retries|ForceIPv[46])) "([^"\\\n]*)";$/;

/** How this machine reaches its archives, from `apt-config dump`. */
export function hostSettings(dump: string): string[] {
  return dump.split('\n').flatMap((line) => {
    const match = HOST_SETTINGS.exec(line);
    return match === null || match[2] === '' ? [] : [`${match[1]} "${match[2]}";`];
  });
}

/** Makes a private root. Throws PROGRAM_MISSING on a machine without apt. */
export async function makeAptRoot(options: AptRootOptions): Promise<AptRoot> {
  const { dir } = options;
  if (!/^\/[\w./@%+=:-]+$/.test(dir)) throw new PortError('BUG', `apt root with unusual characters: ${dir}`);
  const lists = path.join(dir, 'lists');
  const archives = path.join(dir, 'archives');
  for (const sub of [
    'lists/partial',
    'archives/partial',
    'etc/preferences.d',
    'etc/trusted.gpg.d',
    'etc/empty.d',
  ])
    await makeDir(path.join(dir, sub));
  const dump = await run('apt-config', ['dump'], { signal: options.signal, log: options.log });
  const quoted = (text: string) => `"${text}"`;
  const settings = [
    ...hostSettings(dump.stdout),
    `Dir ${quoted(dir)};`,
    `Dir::State ${quoted(dir)};`,
    `Dir::State::status ${quoted(`${dir}/status`)};`,
    `Dir::State::lists ${quoted(lists)};`,
    `Dir::State::extended_states ${quoted(`${dir}/extended_states`)};`,
    `Dir::Cache ${quoted(dir)};`,
    `Dir::Cache::archives ${quoted(archives)};`,
    'Dir::Cache::pkgcache "";',
    'Dir::Cache::srcpkgcache "";',
    `Dir::Etc ${quoted(`${dir}/etc`)};`,
    `Dir::Etc::parts ${quoted(`${dir}/etc/empty.d`)};`,
    `Dir::Etc::sourcelist ${quoted(`${dir}/etc/guest.sources`)};`,
    `Dir::Etc::sourceparts ${quoted(`${dir}/etc/empty.d`)};`,
    `Dir::Etc::trusted ${quoted(`${dir}/etc/trusted.gpg`)};`,
    `Dir::Etc::trustedparts ${quoted(`${dir}/etc/trusted.gpg.d`)};`,
    `Dir::Etc::preferencesparts ${quoted(`${dir}/etc/preferences.d`)};`,
    'Dir::Bin::dpkg "/usr/bin/dpkg";',
    `Dir::Log ${quoted(dir)};`,
    `APT::Architecture ${quoted(options.architecture)};`,
    `APT::Architectures { ${[options.architecture, ...options.foreignArchitectures].map((a) => `${quoted(a)};`).join(' ')} };`,
    'APT::Install-Recommends "false";',
    'APT::Install-Suggests "false";',
    // The root is 0700, so apt's own user could not enter it.
    'APT::Sandbox::User "root";',
    'Acquire::Languages "none";',
    'Acquire::GzipIndexes "true";',
    'Acquire::ForceHash "SHA256";',
    'Acquire::AllowInsecureRepositories "false";',
    'Acquire::AllowWeakRepositories "false";',
    'Acquire::AllowDowngradeToInsecureRepositories "false";',
    'APT::Get::AllowUnauthenticated "false";',
  ];
  const write = (name: string, content: string | Uint8Array) =>
    fs.writeFile(path.join(dir, name), content, { mode: FILE_MODE });
  await write('apt.conf', `${settings.join('\n')}\n`);
  await write('status', options.status);
  await write('etc/guest.sources', options.sources);
  for (const key of options.defaultKeyrings) await write(`etc/trusted.gpg.d/${key.name}`, key.content);
  return { dir, lists, archives, signal: options.signal, log: options.log };
}

/** Result of an update. */
export interface AptUpdate {
  /** What apt complained about; empty when every index is fresh. */
  problems: string[];
}

/** Downloads and verifies the indexes. Never throws for unreachable sources: they are in `problems`. */
export async function aptUpdate(root: AptRoot): Promise<AptUpdate> {
  const result = await aptGet(root, ['-q', 'update'], [0, 100]);
  return { problems: complaints(result.stderr) };
}

/** apt's solution for installing `names`. Throws PACKAGES (unknown package, conflict) with apt's words. */
export async function aptSolve(root: AptRoot, names: readonly string[]): Promise<AptAction[]> {
  const result = await aptGet(root, ['-q', '-y', '-s', 'install', '--', ...names], [0, 100]);
  if (result.exitCode !== 0) throw solverError(names, result.stdout, result.stderr);
  return parseActions(result.stdout);
}

/** Parses the `Inst` and `Remv` lines of `apt-get -s`, in apt's order. */
export function parseActions(output: string): AptAction[] {
  const actions: AptAction[] = [];
  for (const line of output.split('\n')) {
    const inst = /^Inst (\S+?)(?::\S+)? (?:\[(\S+)\] )?\((\S+) [^[]*\[([^\]]+)\]\)/.exec(line);
    if (inst) {
      actions.push({
        action: 'install',
        name: inst[1] ?? '',
        version: inst[3] ?? '',
        architecture: inst[4] ?? '',
        ...(inst[2] === undefined ? {} : { replaces: inst[2] }),
      });
      continue;
    }
    const remv = /^(?:Remv|Purg) (\S+?)(?::(\S+))? (?:\[(\S+)\])?/.exec(line);
    if (remv)
      actions.push({
        action: 'remove',
        name: remv[1] ?? '',
        version: remv[3] ?? '',
        architecture: remv[2] ?? '',
      });
  }
  return actions;
}

/** Files apt would have to download for `names`. Throws PACKAGES when one has no SHA-256. */
export async function aptUris(root: AptRoot, names: readonly string[]): Promise<AptUri[]> {
  const result = await aptGet(root, ['-qq', '-y', '--print-uris', 'install', '--', ...names], [0]);
  return parseUris(result.stdout);
}

/** Parses `--print-uris`. Throws PACKAGES. */
export function parseUris(output: string): AptUri[] {
  return output
    .split('\n')
    .filter((l) => l.startsWith("'"))
    .map((line) => {
      const match = /^'([^']+)' (\S+) (\d+) SHA256:([0-9a-f]{64})$/.exec(line.trim());
      const fileName = match?.[2] ?? '';
      if (match === null || fileName.includes('/') || fileName.startsWith('.'))
        throw new PortError(
          'PACKAGES',
          `the package index gives no SHA-256: ${printable(line).slice(0, 200)}`,
        );
      return { uri: match[1] ?? '', fileName, bytes: Number(match[3]), sha256: match[4] ?? '' };
    });
}

/** Downloads what `names` needs into `root.archives`; apt verifies size and hash. Throws PACKAGES (temporary). */
export async function aptDownload(root: AptRoot, names: readonly string[]): Promise<void> {
  const result = await aptGet(root, ['-q', '-y', '--download-only', 'install', '--', ...names], [0, 100]);
  if (result.exitCode !== 0) {
    throw new PortError('PACKAGES', `download failed: ${complaints(result.stderr).slice(0, 3).join(' | ')}`, {
      hint: 'look at the network and the proxy of this machine, or use --packages DIR',
      temporary: true,
    });
  }
}

function aptGet(root: AptRoot, args: readonly string[], okStatus: readonly number[]) {
  return run('apt-get', args, {
    env: { APT_CONFIG: path.join(root.dir, 'apt.conf'), DEBIAN_FRONTEND: 'noninteractive' },
    okStatus,
    signal: root.signal,
    log: root.log,
    timeoutMs: 900_000,
  });
}

function complaints(stderr: string): string[] {
  return stderr
    .split('\n')
    .filter((l) => /^[EW]: /.test(l))
    .map((l) => printable(l.slice(3)).slice(0, 300));
}

function solverError(names: readonly string[], stdout: string, stderr: string): PortError {
  const said = complaints(stderr);
  const missing = said.flatMap(
    (l) => /^Unable to locate package (\S+)|^Package '?(\S+?)'? has no inst/.exec(l)?.slice(1) ?? [],
  );
  const unknown = missing.filter((m) => m !== undefined);
  if (unknown.length > 0) {
    return new PortError('PACKAGES', `not in the guest's package sources: ${unknown.join(', ')}`, {
      hint: 'give the packages yourself with --packages DIR',
    });
  }
  if (said.some((l) => /--fix-broken|fix-broken install/.test(l))) {
    return new PortError('GUEST_BROKEN', `packages of the guest lack their dependencies: ${unmet(stdout)}`, {
      hint: 'run on the server: apt-get --fix-broken install',
    });
  }
  return new PortError(
    'PACKAGES',
    `cannot install ${names.join(', ')}: ${unmet(stdout) || said.join(' | ')}`,
    {
      hint: 'give matching packages with --packages DIR',
    },
  );
}

function unmet(stdout: string): string {
  return stdout
    .split('\n')
    .filter((l) => /^\s+\S+ : |^\s+(?:Pre)?Depends: |^\s+(?:Breaks|Conflicts): /.test(l))
    .map((l) => printable(l.trim()).replace(/\s+/g, ' '))
    .slice(0, 5)
    .join('; ');
}
