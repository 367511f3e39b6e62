/**
 * Application credentials: a login of their own for instances, bound by access rules to reading named paths.
 * Keystone API 3.13 (Train) brought access rules; docs.openstack.org/api-ref/identity/v3, "Application credentials".
 */
import * as z from 'zod';
import { PortError } from '../../core/errors.ts';
import { printable } from '../../core/text.ts';
import { HttpError } from './http.ts';
import { type CloudSession, keystoneRoot } from './session.ts';

const AccessRule = z.looseObject({ service: z.string(), method: z.string(), path: z.string() });
/** What a credential may do: one method on paths of one service; `*` is one part of a path, `**` any number. */
export type AccessRule = Pick<z.infer<typeof AccessRule>, 'service' | 'method' | 'path'>;

const Credential = z.looseObject({
  id: z.string().min(1),
  name: z.string(),
  secret: z.string().optional(),
  expires_at: z.string().nullish(),
  unrestricted: z.boolean().nullish(),
  access_rules: z.array(AccessRule).nullish(),
});

/** An application credential without its secret. */
export interface ApplicationCredential {
  id: string;
  name: string;
  /** Milliseconds since 1970; undefined lives until it is deleted. */
  expiresMs: number | undefined;
  /** Undefined when it has none and so may do whatever its roles may. */
  accessRules: AccessRule[] | undefined;
}

/** Form of an id; it becomes a part of a URL. */
const ID = /^[A-Za-z0-9_-]{1,64}$/;
const FIRST_WITH_RULES = [3, 13] as const;

/** Rules that allow reading below `path` (with a slash at its end) and nothing else. */
export function readRules(path: string): AccessRule[] {
  return ['GET', 'HEAD'].map((method) => ({ service: 'object-store', method, path: `${path}**` }));
}

/** True when a rule's pattern matches a path, as keystonemiddleware matches it. */
export function matchesPath(pattern: string, path: string): boolean {
  const source = pattern
    .split(/(\*\*|\*|\{[^/{}]*\})/)
    .map((part) => {
      if (part === '**') return '.*';
      if (part === '*' || /^\{.*\}$/.test(part)) return '[^/]+';
      return part.replace(/[\\^$.*+?()[\]{}|]/g, '\\$&');
    })
    .join('');
  return new RegExp(`^${source}$`, 's').test(path);
}

/** True when the rules let a client read objects below each of these paths (with a slash at their ends). */
export function rulesCover(rules: readonly AccessRule[], paths: readonly string[]): boolean {
  return paths.every((path) =>
    rules.some(
      (rule) =>
        rule.service === 'object-store' &&
        rule.method === 'GET' &&
        // a name in the folder and one further down
        matchesPath(rule.path, `${path}manifest.json`) &&
        matchesPath(rule.path, `${path}segments/000001.tar.zst`),
    ),
  );
}

/** Rules that allow more than reading below these paths. */
export function widerRules(rules: readonly AccessRule[], paths: readonly string[]): AccessRule[] {
  return rules.filter(
    (rule) =>
      rule.service !== 'object-store' ||
      !['GET', 'HEAD'].includes(rule.method) ||
      !paths.some((path) => rule.path.startsWith(path)),
  );
}

function parse(value: unknown, host: string): z.infer<typeof Credential> {
  const parsed = z.looseObject({ application_credential: Credential }).safeParse(value);
  if (!parsed.success) {
    throw new PortError('CLOUD', `${host} answers with something else than an application credential`);
  }
  return parsed.data.application_credential;
}

function convert(raw: z.infer<typeof Credential>): ApplicationCredential {
  const { access_rules: rules } = raw;
  // Keystone gives UTC, with or without the letter
  const ends = raw.expires_at?.replace(/(\.\d+)?Z?$/, 'Z');
  const expiresMs = ends === undefined ? undefined : Date.parse(ends);
  if (expiresMs !== undefined && Number.isNaN(expiresMs)) {
    throw new PortError('CLOUD', `Keystone gives ${printable(ends ?? '')} as the end of a credential`);
  }
  return {
    id: raw.id,
    name: raw.name,
    expiresMs,
    accessRules: rules === null || rules === undefined || rules.length === 0 ? undefined : rules,
  };
}

function urlOf(session: CloudSession, id?: string): URL {
  if (id !== undefined && !ID.test(id)) {
    throw new PortError('USAGE', `not an id of an application credential: ${printable(id).slice(0, 80)}`);
  }
  const path = `users/${encodeURIComponent(session.userId)}/application_credentials`;
  return new URL(id === undefined ? path : `${path}/${id}`, keystoneRoot(session.config.authUrl));
}

