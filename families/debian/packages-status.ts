/** The guest's dpkg database, judged and written again with only the fields that decide dependencies. */
import { PortError } from '../../core/errors.ts';
import type { GuestFiles } from '../../core/guest.ts';
import { printable } from '../../core/text.ts';
import { stanzas } from './packages-sources.ts';

const STATUS_PATH = '/var/lib/dpkg/status';
const NAME = /^[a-z0-9][a-z0-9+.-]*$/;
const VERSION = /^[0-9A-Za-z][0-9A-Za-z.+~:-]*$/;
const ARCHITECTURE = /^[a-z0-9][a-z0-9-]*$/;
const RELATIONS = /^[A-Za-z0-9+.~:<>=|,()[\]! \t\n-]*$/;
const SIMPLE = /^[\w./ -]*$/;

/** Relations copied to the new database, as dpkg spells them. */
const RELATION_FIELDS = ['Depends', 'Pre-Depends', 'Provides', 'Conflicts', 'Breaks', 'Replaces'];
/** Simple fields copied; apt takes a version with another Installed-Size or other relations for another build. */
const SIMPLE_FIELDS = ['Installed-Size', 'Priority', 'Essential', 'Protected', 'Multi-Arch'];

/** One installed package. */
export interface StatusEntry {
  name: string;
  version: string;
  architecture: string;
  /** True when the administrator put it on hold. */
  held: boolean;
}

/** The judged database. */
export interface DpkgStatus {
  installed: Map<string, StatusEntry>;
  /** Text for a private apt root. */
  rendered: string;
  nativeArchitecture: string;
  foreignArchitectures: string[];
}

/**
 * Reads and judges the guest's package database. Throws GUEST_BROKEN by package name when something is half installed,
 * when dpkg was interrupted, or when an entry cannot be a real one.
 */
export async function readStatus(guest: GuestFiles): Promise<DpkgStatus> {
  const text = await guest.readText(STATUS_PATH);
  if (text === undefined)
    throw new PortError('GUEST_BROKEN', `the guest has no package database (${STATUS_PATH})`);
  const updates = (await guest.list('/var/lib/dpkg/updates')).filter((n) => /^\d+$/.test(n));
  if (updates.length > 0)
    throw new PortError(
      'GUEST_BROKEN',
      'dpkg was interrupted in the guest (/var/lib/dpkg/updates is not empty)',
      {
        hint: 'run on the server: dpkg --configure -a',
      },
    );
  const status = parseStatus(text);
  const arch = (await guest.readText('/var/lib/dpkg/arch')) ?? '';
  const foreign = arch.split(/\s+/).filter((a) => ARCHITECTURE.test(a) && a !== status.nativeArchitecture);
  return { ...status, foreignArchitectures: foreign };
}

/** Judges the text of a status file. Throws GUEST_BROKEN. */
export function parseStatus(text: string): DpkgStatus {
  const installed = new Map<string, StatusEntry>();
  const rendered: string[] = [];
  const broken: string[] = [];
  for (const fields of stanzas(text)) {
    const name = fields.get('package') ?? '';
    const [want = '', flag = '', state = ''] = (fields.get('status') ?? '').split(/\s+/);
    if (state === 'not-installed' || state === 'config-files') continue;
    const version = fields.get('version') ?? '';
    const architecture = fields.get('architecture') ?? '';
    if (!NAME.test(name) || !VERSION.test(version) || !ARCHITECTURE.test(architecture)) {
      throw new PortError(
        'GUEST_BROKEN',
        `the guest's package database is damaged at "${printable(name).slice(0, 80)}"`,
      );
    }
    const settled = state === 'installed' || state === 'triggers-awaited' || state === 'triggers-pending';
    if (flag !== 'ok' || !settled) {
      broken.push(`${name} (${printable(`${flag === 'ok' ? '' : `${flag} `}${state}`).slice(0, 40)})`);
      continue;
    }
    const held = want === 'hold';
    const key = architecture === 'all' ? name : `${name}:${architecture}`;
    installed.set(key, { name, version, architecture, held });
    rendered.push(renderEntry(fields, { name, version, architecture, held }));
  }
  if (broken.length > 0) {
    throw new PortError(
      'GUEST_BROKEN',
      `packages of the guest are not completely installed: ${few(broken)}`,
      {
        hint: 'run on the server: dpkg --configure -a && apt-get --fix-broken install',
      },
    );
  }
  const dpkg = [...installed.values()].find((e) => e.name === 'dpkg');
  if (dpkg === undefined)
    throw new PortError('GUEST_BROKEN', 'the guest has no installed package named dpkg');
  return {
    installed,
    rendered: rendered.join('\n'),
    nativeArchitecture: dpkg.architecture,
    foreignArchitectures: [],
  };
}

function renderEntry(fields: Map<string, string>, entry: StatusEntry): string {
  const lines = [
    `Package: ${entry.name}`,
    `Status: ${entry.held ? 'hold' : 'install'} ok installed`,
    `Version: ${entry.version}`,
    `Architecture: ${entry.architecture}`,
    'Maintainer: none <none@localhost>',
    `Description: ${entry.name}`,
  ];
  for (const field of SIMPLE_FIELDS) {
    const value = fields.get(field.toLowerCase());
    if (value !== undefined && SIMPLE.test(value)) lines.push(`${field}: ${value}`);
  }
  for (const field of RELATION_FIELDS) {
    const value = fields.get(field.toLowerCase());
    if (value === undefined) continue;
    if (!RELATIONS.test(value)) {
      throw new PortError(
        'GUEST_BROKEN',
        `the guest's package database is damaged: ${field} of ${entry.name}`,
      );
    }
    const flat = value.replace(/\s+/g, ' ').trim();
    if (flat !== '') lines.push(`${field}: ${flat}`);
  }
  return `${lines.join('\n')}\n`;
}

/** Names for a message: the first eight and how many more. */
export function few(names: readonly string[]): string {
  const shown = names.slice(0, 8).join(', ');
  return names.length > 8 ? `${shown} and ${names.length - 8} more` : shown;
}
