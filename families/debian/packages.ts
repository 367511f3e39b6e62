/**
 * Packages for guests of the Debian family, resolved on this machine: apt-get works in a private root with the guest's
 * package database, sources and keys, so the guest itself needs no network.
 */
import { createHash } from 'node:crypto';
import * as fs from 'node:fs/promises';
import * as os from 'node:os';
import * as path from 'node:path';
import { PortError } from '../../core/errors.ts';
import type { Facts } from '../../core/facts.ts';
import { exists, makeDir, renameDurable, sha256File, temporaryName } from '../../core/files.ts';
import type { GuestFiles } from '../../core/guest.ts';
import type { AgentRole } from '../../core/platform.ts';
import {
  type AptAction,
  type AptRoot,
  type AptUri,
  aptDownload,
  aptSolve,
  aptUris,
  makeAptRoot,
} from '../../tools/apt.ts';
import { indexPool, type PoolPackage } from '../../tools/dpkg.ts';
import type { PackageSet, ResolveOptions } from '../family.ts';
import { HOST_KEYRINGS, ROLE_PACKAGES } from './packages-data.ts';
import { provideLists } from './packages-lists.ts';
import { type Keyring, keyring, type PackageSource, readSources, renderSources } from './packages-sources.ts';
import { type DpkgStatus, few, readStatus } from './packages-status.ts';

export { installPackages, removePackages } from './packages-install.ts';

/** Package names of a role for this guest. */
export function packagesFor(role: AgentRole, facts: Facts): readonly string[] {
  const row = ROLE_PACKAGES[role];
  return row.of?.[facts.os.distro] ?? row.packages;
}

/**
 * Finds and downloads what the guest lacks for `names`. Installed packages are upgraded only when a dependency forces it
 * and never removed. Throws PACKAGES, or GUEST_BROKEN when the guest's own package database is not in order.
 */
export async function resolvePackages(
  guest: GuestFiles,
  names: readonly string[],
  options: ResolveOptions,
): Promise<PackageSet> {
  const status = await readStatus(guest);
  const wanted = names.filter((n) => !isInstalled(status, n));
  if (wanted.length === 0) return { files: [], packages: [] };
  const base = /^\/[\w./@%+=:-]+$/.test(options.tmpDir) ? options.tmpDir : os.tmpdir();
  const work = await fs.mkdtemp(path.join(base, 'apt-'));
  try {
    return options.offlinePool === undefined
      ? await fromSources(guest, wanted, status, work, options)
      : await fromPool(wanted, status, work, options.offlinePool, options);
  } finally {
    await fs.rm(work, { recursive: true, force: true });
  }
}

/** True when a package of this name is installed, whatever its architecture. */
export function isInstalled(status: DpkgStatus, name: string): boolean {
  return status.installed.has(name) || status.installed.has(`${name}:${status.nativeArchitecture}`);
}

async function fromPool(
  wanted: readonly string[],
  status: DpkgStatus,
  work: string,
  poolDir: string,
  options: ResolveOptions,
): Promise<PackageSet> {
  const repo = path.join(work, 'pool');
  await makeDir(repo);
  const pool = await indexPool(path.resolve(poolDir), repo, options.signal);
  const root = await makeAptRoot({
    dir: path.join(work, 'root'),
    architecture: status.nativeArchitecture,
    foreignArchitectures: status.foreignArchitectures,
    status: status.rendered,
    // The operator named this folder, so it needs no signature.
    sources: `Types: deb\nURIs: file:${repo}/\nSuites: ./\nTrusted: yes\n`,
    defaultKeyrings: [],
    signal: options.signal,
    log: options.log,
  });
  await provideLists(root, {
    cacheDir: path.join(work, 'no-cache'),
    key: 'pool',
    force: true,
    warn: (text) => options.log.debug('offline pool', { text }),
  });
  const names = await withoutUnfit(root, wanted, options);
  if (names.length === 0) return { files: [], packages: [] };
  const actions = judge(await aptSolve(root, names), status, options);
  const found = actions.map((action) => {
    const entry = pool.find(
      (p) => p.name === action.name && p.version === action.version && p.architecture === action.architecture,
    );
    if (entry === undefined) throw new PortError('BUG', `apt chose ${action.name}, which the folder lacks`);
    return entry;
  });
  return toSet(actions, found, wanted);
}

