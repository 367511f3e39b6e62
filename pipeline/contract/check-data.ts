/** Claims about data sets: the way back is installed as described, and the folders hold nothing but their stub. */
import type { Contract } from '../../core/contract.ts';
import type { GuestFiles } from '../../core/guest.ts';
import { spare } from '../../stages/strip/remove.ts';
import { STUB_NAME, stubText } from '../../tools/guest-side.ts';
import { dataSetUnits, FETCH_TEMPLATE, type GuestFile, isEarlyUnit } from '../../tools/systemd-units.ts';
import { parseUnit } from '../../tools/unit-file.ts';
import { type ContractCheck, check, type Evidence, named } from './check.ts';
import { type DataConf, isInside, keptPaths, parseDataConf } from './data-conf.ts';
import { isPlainFolder, rootOwnedFaults } from './guest-files.ts';

type DataClaim = Contract['data'][number];

const LIB = '/usr/lib/port-image';
const CLIENT = '/usr/sbin/port-image-data';
const INIT_SCRIPT = '/etc/init.d/port-image-data';
/** Programs the client cannot do without. */
const PROGRAMS = ['curl', 'tar', 'zstd', 'sha256sum', 'awk'];
const PROGRAM_FOLDERS = ['/usr/bin', '/bin', '/usr/local/bin', '/usr/sbin'];

/** Scripts beside the client that it, or one of them, runs: other versions of the client have others. */
async function helpersOf(guest: GuestFiles): Promise<string[]> {
  const found: string[] = [];
  const unread = [CLIENT];
  for (let file = unread.pop(); file !== undefined; file = unread.pop()) {
    const text = (await guest.readText(file)) ?? '';
    for (const [, name] of text.matchAll(/\$LIB\/([a-z0-9-]+\.(?:sh|awk))\b/g)) {
      const helper = `${LIB}/${name}`;
      if (found.includes(helper)) continue;
      found.push(helper);
      unread.push(helper);
    }
  }
  return found;
}

/** The client, what it calls, and the folder it reads: there, and only root can change them. */
export async function checkClient({ contract, guest }: Evidence): Promise<ContractCheck> {
  const faults = [
    ...(await rootOwnedFaults(guest, CLIENT, { kind: 'file', executable: true })),
    ...(await rootOwnedFaults(guest, LIB, { kind: 'dir' })),
  ];
  for (const file of await helpersOf(guest))
    faults.push(...(await rootOwnedFaults(guest, file, { kind: 'file' })));
  if (contract.data.length === 0) return check('client', faults, `${CLIENT}; there is no data to fetch`);
  faults.push(...(await rootOwnedFaults(guest, `${LIB}/data.d`, { kind: 'dir' })));
  for (const program of PROGRAMS) {
    const kinds = await Promise.all(PROGRAM_FOLDERS.map((dir) => guest.kind(`${dir}/${program}`)));
    if (kinds.every((k) => k !== 'file' && k !== 'symlink'))
      faults.push(`${program}, which it needs, is not installed`);
  }
  const confs = (await guest.list(`${LIB}/data.d`)).filter((n) => n.endsWith('.conf'));
  const unclaimed = confs.filter((n) => !contract.data.some((d) => `${d.id}.conf` === n));
  if (unclaimed.length > 0) faults.push(`data.d holds ${named(unclaimed)}, which the contract does not name`);
  return check('client', faults, `${CLIENT} and what it needs`);
}

/** What each name of the configuration has to be for a claim. */
function expectedConf(set: DataClaim): [name: string, value: string][] {
  return [
    ['ID', set.id],
    ['DATA_PATH', set.mount],
    ['PATH_JSON', JSON.stringify(set.mount)],
    ['MODE', set.mode],
    ['NEEDED_BY', set.before.join(' ')],
    ['BYTES', String(set.bytes)],
    ['FILES', String(set.files)],
    ['MANIFEST_SHA256', set.manifest.replace('sha256:', '')],
    ['SEGMENTS_SHA256', set.segments.replace('sha256:', '')],
  ];
}

