/** What the operator names as the source, as data. Only this module knows how a source is written. */
import * as path from 'node:path';
import { PortError } from './errors.ts';
import { printable } from './text.ts';

/** A source, read. */
export type Source =
  /** A file (image of any known format, compressed, OVA, OVF, VMX), a folder with one of the latter, or a block device. */
  | { kind: 'path'; path: string }
  /** Devices of a running machine over ssh: `ssh://[user@]host[:port]/dev/sda[,/dev/sdb]`. */
  | {
      kind: 'ssh';
      host: string;
      user: string | undefined;
      port: number | undefined;
      /** Absolute paths; empty when all disks of the machine are meant. */
      devices: string[];
    }
  /** Devices of this machine while it runs: `host:/dev/sda[,/dev/sdb]`. */
  | { kind: 'host'; devices: string[] }
  /** An NBD export: `nbd://host[:port][/export]`, `nbd+unix:///[export]?socket=PATH`. */
  | { kind: 'nbd'; url: string; host?: string; port?: number; socket?: string; exportName: string }
  /** An image on a web server. */
  | { kind: 'http'; url: string }
  /** An image in Glance: `glance://CLOUD/ID`. */
  | { kind: 'glance'; cloud: string; id: string }
  /** A snapshot read by EBS direct: `ebs://REGION/snap-…`. */
  | { kind: 'ebs'; region: string; snapshot: string };

/** Marks a URL whose query is not kept: it may be a signature, and job folders hold no secrets. */
const LEFT_OUT = '?…';

/** Port of NBD (IANA). */
const NBD_PORT = 10809;

