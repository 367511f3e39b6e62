/** How this machine proves itself to Azure. Nothing of it comes by argv or is kept in a job. */

import { DefaultAzureCredential, type TokenCredential } from '@azure/identity';
import { AnonymousCredential, StorageSharedKeyCredential } from '@azure/storage-blob';
import { PortError } from '../../core/errors.ts';
import { serviceUrl, type Transport } from './endpoint.ts';

/** What opens a storage account. */
export type BlobAccess =
  | { kind: 'key'; credential: StorageSharedKeyCredential }
  | { kind: 'sas'; credential: AnonymousCredential; query: string }
  | { kind: 'login'; credential: TokenCredential };

/** Where logins go and over what. */
export interface LoginOptions {
  transport: Transport;
  /** Of Microsoft Entra; the public cloud's when absent. */
  authority?: string | undefined;
}

/** The SDK's usual chain: environment, workload identity, managed identity, Azure CLI and others. */
export function tokenCredential({ transport, authority }: LoginOptions): TokenCredential {
  const { tlsOptions } = transport;
  const trust = tlsOptions === undefined ? {} : { tlsOptions };
  if (authority === undefined) return new DefaultAzureCredential(trust);
  const { href } = serviceUrl(authority, 'the login service');
  // An authority of its own is not in the public list of clouds.
  return new DefaultAzureCredential({ ...trust, authorityHost: href, disableInstanceDiscovery: true });
}

function fromConnectionString(text: string): Map<string, string> {
  const fields = text.split(';').flatMap((part): [string, string][] => {
    const at = part.indexOf('=');
    return at < 1 ? [] : [[part.slice(0, at).trim().toLowerCase(), part.slice(at + 1).trim()]];
  });
  return new Map(fields);
}

/**
 * What the environment has for an account, in this order: AZURE_STORAGE_CONNECTION_STRING if it is of this account,
 * AZURE_STORAGE_KEY, AZURE_STORAGE_SAS_TOKEN, the login. Throws CONFIG for a key that is none.
 */
export function blobAccess(
  account: string,
  login: () => TokenCredential,
  env: Readonly<Record<string, string | undefined>> = process.env,
): BlobAccess {
  const text = fromConnectionString(env.AZURE_STORAGE_CONNECTION_STRING ?? '');
  const isOurs = text.get('accountname') === account;
  const key = (isOurs ? text.get('accountkey') : undefined) ?? env.AZURE_STORAGE_KEY;
  if (key !== undefined && key !== '') {
    if (!/^[A-Za-z0-9+/]+={0,2}$/.test(key))
      throw new PortError('CONFIG', 'the key of the storage account is no base64');
    return { kind: 'key', credential: new StorageSharedKeyCredential(account, key) };
  }
  const sas = (isOurs ? text.get('sharedaccesssignature') : undefined) ?? env.AZURE_STORAGE_SAS_TOKEN;
  if (sas !== undefined && sas !== '')
    return { kind: 'sas', credential: new AnonymousCredential(), query: `?${sas.replace(/^\?/, '')}` };
  return { kind: 'login', credential: login() };
}
