/** Signed addresses that read one container and nothing else, and how they are taken back. */
import { randomBytes } from 'node:crypto';
import {
  type BlobServiceClient,
  type ContainerClient,
  ContainerSASPermissions,
  generateBlobSASQueryParameters,
  SASProtocol,
  type SasIPRange,
  type SignedIdentifier,
} from '@azure/storage-blob';
import { PortError } from '../../core/errors.ts';
import { pause } from '../../core/pause.ts';
import { printable } from '../../core/text.ts';
import { HttpClient } from '../openstack/http.ts';
import type { BlobAccess } from './credentials.ts';
import type { Transport } from './endpoint.ts';
import { azureError } from './errors.ts';

/** A user delegation key, and so what it signs, lives a week at most (Microsoft Learn, "Get User Delegation Key"). */
const MOST_DELEGATED_MS = 7 * 24 * 3600_000;
/** A stored access policy may take 30 seconds to count (Microsoft Learn, "Define a stored access policy"). */
const POLICY_MS = 60_000;
const POLL_MS = 1_000;
/** Clocks differ: what begins now must count at once. */
const SKEW_MS = 5 * 60_000;
const POLICY_PREFIX = 'port-image-';

/** What signs. */
export interface Signer {
  service: BlobServiceClient;
  access: BlobAccess;
  account: string;
  transport: Transport;
}

/** How to sign. */
export interface SignOptions {
  lifeMs: number;
  ipRange?: string | undefined;
  signal?: AbortSignal | undefined;
}

const toNumber = (ip: string) => ip.split('.').reduce((sum, part) => sum * 256 + Number(part), 0);
const toText = (value: number) =>
  [24, 16, 8, 0].map((shift) => Math.floor(value / 2 ** shift) % 256).join('.');

/** An address or CIDR range as first and last address: a SAS knows no CIDR. Throws USAGE for IPv6 and nonsense. */
export function addressRange(text: string): SasIPRange {
  const match = /^(\d{1,3}(?:\.\d{1,3}){3})(?:\/(\d{1,2}))?$/.exec(text);
  const bits = Number(match?.[2] ?? 32);
  const ip = match?.[1] ?? '';
  if (match === null || bits > 32 || ip.split('.').some((part) => Number(part) > 255))
    throw new PortError('USAGE', `Azure signs addresses for IPv4 only, not ${printable(text).slice(0, 60)}`);
  const size = 2 ** (32 - bits);
  const start = Math.floor(toNumber(ip) / size) * size;
  return size === 1 ? { start: ip } : { start: toText(start), end: toText(start + size - 1) };
}

async function ourPolicies(container: ContainerClient, signal?: AbortSignal): Promise<SignedIdentifier[]> {
  const { signedIdentifiers } = await container.getAccessPolicy(
    signal === undefined ? {} : { abortSignal: signal },
  );
  return signedIdentifiers.filter(({ id }) => id.startsWith(POLICY_PREFIX));
}

/** The policy in force, or a new one. It allows reading; how long is in each signed address. */
async function policyOf(container: ContainerClient, signal?: AbortSignal): Promise<string> {
  const [known] = await ourPolicies(container, signal);
  if (known !== undefined) return known.id;
  const id = `${POLICY_PREFIX}${randomBytes(8).toString('hex')}`;
  await container.setAccessPolicy(
    undefined,
    [{ id, accessPolicy: { permissions: 'r' } }],
    signal === undefined ? {} : { abortSignal: signal },
  );
  return id;
}

