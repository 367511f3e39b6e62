/** What goes into the image so that it fetches its own data: the client, the units, one configuration per data set. */
import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import type { Contract } from '../core/contract.ts';
import type { DataMode } from '../core/data-set.ts';
import { PortError } from '../core/errors.ts';
import type { Facts } from '../core/facts.ts';
import type { GuestFiles } from '../core/guest.ts';
import { formatBytes } from '../core/sizes.ts';
import { writeContract } from './contract-writer.ts';
import {
  canAutomount,
  dataSetUnits,
  FETCH_TEMPLATE,
  type GuestFile,
  isEarlyUnit,
  PREFETCH_UNIT,
  prefetchLink,
} from './systemd-units.ts';

/** Name of the note left in an emptied folder. */
export const STUB_NAME = 'PORT-IMAGE-DATA.txt';

/** A data set as the image has to know it. */
export interface GuestDataSet {
  id: string;
  path: string;
  mode: DataMode;
  neededBy: readonly string[];
  /** Paths below `path` that stayed in the image and win over the stored ones. */
  keep: readonly string[];
  bytes: number;
  files: number;
  /** Free space a restore needs, in bytes. */
  neededBytes: number;
  segments: number;
  manifestSha256: string;
  segmentsSha256: string;
}

/** What to install. */
export interface GuestSideOptions {
  init: Facts['os']['init'];
  contract: Contract;
  dataSets: readonly GuestDataSet[];
  warn: (text: string) => void;
}

/** A path that was written, for the list of changes. */
export interface Installed {
  path: string;
  why: string;
}

/** Reads a file of the package's `guest/` folder, in a checkout or beside the compiled sources. Throws BUG. */
async function guestAsset(name: string): Promise<string> {
  for (let dir = import.meta.dirname; ; dir = path.dirname(dir)) {
    try {
      return await fs.readFile(path.join(dir, 'guest', name), 'utf8');
    } catch (error) {
      if (dir === path.dirname(dir)) throw new PortError('BUG', `guest/${name} is missing`, { cause: error });
    }
  }
}

const shell = (text: string) => `'${text.replaceAll("'", "'\\''")}'`;

/** A relative path for `printf %b` and an unquoted list: every other byte than plain ones as `\0ooo`. */
function listWord(text: string): string {
  return Array.from(Buffer.from(text), (byte) => {
    const c = String.fromCharCode(byte);
    return /[A-Za-z0-9._/-]/.test(c) ? c : `\\0${byte.toString(8).padStart(3, '0')}`;
  }).join('');
}

/** Configuration of one data set, read by the shell client. */
export function dataSetConf(set: GuestDataSet): string {
  return [
    '# Written by port-image.',
    `ID=${shell(set.id)}`,
    `DATA_PATH=${shell(set.path)}`,
    `PATH_JSON=${shell(JSON.stringify(set.path))}`,
    `MODE=${set.mode}`,
    `NEEDED_BY=${shell(set.neededBy.join(' '))}`,
    `KEEP=${shell(set.keep.map(listWord).join(' '))}`,
    `BYTES=${set.bytes}`,
    `FILES=${set.files}`,
    `NEED_KIB=${Math.ceil(set.neededBytes / 1024)}`,
    `SEGMENTS=${set.segments}`,
    `MANIFEST_SHA256=${set.manifestSha256}`,
    `SEGMENTS_SHA256=${set.segmentsSha256}`,
    '',
  ].join('\n');
}

/** The note left in an emptied folder. */
export function stubText(set: Pick<GuestDataSet, 'id' | 'path' | 'bytes' | 'files' | 'mode'>): string {
  const when = {
    eager: 'The instance fetches it while it starts.',
    lazy: 'The instance fetches it when this folder is first used.',
    manual: 'The instance fetches it on command.',
  }[set.mode];
  return `The content of this folder is not part of the image: it is data set ${set.id},
${set.files} files, ${formatBytes(set.bytes)}, in the data store the image was made with.

${when}
By hand:  port-image-data fetch ${set.id}
State:    port-image-data status
`;
}

