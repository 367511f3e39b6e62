/** What a test cloud is made with: settings, folders, ports, secrets. */
import { randomBytes } from 'node:crypto';
import { chmodSync, existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';

/** What `up` accepts; kept in the state folder, so a later `up` without options changes nothing. */
export interface Settings {
  /** What `--name` called it; '' for the one without a name. */
  name: string;
  /** First of thirteen ports in a row. */
  portsBase: number;
  /** Seconds a token lives. */
  tokenLifeS: number;
  /** Swift's max_file_size: larger objects must be segmented. */
  maxObjectMib: number;
  /** Segments in one SLO manifest, parts of one S3 upload. */
  maxSegments: number;
  /** Glance's image_size_cap. */
  imageCapBytes: number;
  /** Whether a TLS front with its own CA stands before the three services. */
  tls: boolean;
  /** Where Swift keeps its objects. */
  devices: 'auto' | 'tmpfs' | 'xfs' | 'folder';
  /** Whether Keystone, Glance and Swift are among them. */
  openstack: boolean;
  /** Services of other clouds. */
  with: readonly ('azurite' | 'moto' | 'fake-gcs' | 'vcsim')[];
}

/** Small objects on purpose, so that segmentation is exercised; 1000 segments is Swift's own default. */
export const DEFAULTS: Readonly<Settings> = {
  name: '',
  portsBase: 15000,
  tokenLifeS: 3600,
  maxObjectMib: 64,
  maxSegments: 1000,
  imageCapBytes: 2 ** 40,
  tls: false,
  devices: 'auto',
  openstack: true,
  with: [],
};

/** Every listener is on this address. */
export const HOST = '127.0.0.1';

/** Listeners in the order of their ports. */
const PORT_ORDER = [
  'keystone',
  'glance',
  'swift-proxy',
  'swift-object',
  'swift-container',
  'swift-account',
  'tls-keystone',
  'tls-glance',
  'tls-swift-proxy',
  'azurite',
  'moto',
  'fake-gcs',
  'vcsim',
] as const;

/** A listener's name. */
export type PortName = (typeof PORT_ORDER)[number];

/** Passwords made at the first start. */
export interface Secrets {
  admin: string;
  service: string;
  member: string;
  swiftHash: string;
  /** Key of Azurite's account, base64. */
  azureKey: string;
}

/** One cloud: its state folder, settings and secrets. */
export class Cloud {
  readonly dir: string;
  readonly settings: Settings;
  readonly secrets: Secrets;

  /** `settings` overrides what the folder remembers; the folder is made, 0700. */
  constructor(dir: string, given: Partial<Settings>) {
    this.dir = dir;
    mkdirSync(dir, { recursive: true, mode: 0o700 });
    chmodSync(dir, 0o700);
    this.settings = { ...DEFAULTS, ...readJson<Partial<Settings>>(this.path('settings.json')), ...given };
    const known = readJson<Partial<Secrets>>(this.path('secrets.json'));
    const fresh = () => randomBytes(16).toString('hex');
    // A folder of an earlier version lacks what came since.
    this.secrets = {
      ...{ admin: fresh(), service: fresh(), member: fresh(), swiftHash: fresh() },
      azureKey: randomBytes(64).toString('base64'),
      ...known,
    };
    this.write('settings.json', `${JSON.stringify(this.settings, null, 2)}\n`);
    if (known?.azureKey === undefined)
      this.write('secrets.json', `${JSON.stringify(this.secrets, null, 2)}\n`);
  }

  /** Absolute path of something in the state folder. */
  path(...parts: string[]): string {
    return path.join(this.dir, ...parts);
  }

  /** Port number of a listener. */
  port(name: PortName): number {
    return this.settings.portsBase + PORT_ORDER.indexOf(name);
  }

  /** Base URL of a listener, without a path. */
  url(name: PortName): string {
    return `http${name.startsWith('tls-') ? 's' : ''}://${HOST}:${this.port(name)}`;
  }

  /** Makes a folder of the state, 0700, and returns its path. */
  mkdir(...parts: string[]): string {
    const dir = this.path(...parts);
    mkdirSync(dir, { recursive: true, mode: 0o700 });
    return dir;
  }

  /** Writes a file of the state, 0600, all or nothing. */
  write(name: string, text: string): string {
    const file = this.path(name);
    const part = `${file}.${process.pid}.part`;
    mkdirSync(path.dirname(file), { recursive: true, mode: 0o700 });
    writeFileSync(part, text, { mode: 0o600 });
    renameSync(part, file);
    return file;
  }
}

/** Parsed JSON of a file, undefined when there is none. */
export function readJson<T>(file: string): T | undefined {
  return existsSync(file) ? (JSON.parse(readFileSync(file, 'utf8')) as T) : undefined;
}

/** One section-by-section configuration file; undefined values are left out. */
export function ini(sections: Record<string, Record<string, string | number | boolean | undefined>>): string {
  return Object.entries(sections)
    .map(([name, values]) => {
      const lines = Object.entries(values).filter(([, value]) => value !== undefined);
      return `[${name}]\n${lines.map(([key, value]) => `${key} = ${value}\n`).join('')}`;
    })
    .join('\n');
}

/** The name of the account that runs this. */
export const userName = (): string => os.userInfo().username;
