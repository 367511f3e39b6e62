/** chrony: clocks of the target platforms where the machine finds itself there; those of the old platform go. */
import { readFile } from 'node:fs/promises';
import { assetPath } from '../../core/assets.ts';
import type { Facts } from '../../core/facts.ts';
import type { GuestFiles } from '../../core/guest.ts';
import type { Clock, Platform } from '../../core/platform.ts';
import { mergeEdits, textEdit } from '../../families/edits.ts';
import type { FileEdit } from '../../families/family.ts';
import {
  CLOCK_FOLDER,
  hasTimeSource,
  withClockFolder,
  withoutForeignClocks,
  withPool,
} from '../../tools/chrony.ts';

const SCRIPT = '/usr/lib/port-image/clock';
const TABLE = '/usr/lib/port-image/clocks';
/** Debian and Ubuntu, then RHEL, SUSE, Alpine and Arch. */
const CONFIGS: readonly string[] = ['/etc/chrony/chrony.conf', '/etc/chrony.conf'];
/** What such configurations include, at most: other files of the owner are not looked for. */
const INCLUDED: readonly string[] = [
  '/etc/chrony/conf.d/*.conf',
  '/etc/chrony/sources.d/*.sources',
  '/etc/chrony.d/*.conf',
];
const UNITS: readonly string[] = ['chrony.service', 'chronyd.service'];
const UNIT_FOLDERS: readonly string[] = ['/usr/lib/systemd/system', '/lib/systemd/system'];
/** What the distributions' own chrony.conf names. */
const POOLS: Readonly<Record<string, string>> = {
  debian: '2.debian.pool.ntp.org',
  ubuntu: 'ntp.ubuntu.com',
};
const WHY = 'time comes from the platform where the machine finds itself on it';

function line(name: string, clock: Clock): string {
  return `${name} ${clock.kind} ${clock.kind === 'phc' ? clock.device : clock.address} ${clock.options}`;
}

/** The table the script reads. */
export function clockTable(platforms: readonly Platform[]): string {
  return platforms.flatMap((p) => (p.needs.clocks ?? []).map((c) => `${line(p.name, c)}\n`)).join('');
}

/** `confdir` is known since chrony 4.0. */
function readsFolders(facts: Facts): boolean {
  const version = facts.packages.find((p) => p.name === 'chrony')?.version ?? '';
  return Number(/^(?:\d+:)?(\d+)/.exec(version)?.[1] ?? 0) >= 4;
}

async function unitOf(guest: GuestFiles): Promise<string | undefined> {
  for (const folder of UNIT_FOLDERS) {
    for (const unit of UNITS) if ((await guest.kind(`${folder}/${unit}`)) === 'file') return unit;
  }
  return undefined;
}

async function leavingEdits(guest: GuestFiles, config: string, facts: Facts): Promise<FileEdit[]> {
  const edits: FileEdit[] = [];
  const paths = [config, ...(await Promise.all(INCLUDED.map((g) => guest.glob(g)))).flat()];
  let sources = false;
  for (const path of paths) {
    const before = await guest.readText(path);
    if (before === undefined) continue;
    const after = withoutForeignClocks(before);
    sources ||= hasTimeSource(after);
    edits.push(...textEdit(path, before, after, 'a clock of the platform the server comes from'));
  }
  if (edits.length > 0 && !sources) {
    const own = edits.find((e) => e.path === config);
    const text = own?.after ?? (await guest.readText(config)) ?? '';
    const after = withPool(text, POOLS[facts.os.distro] ?? 'pool.ntp.org');
    edits.push(...textEdit(config, text, after, 'no other source of time was left'));
  }
  return mergeEdits(edits);
}

/** Plans the edits; nothing where the guest has no chrony. systemd-timesyncd and ntpd keep what they have. */
export async function clockEdits(
  guest: GuestFiles,
  facts: Facts,
  platforms: readonly Platform[],
): Promise<FileEdit[]> {
  let config: string | undefined;
  for (const path of CONFIGS) if (config === undefined && (await guest.kind(path)) === 'file') config = path;
  if (config === undefined) return [];
  const edits = await leavingEdits(guest, config, facts);
  const table = clockTable(platforms);
  const unit = await unitOf(guest);
  if (table === '' || unit === undefined || !readsFolders(facts)) return edits;
  const text = edits.find((e) => e.path === config)?.after ?? (await guest.readText(config)) ?? '';
  edits.push(...textEdit(config, text, withClockFolder(text), WHY));
  const script = await readFile(assetPath('guest/port-image-clock'), 'utf8');
  const files: readonly { path: string; text: string; mode?: number }[] = [
    { path: SCRIPT, text: script, mode: 0o755 },
    { path: TABLE, text: table },
    {
      path: `/etc/systemd/system/${unit}.d/50-port-image-clock.conf`,
      // `-`: whatever happens, chronyd starts. `+`: outside of the unit's sandbox, which cannot write to /etc.
      text: `# Written by port-image.\n[Service]\nExecStartPre=-+${SCRIPT}\n`,
    },
    {
      path: `${CLOCK_FOLDER}/README`,
      text: 'Written by /usr/lib/port-image/clock each time chronyd starts.\n',
    },
  ];
  for (const { path, text: wanted, mode } of files) {
    const changes = textEdit(path, await guest.readText(path), wanted, WHY);
    edits.push(...changes.map((edit) => (mode === undefined ? edit : { ...edit, mode })));
  }
  return mergeEdits(edits);
}