async function fromSources(
  guest: GuestFiles,
  wanted: readonly string[],
  status: DpkgStatus,
  work: string,
  options: ResolveOptions,
): Promise<PackageSet> {
  const warn = options.warn ?? ((text) => options.log.warn(text));
  const { sources, warnings } = await readSources(guest, status.nativeArchitecture);
  for (const text of warnings) warn(`package source: ${text}`);
  if (sources.length === 0) {
    throw new PortError('PACKAGES', 'the guest has no usable package source (only http and https are used)', {
      hint: 'give the packages yourself with --packages DIR',
    });
  }
  const keys = await collectKeyrings(guest, sources, path.join(work, 'keys'), warn);
  const root = await makeAptRoot({
    dir: path.join(work, 'root'),
    architecture: status.nativeArchitecture,
    foreignArchitectures: status.foreignArchitectures,
    status: status.rendered,
    sources: renderSources(keys.sources),
    defaultKeyrings: keys.defaults,
    signal: options.signal,
    log: options.log,
  });
  const lists = { cacheDir: options.cacheDir, key: keys.digest(status), warn };
  const { fromCache } = await provideLists(root, { ...lists, force: false });
  try {
    return await solveAndFetch(root, wanted, status, options);
  } catch (error) {
    // Lists of yesterday may name files the archive has replaced since, or not know a package yet.
    if (!fromCache || !(error instanceof PortError) || error.code !== 'PACKAGES') throw error;
    options.log.info('package lists refreshed', { because: error.message });
    await provideLists(root, { ...lists, force: true });
    return solveAndFetch(root, wanted, status, options);
  }
}

/**
 * Optional packages one by one: what the release does not have, or what would push something out of the guest, is left
 * out. Agents of one platform must not cost the others their image.
 */
async function withoutUnfit(
  root: AptRoot,
  names: readonly string[],
  options: ResolveOptions,
): Promise<string[]> {
  const kept: string[] = [];
  for (const name of names) {
    const unfit = options.optional?.includes(name) === true ? await whyUnfit(root, name) : undefined;
    if (unfit === undefined) kept.push(name);
    else options.warn?.(`${name} is left out: ${unfit}`);
  }
  return kept;
}

async function whyUnfit(root: AptRoot, name: string): Promise<string | undefined> {
  try {
    const removed = (await aptSolve(root, [name])).filter((a) => a.action === 'remove').map((a) => a.name);
    return removed.length === 0 ? undefined : `it would remove ${few(removed)} from the guest`;
  } catch (error) {
    if (error instanceof PortError && error.code === 'PACKAGES' && !error.temporary) return error.message;
    throw error;
  }
}

async function solveAndFetch(
  root: AptRoot,
  asked: readonly string[],
  status: DpkgStatus,
  options: ResolveOptions,
): Promise<PackageSet> {
  const wanted = await withoutUnfit(root, asked, options);
  if (wanted.length === 0) return { files: [], packages: [] };
  const actions = judge(await aptSolve(root, wanted), status, options);
  const uris = await aptUris(root, wanted);
  const files = await fetchAll(root, wanted, uris, options);
  const found = actions.map((action): PoolPackage => {
    const fileName = `${action.name}_${action.version.replaceAll(':', '%3a')}_${action.architecture}.deb`;
    const uri = uris.find((u) => u.fileName === fileName);
    const file = files.get(fileName);
    if (uri === undefined || file === undefined)
      throw new PortError('BUG', `apt chose ${fileName} but does not download it`);
    return { ...action, file, bytes: uri.bytes, sha256: uri.sha256 };
  });
  return toSet(actions, found, wanted);
}

/** Files by name, all verified against the signed index; downloads only what the cache lacks. */
async function fetchAll(
  root: AptRoot,
  wanted: readonly string[],
  uris: readonly AptUri[],
  options: ResolveOptions,
): Promise<Map<string, string>> {
  const shelf = path.join(options.cacheDir, 'archives');
  await makeDir(shelf);
  const files = new Map<string, string>();
  const missing: AptUri[] = [];
  for (const uri of uris) {
    const file = path.join(shelf, `${uri.sha256.slice(0, 16)}-${uri.fileName}`);
    if ((await exists(file)) && (await sha256File(file, options.signal)) === uri.sha256)
      files.set(uri.fileName, file);
    else missing.push(uri);
  }
  if (missing.length === 0) return files;
  for (const [name, file] of files) await fs.copyFile(file, path.join(root.archives, name));
  await aptDownload(root, wanted);
  for (const uri of missing) {
    const got = path.join(root.archives, uri.fileName);
    if (!(await exists(got)) || (await sha256File(got, options.signal)) !== uri.sha256) {
      throw new PortError('PACKAGES', `${uri.fileName} is not what the signed index says`, {
        temporary: true,
      });
    }
    const file = path.join(shelf, `${uri.sha256.slice(0, 16)}-${uri.fileName}`);
    const temporary = temporaryName(file);
    try {
      await fs.copyFile(got, temporary);
      await renameDurable(temporary, file);
    } finally {
      await fs.rm(temporary, { force: true });
    }
    files.set(uri.fileName, file);
  }
  return files;
}

