/** Minting: the document with which an instance reads its data sets and nothing else, for a while. */
import { randomBytes } from 'node:crypto';
import { Readable } from 'node:stream';
import type { Provision, ProvisionAuth } from '../../core/contract.ts';
import { PortError } from '../../core/errors.ts';
import type { Store } from '../../drivers/stores/store.ts';
import { SwiftStore } from '../../drivers/stores/swift.ts';
import {
  createApplicationCredential,
  readRules,
  rulesCover,
  showApplicationCredential,
  widerRules,
} from '../../tools/openstack/application-credential.ts';
import type { CloudSession } from '../../tools/openstack/session.ts';
import { requireManifest } from './sets.ts';

/** Instead of signed URLs: a new application credential, or one that exists. */
export type CredentialChoice =
  | { kind: 'new' }
  | { kind: 'existing'; id: string; secret: string; allowUnrestricted: boolean };

/** What to mint. */
export interface MintOptions {
  ids: readonly string[];
  /** Milliseconds the document is good for. */
  lifeMs: number;
  /** Addresses the signed URLs work from, in CIDR form. */
  ipRange?: string | undefined;
  /** Also keeps the document in the container of the first data set and makes a URL of it. */
  pointer?: boolean;
  credential?: CredentialChoice;
  /** Opens the login an application credential is made or looked up with. */
  openSession?: () => Promise<CloudSession>;
  signal?: AbortSignal | undefined;
}

/** A minted document. It opens the data: files 0600, never logged. */
export interface Minted {
  document: Provision;
  /** ISO 8601; absent for an application credential that does not expire. */
  expires: string | undefined;
  /** URL of the stored document. */
  pointerUrl?: string;
  credentialId?: string;
  warnings: string[];
}

const EXAMPLE_HINT = 'only an object store signs URLs: put the data sets into a swift: store';

/** Makes the document. Throws USAGE, CLOUD_REFUSED, STORE. */
export async function mint(store: Store, options: MintOptions): Promise<Minted> {
  if (store.provision === undefined) {
    throw new PortError('USAGE', `${store.url} cannot make URLs for an instance`, { hint: EXAMPLE_HINT });
  }
  if (options.credential !== undefined) {
    if (options.ipRange !== undefined) {
      throw new PortError('USAGE', '--ip binds signed URLs; an application credential has no address', {
        hint: 'leave one of --ip and --application-credential out',
      });
    }
    if (options.pointer === true) {
      throw new PortError('USAGE', '--pointer needs a signed URL, which --application-credential avoids', {
        hint: 'hand the document over with --user-data or --out',
      });
    }
  }
  for (const id of options.ids) await requireManifest(store, id);
  // no signing key is made or needed: this also works where a store has no signed URLs
  if (options.credential !== undefined) {
    return withCredential(await plainUrls(store, options.ids), options, options.credential);
  }
  const made = await store.provision(options.ids, {
    lifeMs: options.lifeMs,
    ...(options.ipRange === undefined ? {} : { ipRange: options.ipRange }),
    signal: options.signal,
  });
  const expires = firstEnd(made.document);
  if (options.pointer !== true) return { document: made.document, expires, warnings: [] };
  const pointerUrl = await storePointer(store, made.document, options, expires);
  return { document: made.document, expires, pointerUrl, warnings: [] };
}

function firstEnd(document: Provision): string | undefined {
  return Object.values(document.data)
    .flatMap((entry) => entry.expires ?? [])
    .sort()[0];
}

/** The URL of an object below a data set, signed as the set's own URL is. */
function urlBelow(setUrl: string, key: string): string {
  const url = new URL(setUrl);
  url.pathname = `${url.pathname.replace(/\/?$/, '/')}${key}`;
  return url.href;
}

async function storePointer(
  store: Store,
  document: Provision,
  options: MintOptions,
  expires: string | undefined,
): Promise<string> {
  const [id = ''] = options.ids;
  const setUrl = document.data[id]?.url ?? '';
  const end = expires === undefined ? Date.now() + options.lifeMs : Date.parse(expires);
  const stamp = new Date(end)
    .toISOString()
    .replace(/:/g, '')
    .replace(/\.\d+Z$/, 'Z');
  // The name is random: who may read this set must not find a document made for another instance with more sets.
  const key = `provision/${stamp}-${randomBytes(16).toString('hex')}.json`;
  const body = Buffer.from(`${JSON.stringify(document)}\n`);
  await store.put(`${id}/${key}`, () => Readable.from([body]), {
    bytes: body.length,
    contentType: 'application/json',
    signal: options.signal,
  });
  return urlBelow(setUrl, key);
}