async function confFaults(
  { guest }: Evidence,
  set: DataClaim,
): Promise<{ faults: string[]; conf: DataConf | undefined }> {
  const file = `${LIB}/data.d/${set.id}.conf`;
  const faults = await rootOwnedFaults(guest, file, { kind: 'file' });
  const text = await guest.readText(file);
  if (text === undefined) return { faults, conf: undefined };
  const conf = parseDataConf(text);
  if (typeof conf === 'string') return { faults: [...faults, `${file}: ${conf}`], conf: undefined };
  for (const [name, value] of expectedConf(set)) {
    if (conf.get(name) !== value)
      faults.push(`${name} is ${conf.get(name) ?? 'not set'}, the contract says ${value}`);
  }
  const outside = keptPaths(conf).filter((p) => !isInside(p));
  if (outside.length > 0) faults.push(`KEEP leads out of the folder: ${named(outside)}`);
  return { faults, conf };
}

/** A unit file's meaning, without comments and descriptions. */
function meaning(text: string): string {
  return parseUnit(text)
    .filter((s) => s.key !== 'Description' && s.key !== 'Documentation')
    .map((s) => `[${s.section}]${s.key}=${s.value}`)
    .join('\n');
}

async function fileFaults(guest: GuestFiles, file: GuestFile): Promise<string[]> {
  const kind = await guest.kind(file.path);
  if (kind === 'missing') return [`${file.path} is missing`];
  if (file.link !== undefined) {
    const target = kind === 'symlink' ? await guest.readLink(file.path) : '';
    return target === file.link ? [] : [`${file.path} is no link to ${file.link}`];
  }
  const text = kind === 'file' ? await guest.readText(file.path) : undefined;
  return text !== undefined && meaning(text) === meaning(file.content ?? '')
    ? []
    : [`${file.path} does not say what it should`];
}

const UNIT_FOLDERS = ['/etc/systemd/system', '/usr/lib/systemd/system', '/lib/systemd/system'];

/** Units that start before the network: they cannot wait, so nothing was installed for them. */
async function earlyUnits({ facts, guest }: Evidence, set: DataClaim): Promise<string[]> {
  if (set.mode === 'manual' || facts.os.init !== 'systemd') return [];
  const early: string[] = [];
  for (const unit of set.before) {
    const texts = await Promise.all(UNIT_FOLDERS.map((dir) => guest.readText(`${dir}/${unit}`)));
    const text = texts.find((t) => t !== undefined);
    if (text !== undefined && isEarlyUnit(text)) early.push(unit);
  }
  return early;
}

async function unitFaults(
  { facts, guest }: Evidence,
  set: DataClaim,
  early: readonly string[],
): Promise<string[]> {
  if (set.mode === 'manual') return [];
  if (facts.os.init === 'openrc') {
    const faults = await rootOwnedFaults(guest, INIT_SCRIPT, { kind: 'file', executable: true });
    if (set.mode === 'eager' && (await guest.kind('/etc/runlevels/default/port-image-data')) === 'missing')
      faults.push('port-image-data is not in the default runlevel');
    return faults;
  }
  if (facts.os.init !== 'systemd') return [`nothing fetches it at boot: the init system is ${facts.os.init}`];
  const faults = await rootOwnedFaults(guest, FETCH_TEMPLATE, { kind: 'file' });
  const template = parseUnit((await guest.readText(FETCH_TEMPLATE)) ?? '');
  if (faults.length === 0 && !template.some((s) => s.key === 'ExecStart' && s.value === `${CLIENT} fetch %i`))
    faults.push(`${FETCH_TEMPLATE} does not start ${CLIENT}`);
  for (const unit of ['port-image-data@.service', `port-image-data@${set.id}.service`]) {
    if ((await guest.kind(`/etc/systemd/system/${unit}`)) !== 'missing')
      faults.push(`/etc/systemd/system/${unit} stands in for the unit of the image`);
  }
  const waiting = set.before.filter((unit) => !early.includes(unit));
  for (const file of dataSetUnits(set.id, set.mount, set.mode, waiting))
    faults.push(...(await fileFaults(guest, file)));
  return faults;
}

