/**
 * Which cloud and with which credentials: `clouds.yaml` in its standard places, or the `OS_*` variables.
 * Form and search order: docs.openstack.org/python-openstackclient/latest/configuration (os-client-config).
 */
import * as fs from 'node:fs/promises';
import * as os from 'node:os';
import * as path from 'node:path';
import { parse } from 'yaml';
import * as z from 'zod';
import { PortError } from '../../core/errors.ts';
import { printable } from '../../core/text.ts';

/** How to prove who we are; the object is sent to Keystone and never printed. */
export type CloudAuth =
  | {
      type: 'password';
      user: { id: string } | { name: string; domain: { id: string } | { name: string } };
      password: string;
      scope: CloudScope;
    }
  | { type: 'token'; token: string; scope: CloudScope | undefined }
  | {
      type: 'application_credential';
      id?: string;
      name?: string;
      user?: { id: string } | { name: string; domain: { id: string } | { name: string } };
      secret: string;
    };

/** The project to work in. */
export type CloudScope =
  | { project: { id: string } }
  | { project: { name: string; domain: { id: string } | { name: string } } };

/** One cloud as configured. */
export interface CloudConfig {
  /** Name in clouds.yaml, or `envvars`. */
  name: string;
  /** Keystone's URL as written, with or without `/v3`. */
  authUrl: URL;
  auth: CloudAuth;
  /** Region; the catalog's only one when absent. */
  region: string | undefined;
  interface: 'public' | 'internal' | 'admin';
  /** PEM file with certificate authorities. */
  caFile: string | undefined;
  /** Endpoints that replace those of the catalog, by service type: `image`, `object-store`. */
  endpoints: Readonly<Record<string, string>>;
}

const Text = z.union([z.string(), z.number()]).transform(String);
const AuthSection = z.looseObject({
  auth_url: z.string(),
  username: Text.optional(),
  user_id: Text.optional(),
  password: Text.optional(),
  token: z.string().optional(),
  project_name: Text.optional(),
  project_id: Text.optional(),
  tenant_name: Text.optional(),
  tenant_id: Text.optional(),
  user_domain_name: Text.optional(),
  user_domain_id: Text.optional(),
  project_domain_name: Text.optional(),
  project_domain_id: Text.optional(),
  domain_name: Text.optional(),
  domain_id: Text.optional(),
  default_domain: Text.optional(),
  application_credential_id: z.string().optional(),
  application_credential_name: z.string().optional(),
  application_credential_secret: z.string().optional(),
});
type AuthSection = z.infer<typeof AuthSection>;

const CloudSection = z.looseObject({
  auth: z.looseObject({}).default({}),
  auth_type: z.string().optional(),
  region_name: Text.optional(),
  regions: z.array(z.union([z.string(), z.looseObject({ name: z.string() })])).optional(),
  interface: z.string().optional(),
  endpoint_type: z.string().optional(),
  cacert: z.string().optional(),
  verify: z.union([z.boolean(), z.string()]).optional(),
  profile: z.string().optional(),
  cloud: z.string().optional(),
});
type CloudSection = z.infer<typeof CloudSection>;

const CloudsFile = z.looseObject({
  clouds: z.record(z.string(), CloudSection).default({}),
  'public-clouds': z.record(z.string(), z.looseObject({})).optional(),
});

/** Where a file may lie, best first. */
function searchPath(
  env: NodeJS.ProcessEnv,
  names: readonly string[],
  override: string | undefined,
): string[] {
  if (override !== undefined && override !== '') return [override];
  const configHome = env.XDG_CONFIG_HOME || path.join(env.HOME || os.homedir(), '.config');
  const dirs = [process.cwd(), path.join(configHome, 'openstack'), '/etc/openstack'];
  return dirs.flatMap((dir) => names.map((name) => path.join(dir, name)));
}

async function readFirst(
  files: readonly string[],
  explicit: boolean,
): Promise<{ file: string; value: unknown } | undefined> {
  for (const file of files) {
    let text: string;
    try {
      text = await fs.readFile(file, 'utf8');
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (!explicit && (code === 'ENOENT' || code === 'ENOTDIR')) continue;
      throw new PortError('CONFIG', `cannot read ${printable(file)}`, { cause: error });
    }
    try {
      return { file, value: parse(text, { maxAliasCount: 100 }) ?? {} };
    } catch {
      // The parser's message quotes the line, which may hold a password.
      throw new PortError('CONFIG', `${printable(file)} is not YAML`);
    }
  }
  return undefined;
}