/** What was written, for messages: a URL that cannot be read may hold a password or a signature nevertheless. */
function shown(text: string): string {
  return printable(text.replace(/^([a-z][a-z0-9+.-]*:\/\/)[^?#]*@/is, '$1…@'));
}

function wrong(text: string, why: string, hint: string): PortError {
  return new PortError('USAGE', `not a source: ${shown(text)}: ${why}`, { hint });
}

function devicesOf(text: string, list: string): string[] {
  const devices = list === '' || list === '/' ? [] : list.split(',');
  for (const device of devices) {
    if (!/^\/dev\/[^\0\n]+$/.test(device) || device.split('/').includes('..')) {
      throw wrong(
        text,
        `${printable(device)} is no device`,
        'write for example ssh://shop01/dev/sda,/dev/sdb',
      );
    }
  }
  const twice = devices.find((device, i) => devices.indexOf(device) !== i);
  if (twice !== undefined) throw wrong(text, `${printable(twice)} is named twice`, 'name each device once');
  return devices;
}

function parseSsh(text: string): Source {
  const match = /^ssh:\/\/(?:([^@/]*)@)?(\[[^\]]+\]|[^/:@[\]]+)(?::(\d+))?(\/.*)?$/s.exec(text);
  const [, user, bracketed = '', portText, rest = ''] = match ?? [];
  if (match === null) throw wrong(text, 'no host in it', 'write ssh://[user@]host[:port]/dev/sda');
  if (user?.includes(':')) {
    throw new PortError('USAGE', 'a password in an ssh:// source is refused: it would be seen by everybody', {
      hint: 'use a key or an agent; ssh asks for nothing here',
    });
  }
  const host = bracketed.replace(/^\[|\]$/g, '');
  // ssh(1) takes a leading dash for an option
  if (host.startsWith('-') || user?.startsWith('-') || /[\s\0]/.test(`${user ?? ''}${host}`) || user === '') {
    throw wrong(text, 'user or host is not usable', 'write ssh://[user@]host[:port]/dev/sda');
  }
  const port = portText === undefined ? undefined : Number(portText);
  if (port !== undefined && (port < 1 || port > 65_535)) throw wrong(text, 'no such port', 'from 1 to 65535');
  return { kind: 'ssh', host, user, port, devices: devicesOf(text, rest) };
}

function parseUrl(text: string): URL {
  try {
    return new URL(text);
  } catch (cause) {
    throw new PortError('USAGE', `not a URL: ${shown(text).replace(/\?.*/s, LEFT_OUT)}`, {
      cause,
      hint: 'check how it is written',
    });
  }
}

/** The name of an NBD export, percent-encoded in the path of its URL (NBD URI specification). */
function exportNameOf(text: string, pathname: string): string {
  try {
    return decodeURIComponent(pathname.replace(/^\//, ''));
  } catch {
    throw wrong(text, 'a broken % in it', 'write a percent sign as %25');
  }
}

function parseNbd(text: string): Source {
  const url = parseUrl(text);
  const exportName = exportNameOf(text, url.pathname);
  if (url.username !== '' || url.password !== '')
    throw wrong(text, 'NBD has no users', 'nbd://host[:port]/export');
  if (url.protocol === 'nbd+unix:') {
    const socket = url.searchParams.get('socket') ?? '';
    if (!path.isAbsolute(socket)) {
      throw wrong(text, 'no absolute path of a socket', 'write nbd+unix:///EXPORT?socket=/run/disk.sock');
    }
    return { kind: 'nbd', url: text, socket, exportName };
  }
  if (url.hostname === '') throw wrong(text, 'no host in it', 'write nbd://host[:port]/export');
  const port = url.port === '' ? NBD_PORT : Number(url.port);
  return { kind: 'nbd', url: text, host: url.hostname.replace(/^\[|\]$/g, ''), port, exportName };
}

/** The whole URLs of this process, by what is kept of them. */
const wholeUrls = new Map<string, string>();

function parseHttp(kept: string): Source {
  const text = kept.endsWith(LEFT_OUT) ? wholeUrls.get(kept) : kept;
  if (text === undefined) {
    throw new PortError(
      'USAGE',
      `the query of ${printable(kept)} is not kept in the job: it may be a signature`,
      {
        hint: 'run port-image convert with the whole URL and the same --job',
      },
    );
  }
  const url = parseUrl(text);
  if (url.password !== '') {
    throw new PortError('USAGE', 'a password in a URL is refused: it would be seen by everybody', {
      hint: 'put it into ~/.netrc, or use a signed URL',
    });
  }
  return { kind: 'http', url: url.href };
}

function parseGlance(text: string): Source {
  const match = /^glance:\/\/([A-Za-z0-9._-]+)\/([0-9a-fA-F-]{32,36})$/.exec(text);
  if (match?.[1] === undefined || match[2] === undefined)
    throw wrong(text, 'no cloud and image id', 'write glance://CLOUD/ID; the cloud is one of clouds.yaml');
  return { kind: 'glance', cloud: match[1], id: match[2] };
}

function parseEbs(text: string): Source {
  const match = /^ebs:\/\/([a-z0-9-]+)\/(snap-[0-9a-f]+)$/.exec(text);
  if (match?.[1] === undefined || match[2] === undefined)
    throw wrong(text, 'no region and snapshot', 'write ebs://eu-central-1/snap-0123456789abcdef0');
  return { kind: 'ebs', region: match[1], snapshot: match[2] };
}

const SCHEMES: Readonly<Record<string, (text: string) => Source>> = {
  'ssh:': parseSsh,
  'host:': (text) => {
    const devices = devicesOf(text, text.slice('host:'.length));
    if (devices.length === 0) throw wrong(text, 'no device', 'write host:/dev/sda');
    return { kind: 'host', devices };
  },
  'nbd:': parseNbd,
  'nbd+unix:': parseNbd,
  'http:': parseHttp,
  'https:': parseHttp,
  'glance:': parseGlance,
  'ebs:': parseEbs,
};

/**
 * Reads what the operator wrote. A word that is no known scheme is a path, whatever it holds; a file that is called like
 * one is named with a folder (`./ssh:x`). Paths become absolute. Throws USAGE.
 */
export function parseSource(text: string): Source {
  if (text === '') throw new PortError('USAGE', 'the source is empty', { hint: 'name a disk, file or URL' });
  const scheme = /^[a-z][a-z0-9+.-]*:/.exec(text)?.[0];
  const parse = scheme === undefined ? undefined : SCHEMES[scheme];
  const isUrl = scheme !== undefined && (scheme === 'host:' || text.startsWith(`${scheme}//`));
  if (parse !== undefined && isUrl) return parse(text);
  if (isUrl) {
    const known = Object.keys(SCHEMES).map((s) => (s === 'host:' ? 'host:/dev/…' : `${s}//`));
    throw wrong(text, `nothing is known about ${scheme}//`, `a path, or ${known.join(', ')}`);
  }
  return { kind: 'path', path: path.resolve(text) };
}

/** The source as it is kept in `job.json`: paths absolute, URLs as they were written but for the query of a web server. */
export function sourceText(text: string): string {
  const source = parseSource(text);
  if (source.kind === 'path') return source.path;
  if (source.kind !== 'http' || new URL(source.url).search === '') return text;
  const kept = `${source.url.slice(0, source.url.indexOf('?'))}${LEFT_OUT}`;
  if ((wholeUrls.get(kept) ?? source.url) !== source.url) {
    throw new PortError('USAGE', `two sources differ in their query alone: ${printable(kept)}`, {
      hint: 'queries are not kept, so they could not be told apart; download one of them first',
    });
  }
  wholeUrls.set(kept, source.url);
  return kept;
}