// $1 is the folder, the rest are conditions for find: what is there beside them, a few names are enough.
const LEFT = `
set -eu
cd "$1"
shift
find . -xdev -mindepth 1 "$@" -printf '%P\\n' | head -n 6
`;

async function leftIn({ guest }: Evidence, path: string, keep: readonly string[]): Promise<string[]> {
  const args = [`/sysroot${path}`, '!', '-path', `./${STUB_NAME}`, ...spare(keep)];
  return (await guest.appliance(LEFT, args)).split('\n').filter((l) => l !== '');
}

async function folderFaults(evidence: Evidence, set: DataClaim, keep: readonly string[]): Promise<string[]> {
  const { guest } = evidence;
  if (!(await isPlainFolder(guest, set.mount))) return [`${set.mount} is no folder`];
  if ((await guest.kind(`/var/lib/port-image/data/${set.id}/done`)) !== 'missing')
    return ['the data was fetched into this disk: it is an instance, not an image'];
  const stub = `${set.mount}/${STUB_NAME}`;
  const faults: string[] = [];
  const text = (await guest.kind(stub)) === 'file' ? await guest.readText(stub) : undefined;
  const expected = stubText({ ...set, path: set.mount });
  if (text === undefined) faults.push(`${stub} is missing`);
  else if (text !== expected) faults.push(`${stub} does not describe this data set`);
  const left = await leftIn(evidence, set.mount, keep);
  if (left.length > 0) faults.push(`${set.mount} still holds ${named(left)}`);
  return faults;
}

/** Configuration, units and folder of one data set. */
export async function checkDataSet(evidence: Evidence, set: DataClaim): Promise<ContractCheck[]> {
  const { faults, conf } = await confFaults(evidence, set);
  const keep = conf === undefined ? [] : keptPaths(conf).filter(isInside);
  const kept = keep.length === 0 ? '' : `, kept: ${named(keep)}`;
  const early = await earlyUnits(evidence, set);
  const installed =
    set.mode === 'manual' ? 'none: fetched on command' : `${set.mode}, before ${named(set.before)}`;
  const note = early.length === 0 ? '' : `; starts before the network, so it does not wait: ${named(early)}`;
  const units = check(`${set.id}: units`, await unitFaults(evidence, set, early), installed + note);
  return [
    check(`${set.id}: configuration`, faults, 'id, path, mode, digests and units as in the contract'),
    early.length > 0 && units.ok ? { ...units, warning: true } : units,
    check(
      `${set.id}: folder`,
      await folderFaults(evidence, set, keep),
      `${set.mount} holds only its stub${kept}`,
    ),
  ];
}

/** What is named as stripped is a data set, or is not there any more. */
export async function checkStripped(evidence: Evidence): Promise<ContractCheck> {
  const { contract, guest } = evidence;
  const faults: string[] = [];
  for (const { path } of contract.stripped) {
    if (contract.data.some((d) => d.mount === path) || (await guest.kind(path)) === 'missing') continue;
    const left = (await isPlainFolder(guest, path)) ? await leftIn(evidence, path, []) : ['a file or link'];
    if (left.length > 0) faults.push(`${path} is called stripped and still holds ${named(left)}`);
  }
  const unnamed = contract.data.filter((d) => !contract.stripped.some((s) => s.path === d.mount));
  faults.push(...unnamed.map((d) => `${d.mount} is a data set, but is not called stripped`));
  return check('stripped', faults, `${contract.stripped.length} paths`);
}
