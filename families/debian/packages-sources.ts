/**
 * The guest's package sources, read and written again by us. What a guest says about its sources is hostile until
 * parsed: only what matches narrow patterns survives, so nothing of it can become an option, a path or a program here.
 */
import { createHash } from 'node:crypto';
import type { GuestFiles } from '../../core/guest.ts';
import { printable } from '../../core/text.ts';

/** Which keys may sign a source. */
export type SignedBy =
  | { kind: 'default' }
  | { kind: 'paths'; paths: string[] }
  | { kind: 'fingerprints'; fingerprints: string[] }
  | { kind: 'inline'; armored: string };

/** One usable source: only `deb`, only http and https. */
export interface PackageSource {
  uri: string;
  suites: string[];
  /** Empty for a flat repository (its suite ends with `/`). */
  components: string[];
  signedBy: SignedBy;
  /** The guest says so for archived releases; the signature is checked all the same. */
  ignoreExpiry: boolean;
}

/** What was understood and what was left out, with reasons. */
export interface ParsedSources {
  sources: PackageSource[];
  warnings: string[];
}

const URI = /^https?:\/\/[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?(?::\d{1,5})?(?:\/[\w.~+%-]*)*$/;
const SUITE = /^(?:\.?\/|[A-Za-z0-9][\w.+~-]*(?:\/[\w.+~-]+)*\/?)$/;
const COMPONENT = /^[A-Za-z0-9][\w.+~-]*(?:\/[\w.+~-]+)*$/;
const KEY_PATH = /^\/(?:[\w.+~@-]+\/)*[\w.+~@-]+$/;
const FINGERPRINT = /^[0-9A-Fa-f]{16,40}!?$/;
const ARMOR_LINE = /^[A-Za-z0-9+/=:. ()-]*$/;
const YES = /^(?:yes|true|with|on|enable|1)$/i;
const NO = /^(?:no|false|without|off|disable|0)$/i;

interface RawSource {
  types: string[];
  uris: string[];
  suites: string[];
  components: string[];
  options: Map<string, string>;
}

/** Reads every sources file of a guest: sources.list, sources.list.d/*.list and *.sources. */
export async function readSources(guest: GuestFiles, architecture: string): Promise<ParsedSources> {
  const all: ParsedSources = { sources: [], warnings: [] };
  const names = (await guest.list('/etc/apt/sources.list.d')).filter((n) => /^[\w.-]+$/.test(n));
  for (const file of ['/etc/apt/sources.list', ...names.map((n) => `/etc/apt/sources.list.d/${n}`)]) {
    if (!/\.(?:list|sources)$/.test(file)) continue;
    const text = await guest.readText(file);
    if (text === undefined) continue;
    const parsed = file.endsWith('.list') ? parseList(text, architecture) : parseDeb822(text, architecture);
    all.sources.push(...parsed.sources);
    all.warnings.push(...parsed.warnings.map((w) => `${file}: ${w}`));
  }
  return all;
}

/** Parses the one-line style (`deb [options] uri suite component…`). */
export function parseList(text: string, architecture: string): ParsedSources {
  const out: ParsedSources = { sources: [], warnings: [] };
  for (const line of text.split('\n')) {
    const clean = line.replace(/#.*$/, '').trim();
    if (clean === '') continue;
    const match = /^(deb(?:-src)?)\s+(?:\[([^\]]*)\]\s*)?(\S+)\s+(\S+)\s*(.*)$/.exec(clean);
    if (match === null) {
      out.warnings.push(`not understood, left out: ${shorten(clean)}`);
      continue;
    }
    const options = new Map<string, string>();
    for (const option of (match[2] ?? '').split(/\s+/)) {
      const at = /^([A-Za-z-]+)[+-]?=(.*)$/.exec(option);
      if (at) options.set((at[1] ?? '').toLowerCase(), at[2] ?? '');
    }
    judge(
      {
        types: [match[1] ?? ''],
        uris: [match[3] ?? ''],
        suites: [match[4] ?? ''],
        components: words(match[5]),
        options,
      },
      architecture,
      out,
    );
  }
  return out;
}

/** Parses the deb822 style (`.sources`). */
export function parseDeb822(text: string, architecture: string): ParsedSources {
  const out: ParsedSources = { sources: [], warnings: [] };
  for (const fields of stanzas(text)) {
    if (NO.test((fields.get('enabled') ?? '').trim())) continue;
    const options = new Map(fields);
    options.set('arch', words(fields.get('architectures')).join(','));
    judge(
      {
        types: words(fields.get('types')),
        uris: words(fields.get('uris')),
        suites: words(fields.get('suites')),
        components: words(fields.get('components')),
        options,
      },
      architecture,
      out,
    );
  }
  return out;
}

/** Splits RFC 822 like paragraphs; names in lower case, continuation lines kept with newlines. */
export function stanzas(text: string): Map<string, string>[] {
  const out: Map<string, string>[] = [];
  let current: Map<string, string> | undefined;
  let name = '';
  for (const line of text.split('\n')) {
    if (line.trim() === '') {
      current = undefined;
      name = '';
    } else if (line.startsWith('#')) {
      // A comment, also between continuation lines.
    } else if (/^[ \t]/.test(line)) {
      if (current !== undefined && name !== '') current.set(name, `${current.get(name) ?? ''}\n${line}`);
    } else {
      const match = /^([!-9;-~]+):[ \t]*(.*)$/.exec(line);
      if (match === null) continue;
      if (current === undefined) {
        current = new Map();
        out.push(current);
      }
      name = (match[1] ?? '').toLowerCase();
      current.set(name, match[2] ?? '');
    }
  }
  return out;
}

function judge(raw: RawSource, architecture: string, out: ParsedSources): void {
  if (!raw.types.includes('deb')) return;
  const refuse = (uri: string, why: string) => out.warnings.push(`${why}, left out: ${shorten(uri)}`);
  const first = raw.uris[0] ?? 'source without address';
  const { options } = raw;
  if (
    YES.test((options.get('trusted') ?? '').trim()) ||
    YES.test((options.get('allow-insecure') ?? '').trim())
  )
    return void refuse(first, 'signatures switched off ([trusted=yes])');
  const architectures = (options.get('arch') ?? '').split(',').filter((a) => a !== '');
  if (architectures.length > 0 && !architectures.includes(architecture)) return;
  const signedBy = parseSignedBy(options.get('signed-by'));
  if (signedBy === undefined) return void refuse(first, 'signed-by not understood');
  const suites = raw.suites.filter((s) => SUITE.test(s) && !s.split('/').includes('..'));
  const components = raw.components.filter((c) => COMPONENT.test(c) && !c.split('/').includes('..'));
  const flat = suites.every((s) => s.endsWith('/'));
  if (suites.length === 0 || suites.length < raw.suites.length || components.length < raw.components.length)
    return void refuse(first, 'suite or component not understood');
  if (flat !== (components.length === 0)) return void refuse(first, 'suite and components do not fit');
  for (const uri of raw.uris) {
    if (/^https?:\/\/[^/]*@/i.test(uri)) {
      refuse(uri.replace(/\/\/[^@]*@/, '//***@'), 'address with a password');
    } else if (!URI.test(uri) || uri.split('/').includes('..')) {
      refuse(uri, /^https?:/.test(uri) ? 'address not understood' : 'only http and https are used');
    } else {
      out.sources.push({
        uri,
        suites,
        components,
        signedBy,
        ignoreExpiry: NO.test((options.get('check-valid-until') ?? '').trim()),
      });
    }
  }
}

function parseSignedBy(value: string | undefined): SignedBy | undefined {
  if (value === undefined || value.trim() === '') return { kind: 'default' };
  if (value.includes('BEGIN PGP PUBLIC KEY BLOCK')) {
    const lines = value
      .split('\n')
      .map((l) => l.trim())
      .map((l) => (l === '.' ? '' : l))
      .filter((l, i) => i > 0 || l !== '');
    return lines.every((l) => ARMOR_LINE.test(l))
      ? { kind: 'inline', armored: `${lines.join('\n')}\n` }
      : undefined;
  }
  const parts = value.split(/[\s,]+/).filter((p) => p !== '');
  if (parts.every((p) => KEY_PATH.test(p) && !p.split('/').includes('..')))
    return { kind: 'paths', paths: parts };
  if (parts.every((p) => FINGERPRINT.test(p))) return { kind: 'fingerprints', fingerprints: parts };
  return undefined;
}

/** A keyring as we found it, under a name of ours. */
export interface Keyring {
  name: string;
  content: Buffer;
}

/** Our name for a keyring: from its content, with the ending apt expects. */
export function keyring(content: Buffer): Keyring {
  const armored = content
    .subarray(0, 4096)
    .toString('latin1')
    .includes('-----BEGIN PGP PUBLIC KEY BLOCK-----');
  const digest = createHash('sha256').update(content).digest('hex').slice(0, 24);
  return { name: `${digest}.${armored ? 'asc' : 'gpg'}`, content };
}

/**
 * Renders sources as deb822. `signedBy` gives for each source the keyring paths on the host or the fingerprints;
 * empty means the default keyrings.
 */
export function renderSources(
  sources: readonly { source: PackageSource; signedBy: readonly string[] }[],
): string {
  return sources
    .map(({ source, signedBy }) =>
      [
        'Types: deb',
        `URIs: ${source.uri}`,
        `Suites: ${source.suites.join(' ')}`,
        ...(source.components.length === 0 ? [] : [`Components: ${source.components.join(' ')}`]),
        ...(signedBy.length === 0 ? [] : [`Signed-By: ${signedBy.join(', ')}`]),
        ...(source.ignoreExpiry ? ['Check-Valid-Until: no'] : []),
        '',
      ].join('\n'),
    )
    .join('\n');
}

function words(text: string | undefined): string[] {
  return (text ?? '').split(/\s+/).filter((w) => w !== '');
}

function shorten(text: string): string {
  const safe = printable(text);
  return safe.length > 120 ? `${safe.slice(0, 117)}…` : safe;
}