/** Refuses solutions that take something away from the guest; says what they upgrade. */
function judge(actions: AptAction[], status: DpkgStatus, options: ResolveOptions): AptAction[] {
  const removed = actions.filter((a) => a.action === 'remove').map((a) => a.name);
  if (removed.length > 0) {
    throw new PortError('PACKAGES', `the installation would remove ${few(removed)} from the guest`, {
      hint: 'give packages that fit with --packages DIR, or remove the conflicting package on the server',
    });
  }
  const held = actions.filter((a) =>
    [...status.installed.values()].some((s) => s.held && s.name === a.name && a.replaces !== undefined),
  );
  if (held.length > 0) {
    throw new PortError(
      'GUEST_BROKEN',
      `packages on hold would have to change: ${few(held.map((h) => h.name))}`,
      {
        hint: 'run on the server: apt-mark unhold PACKAGE, or give packages that fit with --packages DIR',
      },
    );
  }
  const upgraded = actions.filter((a) => a.replaces !== undefined);
  if (upgraded.length > 0) {
    options.warn?.(
      `dependencies upgrade installed packages: ${few(upgraded.map((u) => `${u.name} ${u.replaces} → ${u.version}`))}`,
    );
  }
  return actions;
}

function toSet(
  actions: readonly AptAction[],
  found: readonly PoolPackage[],
  wanted: readonly string[],
): PackageSet {
  return {
    files: found.map((f) => f.file),
    packages: actions.map((a, i) => ({
      name: a.name,
      version: a.version,
      architecture: a.architecture,
      requested: wanted.includes(a.name),
      bytes: found[i]?.bytes ?? 0,
      ...(a.replaces === undefined ? {} : { replaces: a.replaces }),
    })),
  };
}

interface CollectedKeys {
  sources: { source: PackageSource; signedBy: string[] }[];
  defaults: Keyring[];
  digest(status: DpkgStatus): string;
}

/** Copies the keyrings the sources name; a source whose keyring is missing falls back to this machine's archive keys. */
async function collectKeyrings(
  guest: GuestFiles,
  sources: readonly PackageSource[],
  dir: string,
  warn: (text: string) => void,
): Promise<CollectedKeys> {
  await makeDir(dir);
  const distro = (await guest.readText('/etc/os-release'))?.match(/^ID=["']?([a-z]+)/m)?.[1] ?? 'debian';
  const hostKeys = await readHostKeyrings(distro);
  const place = async (content: Buffer): Promise<string> => {
    const key = keyring(content);
    const file = path.join(dir, key.name);
    await fs.writeFile(file, key.content);
    return file;
  };
  const defaults: Keyring[] = [];
  for (const name of await guest.list('/etc/apt/trusted.gpg.d')) {
    const content = /\.(?:gpg|asc)$/.test(name)
      ? await guest.read(`/etc/apt/trusted.gpg.d/${name}`)
      : undefined;
    if (content !== undefined && content.length > 0) defaults.push(keyring(content));
  }
  if (defaults.length === 0) defaults.push(...hostKeys.map(keyring));
  const out: CollectedKeys['sources'] = [];
  for (const source of sources) {
    const { signedBy } = source;
    if (signedBy.kind === 'default') out.push({ source, signedBy: [] });
    else if (signedBy.kind === 'fingerprints') out.push({ source, signedBy: signedBy.fingerprints });
    else if (signedBy.kind === 'inline')
      out.push({ source, signedBy: [await place(Buffer.from(signedBy.armored))] });
    else {
      const contents = await Promise.all(signedBy.paths.map((p) => guest.read(p)));
      let known = contents.filter((c) => c !== undefined && c.length > 0) as Buffer[];
      if (known.length === 0) {
        warn(
          `the guest lacks the keyring ${signedBy.paths.join(', ')}; this machine's ${distro} keys are used`,
        );
        known = hostKeys;
      }
      out.push({ source, signedBy: await Promise.all(known.map(place)) });
    }
  }
  return {
    sources: out,
    defaults,
    digest: (status) =>
      createHash('sha256')
        .update(JSON.stringify([status.nativeArchitecture, status.foreignArchitectures, sources]))
        .update(out.flatMap((o) => o.signedBy.map((s) => path.basename(s))).join(' '))
        .update(defaults.map((d) => d.name).join(' '))
        .digest('hex')
        .slice(0, 24),
  };
}

async function readHostKeyrings(distro: string): Promise<Buffer[]> {
  const out: Buffer[] = [];
  for (const file of HOST_KEYRINGS[distro] ?? HOST_KEYRINGS.debian ?? []) {
    if (await exists(file)) out.push(await fs.readFile(file));
  }
  return out;
}