/** Where the data sets lie, each with a slash at its end. */
async function plainUrls(store: Store, ids: readonly string[]): Promise<Map<string, URL>> {
  if (!(store instanceof SwiftStore)) {
    throw new PortError('USAGE', `${store.url} knows no application credentials`, { hint: EXAMPLE_HINT });
  }
  const api = await store.api();
  return new Map(ids.map((id) => [id, new URL(`${api.url(store.containerOf(id)).href}/`)]));
}

function documentOf(
  urls: ReadonlyMap<string, URL>,
  auth: ProvisionAuth,
  expires: string | undefined,
): Provision {
  const ends = expires === undefined ? {} : { expires };
  return {
    version: 1,
    data: Object.fromEntries([...urls].map(([id, url]) => [id, { url: url.href, ...ends, auth }])),
  };
}

async function withCredential(
  urls: ReadonlyMap<string, URL>,
  options: MintOptions,
  choice: CredentialChoice,
): Promise<Minted> {
  if (options.openSession === undefined) {
    throw new PortError('USAGE', 'an application credential needs a cloud', {
      hint: 'name it with --os-cloud or OS_CLOUD',
    });
  }
  const { signal } = options;
  const session = await options.openSession();
  try {
    const authUrl = session.config.authUrl.href;
    const paths = [...urls.values()].map((url) => url.pathname);
    if (choice.kind === 'new') {
      const credential = await createApplicationCredential(session, {
        name: `port-image-${options.ids[0] ?? ''}-${randomBytes(4).toString('hex')}`,
        description: `reads the data sets ${options.ids.join(', ')}`.slice(0, 250),
        expiresMs: Date.now() + options.lifeMs,
        rules: paths.flatMap(readRules),
        signal,
      });
      const { id, secret } = credential;
      const expires =
        credential.expiresMs === undefined ? undefined : new Date(credential.expiresMs).toISOString();
      const auth: ProvisionAuth = { type: 'v3applicationcredential', authUrl, id, secret };
      return { document: documentOf(urls, auth, expires), expires, credentialId: id, warnings: [] };
    }
    const { id, secret, allowUnrestricted } = choice;
    const { expires, warnings } = await checkExisting(session, id, paths, allowUnrestricted, signal);
    const auth: ProvisionAuth = { type: 'v3applicationcredential', authUrl, id, secret };
    return { document: documentOf(urls, auth, expires), expires, credentialId: id, warnings };
  } finally {
    await session.close();
  }
}

/** Refuses a credential that is gone, expired, without rules (unless allowed), or does not reach the data. */
async function checkExisting(
  session: CloudSession,
  id: string,
  paths: readonly string[],
  allowUnrestricted: boolean,
  signal: AbortSignal | undefined,
): Promise<{ expires: string | undefined; warnings: string[] }> {
  const found = await showApplicationCredential(session, id, signal);
  if (found === undefined) {
    throw new PortError('CLOUD_REFUSED', `this user has no application credential ${id}`, {
      hint: 'an application credential can only be looked up by the user who made it',
    });
  }
  const expires = found.expiresMs === undefined ? undefined : new Date(found.expiresMs).toISOString();
  if (found.expiresMs !== undefined && found.expiresMs <= Date.now()) {
    throw new PortError('CLOUD_REFUSED', `the application credential ${id} expired at ${expires}`, {
      hint: '--application-credential new makes one',
    });
  }
  const warnings: string[] = [];
  if (expires === undefined) warnings.push(`the application credential ${id} never expires`);
  if (found.accessRules === undefined) {
    if (!allowUnrestricted) {
      throw new PortError(
        'CLOUD_REFUSED',
        `the application credential ${id} has no access rules: in an instance it opens the whole project`,
        { hint: '--application-credential new makes one that reads these data sets only' },
      );
    }
    warnings.push(
      `THE APPLICATION CREDENTIAL ${id} HAS NO ACCESS RULES: who gets into the instance can do in the project whatever its roles allow`,
    );
    return { expires, warnings };
  }
  if (!rulesCover(found.accessRules, paths)) {
    throw new PortError('CLOUD_REFUSED', `the access rules of ${id} do not allow reading the data sets`, {
      hint: `they need GET of object-store on ${paths.map((p) => `${p}**`).join(', ')}`,
    });
  }
  const wider = widerRules(found.accessRules, paths);
  if (wider.length > 0) {
    const told = wider.map((r) => `${r.method} ${r.service} ${r.path}`).join(', ');
    warnings.push(`the access rules of ${id} allow more than reading the data sets: ${told.slice(0, 300)}`);
  }
  return { expires, warnings };
}