/** The mode that works with this init system and path; says so when it is another one than asked for. */
export function effectiveMode(
  set: Pick<GuestDataSet, 'mode' | 'path'>,
  init: Facts['os']['init'],
  isMountPoint: boolean,
  warn: (text: string) => void,
): DataMode {
  if (set.mode === 'manual') return 'manual';
  if (init !== 'systemd' && init !== 'openrc') {
    warn(`${set.path}: this init system cannot fetch data at boot; run: port-image-data fetch ${set.path}`);
    return 'manual';
  }
  if (set.mode === 'lazy' && (init !== 'systemd' || isMountPoint || !canAutomount(set.path))) {
    warn(`${set.path}: cannot be fetched at first access, so it is fetched at boot`);
    return 'eager';
  }
  return set.mode;
}

async function place(guest: GuestFiles, file: GuestFile): Promise<void> {
  await guest.mkdir(path.posix.dirname(file.path));
  if (file.link !== undefined) {
    await guest.remove(file.path);
    await guest.symlink(file.link, file.path);
  } else await guest.write(file.path, file.content ?? '', { mode: 0o644, uid: 0, gid: 0 });
}

const UNIT_DIRS = ['/etc/systemd/system', '/usr/lib/systemd/system', '/lib/systemd/system'] as const;

/**
 * The units that can wait for the network. One that must be up before the network or before cloud-init would wait for
 * itself: systemd breaks such a ring by dropping a job, at worst cloud-init's. It starts without the data instead and
 * is named.
 */
async function withoutEarlyUnits(
  guest: GuestFiles,
  set: GuestDataSet,
  warn: (text: string) => void,
): Promise<string[]> {
  const kept: string[] = [];
  for (const unit of set.neededBy) {
    const texts = await Promise.all(UNIT_DIRS.map((dir) => guest.readText(`${dir}/${unit}`)));
    const text = texts.find((t) => t !== undefined);
    if (text === undefined || !isEarlyUnit(text)) kept.push(unit);
    else {
      warn(
        `${unit} starts before the network, so it cannot wait for ${set.path}; restart it when the data is there`,
      );
    }
  }
  return kept;
}

/** Writes contract, client, units and configurations. Idempotent. Returns what was written. */
export async function installGuestSide(guest: GuestFiles, options: GuestSideOptions): Promise<Installed[]> {
  const done: Installed[] = [];
  const put = async (file: GuestFile, why: string, mode = 0o644) => {
    await place(guest, file);
    if (mode !== 0o644 && file.content !== undefined)
      await guest.write(file.path, file.content, { mode, uid: 0, gid: 0 });
    done.push({ path: file.path, why });
  };
  await writeContract(guest, options.contract);
  done.push({ path: '/usr/lib/port-image/contract.json', why: 'what this image is and what it expects' });
  const client = await guestAsset('port-image-data');
  await put({ path: '/usr/sbin/port-image-data', content: client }, 'fetches data sets', 0o755);
  const reader = await guestAsset('json-get.awk');
  await put({ path: '/usr/lib/port-image/json-get.awk', content: reader }, 'reads the provision document');
  const finder = await guestAsset('provision.sh');
  await put({ path: '/usr/lib/port-image/provision.sh', content: finder }, 'finds the provision document');
  for (const set of options.dataSets) {
    const conf = { path: `/usr/lib/port-image/data.d/${set.id}.conf`, content: dataSetConf(set) };
    await put(conf, `data set of ${set.path}`);
  }
  if (options.init === 'systemd') {
    const template = await guestAsset('port-image-data@.service');
    await put({ path: FETCH_TEMPLATE, content: template }, 'fetches one data set');
    for (const set of options.dataSets) {
      const neededBy = await withoutEarlyUnits(guest, set, options.warn);
      for (const file of dataSetUnits(set.id, set.path, set.mode, neededBy)) {
        await put(file, `${set.path} before what needs it`);
      }
    }
    if (options.dataSets.some((s) => s.mode === 'lazy')) {
      const prefetch = await guestAsset('port-image-prefetch.service');
      await put({ path: PREFETCH_UNIT, content: prefetch }, 'fetches lazy data sets after the boot');
      await put(prefetchLink(), 'fetches lazy data sets after the boot');
    }
  } else if (options.init === 'openrc') {
    const script = {
      path: '/etc/init.d/port-image-data',
      content: await guestAsset('port-image-data.initd'),
    };
    await put(script, 'fetches data sets', 0o755);
    if (options.dataSets.some((s) => s.mode === 'eager')) {
      const link = { path: '/etc/runlevels/default/port-image-data', link: '/etc/init.d/port-image-data' };
      await put(link, 'fetches data sets at boot');
    }
  }
  return done;
}
