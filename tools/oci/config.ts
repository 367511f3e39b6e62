/** The login of Oracle's own tools: https://docs.oracle.com/iaas/Content/API/Concepts/sdkconfig.htm. */
import { createPrivateKey, type KeyObject } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import * as path from 'node:path';
import { PortError } from '../../core/errors.ts';
import { printable } from '../../core/text.ts';

/** Who signs, and where. */
export interface OciLogin {
  /** `TENANCY/USER/FINGERPRINT`. */
  keyId: string;
  key: KeyObject;
  tenancy: string;
  region: string | undefined;
}

const HINT = 'see `oci setup config`; OCI_CLI_CONFIG_FILE names another file';

/** Profiles of an INI file; those in it inherit from DEFAULT, as Oracle's tools do it. */
export function parseProfiles(text: string): Map<string, Map<string, string>> {
  const profiles = new Map<string, Map<string, string>>();
  let current: Map<string, string> | undefined;
  for (const raw of text.split(/\r?\n/)) {
    const line = raw.trim();
    if (line === '' || line.startsWith('#') || line.startsWith(';')) continue;
    const [, section] = /^\[(.+)\]$/.exec(line) ?? [];
    if (section !== undefined) {
      current = profiles.get(section) ?? new Map();
      profiles.set(section, current);
      continue;
    }
    const [, name = '', value = ''] = /^([^=]+?)\s*=\s*(.*)$/.exec(line) ?? [];
    if (name !== '') current?.set(name, value);
  }
  return profiles;
}

const inHome = (file: string): string => (file.startsWith('~/') ? path.join(homedir(), file.slice(2)) : file);

/** Reads a profile and its key. Throws CLOUD_LOGIN. */
export async function readOciLogin(
  profile: string,
  env: Readonly<Record<string, string | undefined>> = process.env,
): Promise<OciLogin> {
  const file = inHome(env.OCI_CLI_CONFIG_FILE ?? env.OCI_CONFIG_FILE ?? '~/.oci/config');
  const fail = (message: string, cause?: unknown) =>
    new PortError('CLOUD_LOGIN', message, { hint: HINT, ...(cause === undefined ? {} : { cause }) });
  const text = await readFile(file, 'utf8').catch((error: unknown) => {
    throw fail(`cannot read ${printable(file)}`, error);
  });
  const profiles = parseProfiles(text);
  const own = profiles.get(profile);
  if (own === undefined) throw fail(`${printable(file)} has no profile ${printable(profile)}`);
  const get = (name: string): string | undefined => own.get(name) ?? profiles.get('DEFAULT')?.get(name);
  const must = (name: string): string => {
    const value = get(name);
    if (value !== undefined && value !== '') return value;
    throw fail(`profile ${printable(profile)} in ${printable(file)} has no ${name}`);
  };
  if (get('security_token_file') !== undefined) {
    throw fail(`profile ${printable(profile)} is a session of a browser login, an API key is needed`);
  }
  const keyFile = inHome(must('key_file'));
  const pem = await readFile(keyFile, 'utf8').catch((error: unknown) => {
    throw fail(`cannot read the key ${printable(keyFile)}`, error);
  });
  if (/ENCRYPTED/.test(pem)) {
    throw new PortError(
      'CLOUD_LOGIN',
      `the key ${printable(keyFile)} has a passphrase, which is not asked for`,
      {
        hint: 'name a key without one: openssl pkey -in KEY -out PLAIN; keep it 0600',
      },
    );
  }
  let key: KeyObject;
  try {
    key = createPrivateKey(pem);
  } catch (error) {
    throw fail(`${printable(keyFile)} is no private key`, error);
  }
  if (key.asymmetricKeyType !== 'rsa') throw fail(`${printable(keyFile)} is no RSA key`);
  const tenancy = must('tenancy');
  return {
    keyId: `${tenancy}/${must('user')}/${must('fingerprint')}`,
    key,
    tenancy,
    region: get('region'),
  };
}