async function query(
  signer: Signer,
  container: ContainerClient,
  options: SignOptions,
): Promise<{ query: string; expires: Date }> {
  const { access, account, service } = signer;
  const { lifeMs, ipRange, signal } = options;
  const expires = new Date(Date.now() + lifeMs);
  const common = {
    containerName: container.containerName,
    expiresOn: expires,
    protocol: container.url.startsWith('https:') ? SASProtocol.Https : SASProtocol.HttpsAndHttp,
    ...(ipRange === undefined ? {} : { ipRange: addressRange(ipRange) }),
  };
  if (access.kind === 'sas')
    throw new PortError('CLOUD_REFUSED', 'with a SAS alone no further address can be signed', {
      hint: 'set AZURE_STORAGE_KEY, or log in with a role that may get user delegation keys (Storage Blob Delegator)',
    });
  if (access.kind === 'key') {
    const identifier = await policyOf(container, signal);
    return {
      query: generateBlobSASQueryParameters({ ...common, identifier }, access.credential).toString(),
      expires,
    };
  }
  if (lifeMs > MOST_DELEGATED_MS)
    throw new PortError('CLOUD_REFUSED', 'addresses signed by a login live a week at most', {
      hint: 'ask for a shorter life, or set AZURE_STORAGE_KEY',
    });
  const startsOn = new Date(Date.now() - SKEW_MS);
  const key = await service.getUserDelegationKey(
    startsOn,
    expires,
    signal === undefined ? {} : { abortSignal: signal },
  );
  const permissions = ContainerSASPermissions.parse('r');
  return {
    query: generateBlobSASQueryParameters({ ...common, permissions, startsOn }, key, account).toString(),
    expires,
  };
}

/** Status of a HEAD as an instance would send it. */
async function statusAt(
  { transport }: Signer,
  container: ContainerClient,
  signed: string,
  name: string,
  signal?: AbortSignal,
): Promise<number> {
  const http = await HttpClient.create({ caFile: transport.caFile });
  try {
    const url = new URL(`${container.url}/${name}?${signed}`);
    const answer = await http.request(url, {
      method: 'HEAD',
      okStatus: [200, 401, 403, 404],
      signal,
      what: 'a try of a signed address',
    });
    await answer.drain();
    return answer.status;
  } finally {
    await http.close();
  }
}

async function waitFor(
  signer: Signer,
  container: ContainerClient,
  signed: string,
  name: string,
  wanted: boolean,
  signal?: AbortSignal,
): Promise<void> {
  const end = performance.now() + POLICY_MS;
  for (;;) {
    const status = await statusAt(signer, container, signed, name, signal);
    if ((status === 200) === wanted) return;
    if (performance.now() > end)
      throw new PortError(
        'CLOUD_REFUSED',
        wanted
          ? `a signed address is answered with ${status}`
          : 'a signed address still works after it was taken back',
        {
          hint: 'is the clock of this machine right, and the address of this machine allowed by --ip and the firewall of the account?',
        },
      );
    await pause(POLL_MS, signal);
  }
}

/**
 * A query that reads this container's blobs, proved with one of them unless it is for other machines alone. Throws
 * CLOUD_REFUSED, USAGE and as azureError.
 */
export async function signContainer(
  signer: Signer,
  container: ContainerClient,
  name: string,
  options: SignOptions,
): Promise<{ query: string; expires: Date }> {
  try {
    const signed = await query(signer, container, options);
    if (options.ipRange === undefined)
      await waitFor(signer, container, signed.query, name, true, options.signal);
    return signed;
  } catch (error) {
    throw azureError(error, `signing an address of ${printable(container.containerName)}`, options.signal);
  }
}

/** Makes every signed address of a container worthless and proves it. Throws CLOUD_REFUSED where that is impossible. */
export async function revokeContainer(
  signer: Signer,
  container: ContainerClient,
  name: string,
  signal?: AbortSignal,
): Promise<void> {
  if (signer.access.kind !== 'key')
    throw new PortError('CLOUD_REFUSED', 'what a login signed cannot be taken back for one data set', {
      hint: 'wait until it is over, or revoke all delegation keys: az storage account revoke-delegation-keys; with AZURE_STORAGE_KEY each data set can be revoked',
    });
  try {
    const before = await signContainer(signer, container, name, { lifeMs: 10 * 60_000, signal });
    await container.setAccessPolicy(undefined, [], signal === undefined ? {} : { abortSignal: signal });
    await waitFor(signer, container, before.query, name, false, signal);
  } catch (error) {
    throw azureError(error, `revoking the addresses of ${printable(container.containerName)}`, signal);
  }
}