function mergeDeep(low: unknown, high: unknown): unknown {
  if (!isObject(low) || !isObject(high)) return high === undefined ? low : high;
  const merged: Record<string, unknown> = { ...low };
  for (const [key, value] of Object.entries(high)) merged[key] = mergeDeep(low[key], value);
  return merged;
}

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/** The names of `clouds.yaml`, with what `secure.yaml` adds. */
async function readClouds(
  env: NodeJS.ProcessEnv,
): Promise<{ file: string; clouds: Record<string, CloudSection> } | undefined> {
  const override = env.OS_CLIENT_CONFIG_FILE;
  const main = await readFirst(
    searchPath(env, ['clouds.yaml', 'clouds.yml'], override),
    override !== undefined && override !== '',
  );
  if (main === undefined) return undefined;
  const secureOverride = env.OS_CLIENT_SECURE_FILE;
  const secure = await readFirst(searchPath(env, ['secure.yaml', 'secure.yml'], secureOverride), false);
  const parsed = CloudsFile.safeParse(mergeDeep(main.value, secure?.value));
  if (!parsed.success) {
    const issue = parsed.error.issues[0];
    throw new PortError(
      'CONFIG',
      `${printable(main.file)}: ${issue?.path.join('.') || 'top level'}: wrong form`,
    );
  }
  const profiles = parsed.data['public-clouds'] ?? {};
  const clouds = Object.fromEntries(
    Object.entries(parsed.data.clouds).map(([name, section]) => {
      const profile = section.profile ?? section.cloud;
      const base = profile === undefined ? undefined : profiles[profile];
      return [name, base === undefined ? section : CloudSection.parse(mergeDeep(base, section))];
    }),
  );
  return { file: main.file, clouds };
}

/** `OS_*` variables in the form of a section of clouds.yaml. */
function fromEnvironment(env: NodeJS.ProcessEnv): CloudSection {
  const auth: Record<string, string> = {};
  for (const key of Object.keys(AuthSection.shape)) {
    const value = env[`OS_${key.toUpperCase()}`];
    if (value !== undefined && value !== '') auth[key] = value;
  }
  const token = env.OS_AUTH_TOKEN;
  if (token && auth.token === undefined) auth.token = token;
  const optional = (key: string, variable: string) => (env[variable] ? { [key]: env[variable] } : {});
  const endpoints = Object.fromEntries(
    ['IMAGE', 'OBJECT_STORE', 'IDENTITY'].flatMap((type) => {
      const value = env[`OS_${type}_ENDPOINT_OVERRIDE`];
      return value ? [[`${type.toLowerCase()}_endpoint_override`, value]] : [];
    }),
  );
  return CloudSection.parse({
    auth,
    ...optional('auth_type', 'OS_AUTH_TYPE'),
    ...optional('region_name', 'OS_REGION_NAME'),
    ...optional('interface', env.OS_INTERFACE ? 'OS_INTERFACE' : 'OS_ENDPOINT_TYPE'),
    ...optional('cacert', 'OS_CACERT'),
    ...endpoints,
  });
}

/** The name of the cloud to use: the flag, `OS_CLOUD`, `envvars` for plain `OS_*` variables, or undefined for none. */
export function cloudName(
  flag: string | undefined,
  env: NodeJS.ProcessEnv = process.env,
): string | undefined {
  if (flag !== undefined) return flag;
  if (env.OS_CLOUD) return env.OS_CLOUD;
  return env.OS_AUTH_URL ? 'envvars' : undefined;
}

/** Reads the configuration of a cloud. Throws CONFIG, naming what is missing; never prints a value of `auth`. */
export async function loadCloud(name: string, env: NodeJS.ProcessEnv = process.env): Promise<CloudConfig> {
  if (name === 'envvars') return toConfig(name, fromEnvironment(env), 'the OS_* variables');
  const found = await readClouds(env);
  if (found === undefined) {
    throw new PortError('CONFIG', `no clouds.yaml found, so there is no cloud ${printable(name)}`, {
      hint: 'put it into the current folder, ~/.config/openstack or /etc/openstack, or set OS_CLIENT_CONFIG_FILE',
    });
  }
  const section = Object.hasOwn(found.clouds, name) ? found.clouds[name] : undefined;
  if (section === undefined) {
    throw new PortError('CONFIG', `no cloud ${printable(name)} in ${printable(found.file)}`, {
      hint: `it has: ${printable(Object.keys(found.clouds).join(', ')) || 'none'}`,
    });
  }
  const region = env.OS_REGION_NAME;
  const merged = region && section.region_name === undefined ? { ...section, region_name: region } : section;
  return toConfig(name, merged, found.file);
}

function domain(id: string | undefined, name: string | undefined): { id: string } | { name: string } {
  if (id !== undefined) return { id };
  return name === undefined ? { id: 'default' } : { name };
}