/** Throws CLOUD_REFUSED when this Keystone does not know access rules. */
async function requireAccessRules(session: CloudSession, signal?: AbortSignal): Promise<void> {
  const answer = await session.request(keystoneRoot(session.config.authUrl), {
    method: 'GET',
    what: 'version of Keystone',
    signal,
  });
  const found = z.looseObject({ version: z.looseObject({ id: z.string() }) }).safeParse(await answer.json());
  const [, major, minor] = /^v(\d+)\.(\d+)$/.exec(found.success ? found.data.version.id : '') ?? [];
  const [wantMajor, wantMinor] = FIRST_WITH_RULES;
  const isNew =
    major !== undefined &&
    (Number(major) > wantMajor || (Number(major) === wantMajor && Number(minor) >= wantMinor));
  if (isNew) return;
  throw new PortError(
    'CLOUD_REFUSED',
    `cloud ${printable(session.config.name)} cannot limit application credentials: its Keystone has no access rules`,
    { hint: 'leave --application-credential out: signed URLs read one data set and expire' },
  );
}

/** What to create. */
export interface NewCredential {
  name: string;
  description: string;
  /** Milliseconds since 1970. */
  expiresMs: number;
  rules: readonly AccessRule[];
  signal?: AbortSignal | undefined;
}

/**
 * Creates a credential with the roles of the token, bound by access rules. Throws CLOUD_REFUSED when the cloud has no
 * such rules or does not let this login create one.
 */
export async function createApplicationCredential(
  session: CloudSession,
  wanted: NewCredential,
): Promise<ApplicationCredential & { secret: string }> {
  await requireAccessRules(session, wanted.signal);
  const body = {
    application_credential: {
      name: wanted.name,
      description: wanted.description,
      expires_at: new Date(wanted.expiresMs).toISOString().replace('Z', '000Z'),
      unrestricted: false,
      // Named although all of the token's are the default: a token may list a role twice (granted and implied), which
      // Keystone 22 then answers with 409.
      roles: [...new Set(session.roles)].map((name) => ({ name })),
      access_rules: wanted.rules,
    },
  };
  let raw: z.infer<typeof Credential>;
  try {
    const answer = await session.request(urlOf(session), {
      method: 'POST',
      headers: { 'content-type': 'application/json', accept: 'application/json' },
      body: JSON.stringify(body),
      what: 'new application credential',
      signal: wanted.signal,
    });
    raw = parse(await answer.json(), keystoneRoot(session.config.authUrl).host);
  } catch (error) {
    if (!(error instanceof HttpError) || error.status !== 403) throw error;
    throw new PortError('CLOUD_REFUSED', error.message, {
      hint: 'a login by application credential may not make another one: log in with a password, or name an existing one',
      cause: error,
    });
  }
  const made = convert(raw);
  if (made.accessRules === undefined || raw.secret === undefined) {
    await deleteApplicationCredential(session, made.id);
    throw new PortError('CLOUD_REFUSED', 'the cloud made an application credential without access rules', {
      hint: 'it was deleted again; leave --application-credential out to use signed URLs',
    });
  }
  return { ...made, secret: raw.secret };
}

/** Undefined when this user has no such credential. Throws USAGE for something that is no id, CLOUD. */
export async function showApplicationCredential(
  session: CloudSession,
  id: string,
  signal?: AbortSignal,
): Promise<ApplicationCredential | undefined> {
  const answer = await session.request(urlOf(session, id), {
    method: 'GET',
    headers: { accept: 'application/json' },
    okStatus: [200, 404],
    what: 'application credential',
    signal,
  });
  if (answer.status === 404) {
    await answer.drain();
    return undefined;
  }
  return convert(parse(await answer.json(), keystoneRoot(session.config.authUrl).host));
}

/** Deletes a credential; tokens made with it end too. False when there was none. Throws USAGE, CLOUD. */
export async function deleteApplicationCredential(
  session: CloudSession,
  id: string,
  signal?: AbortSignal,
): Promise<boolean> {
  const answer = await session.request(urlOf(session, id), {
    method: 'DELETE',
    okStatus: [204, 404],
    what: 'removal of the application credential',
    signal,
  });
  await answer.drain();
  return answer.status === 204;
}
