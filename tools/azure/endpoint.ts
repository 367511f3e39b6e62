/** Addresses of Azure services, and the one HTTP client all of the SDKs use. */
import * as fs from 'node:fs/promises';
import { Agent } from 'node:https';
import { rootCertificates } from 'node:tls';
import { PortError } from '../../core/errors.ts';
import { printable } from '../../core/text.ts';

/** Names of storage accounts: Azure/azure-rest-api-specs, Microsoft.Storage, `accountName`. */
export const ACCOUNT_NAME = /^[a-z0-9]{3,24}$/;
/** Names of containers: Microsoft Learn, "Naming and referencing containers, blobs, and metadata". */
export const CONTAINER_NAME = /^(?!.*--)[a-z0-9][a-z0-9-]{1,61}[a-z0-9]$/;

const LOOPBACK = new Set(['127.0.0.1', '[::1]', 'localhost']);

/** An address of a service without credentials. Throws CONFIG; plain http only to this machine itself. */
export function serviceUrl(text: string, what: string): URL {
  let url: URL;
  try {
    url = new URL(text);
  } catch (error) {
    throw new PortError('CONFIG', `not an address of ${what}: ${printable(text).slice(0, 200)}`, {
      cause: error,
    });
  }
  const isPlain = url.protocol === 'http:';
  if ((url.protocol !== 'https:' && !isPlain) || (isPlain && !LOOPBACK.has(url.hostname)))
    throw new PortError('CONFIG', `the address of ${what} must begin with https://`, {
      hint: 'http:// is for services on this machine alone',
    });
  if (url.username !== '' || url.password !== '' || url.search !== '' || url.hash !== '')
    throw new PortError('CONFIG', `the address of ${what} may hold no credentials and no query`, {
      hint: 'credentials come by the environment: AZURE_STORAGE_KEY, AZURE_STORAGE_SAS_TOKEN, az login, …',
    });
  return url;
}

/** Address of an account's blobs: the public cloud's, or the one given. No slash at its end. */
export function blobServiceUrl(account: string, endpoint?: string): string {
  if (!ACCOUNT_NAME.test(account))
    throw new PortError('CONFIG', `not a name of a storage account: ${printable(account).slice(0, 100)}`);
  const url = serviceUrl(endpoint ?? `https://${account}.blob.core.windows.net`, 'the blob service');
  return url.href.replace(/\/+$/, '');
}

/** Whom requests trust: the SDKs of the resource manager and of blobs take it in two forms. */
export interface Transport {
  caFile: string | undefined;
  /** Both only where further authorities are trusted. */
  tlsOptions: { ca: string } | undefined;
  agent: Agent | undefined;
  /** Told of every request that is sent, repeated ones as well. */
  onRequest?: (() => void) | undefined;
}

/** The usual authorities, with those of a PEM file besides. Throws CONFIG. */
export async function transport(caFile?: string): Promise<Transport> {
  if (caFile === undefined) return { caFile, tlsOptions: undefined, agent: undefined };
  const own = await fs.readFile(caFile, 'utf8').catch((error: unknown) => {
    throw new PortError(
      'CONFIG',
      `the file of certificate authorities cannot be read: ${printable(caFile)}`,
      {
        cause: error,
      },
    );
  });
  const ca = [...rootCertificates, own].join('\n');
  return { caFile, tlsOptions: { ca }, agent: new Agent({ keepAlive: true, ca }) };
}