function scopeOf(a: AuthSection): CloudScope | undefined {
  const id = a.project_id ?? a.tenant_id;
  if (id !== undefined) return { project: { id } };
  const name = a.project_name ?? a.tenant_name;
  if (name === undefined) return undefined;
  const fallback = a.domain_name ?? a.default_domain;
  return {
    project: { name, domain: domain(a.project_domain_id ?? a.domain_id, a.project_domain_name ?? fallback) },
  };
}

function userOf(
  a: AuthSection,
): { id: string } | { name: string; domain: { id: string } | { name: string } } | undefined {
  if (a.user_id !== undefined) return { id: a.user_id };
  if (a.username === undefined) return undefined;
  const fallback = a.domain_name ?? a.default_domain;
  return {
    name: a.username,
    domain: domain(a.user_domain_id ?? a.domain_id, a.user_domain_name ?? fallback),
  };
}

function authOf(type: string | undefined, a: AuthSection, missing: (what: string) => never): CloudAuth {
  const isApplication =
    a.application_credential_id !== undefined || a.application_credential_name !== undefined;
  const kind =
    type?.replace(/^v3/, '') ??
    (isApplication ? 'applicationcredential' : a.token === undefined ? 'password' : 'token');
  const scope = scopeOf(a);
  const user = userOf(a);
  if (kind === 'applicationcredential') {
    const secret = a.application_credential_secret ?? missing('application_credential_secret');
    if (a.application_credential_id !== undefined)
      return { type: 'application_credential', id: a.application_credential_id, secret };
    const name = a.application_credential_name ?? missing('application_credential_id');
    return { type: 'application_credential', name, user: user ?? missing('username'), secret };
  }
  if (kind === 'token') return { type: 'token', token: a.token ?? missing('token'), scope };
  if (kind !== 'password') {
    throw new PortError('CONFIG', `auth_type ${printable(type ?? '')} is not supported`, {
      hint: 'use password, token or v3applicationcredential',
    });
  }
  return {
    type: 'password',
    user: user ?? missing('username'),
    password: a.password ?? missing('password'),
    scope: scope ?? missing('project_name'),
  };
}

function toConfig(name: string, section: CloudSection, where: string): CloudConfig {
  const missing = (what: string): never => {
    throw new PortError('CONFIG', `cloud ${printable(name)}: ${what} is missing in ${printable(where)}`);
  };
  const parsed = AuthSection.safeParse(section.auth);
  if (!parsed.success) missing(`auth.${parsed.error.issues[0]?.path.join('.') ?? ''}`);
  const auth = parsed.data as AuthSection;
  if (section.verify === false || section.verify === 'false') {
    throw new PortError(
      'CONFIG',
      `cloud ${printable(name)}: verify: false is not supported, TLS is always verified`,
      {
        hint: 'name the certificate authority with cacert',
      },
    );
  }
  const authUrl = URL.canParse(auth.auth_url) ? new URL(auth.auth_url) : undefined;
  if (authUrl === undefined || !/^https?:$/.test(authUrl.protocol)) {
    throw new PortError('CONFIG', `cloud ${printable(name)}: auth_url is no http(s) URL`);
  }
  // Messages name the URL, and the provision document of an application credential hands it on.
  if (authUrl.username !== '' || authUrl.password !== '') {
    throw new PortError('CONFIG', `cloud ${printable(name)}: auth_url may not hold a user or a password`, {
      hint: 'write them as username and password beside it',
    });
  }
  const side = (section.interface ?? section.endpoint_type ?? 'public').replace(/URL$/, '');
  if (side !== 'public' && side !== 'internal' && side !== 'admin') {
    throw new PortError('CONFIG', `cloud ${printable(name)}: interface ${printable(side)} does not exist`);
  }
  const [first, ...others] = section.regions ?? [];
  const only =
    first === undefined || others.length > 0 ? undefined : typeof first === 'string' ? first : first.name;
  const endpoints: Record<string, string> = {};
  for (const type of ['image', 'object-store', 'identity']) {
    const value =
      section[`${type.replace('-', '_')}_endpoint_override`] ?? section[`${type.replace('-', '_')}_endpoint`];
    if (typeof value !== 'string') continue;
    if (/^[a-z]+:\/\/[^/]*@/i.test(value)) {
      throw new PortError(
        'CONFIG',
        `cloud ${printable(name)}: the endpoint of ${type} has a password in it`,
        {
          hint: 'write the URL without it; the login is in `auth`',
        },
      );
    }
    endpoints[type] = value;
  }
  return {
    name,
    authUrl,
    auth: authOf(section.auth_type, auth, missing),
    region: section.region_name ?? only,
    interface: side,
    caFile: section.cacert?.replace(/^~(?=\/)/, os.homedir()),
    endpoints,
  };
}
