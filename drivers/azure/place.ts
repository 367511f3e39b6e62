/** The clients a target needs, and its own words for where that is. */
import { ComputeManagementClient } from '@azure/arm-compute';
import type { ContainerClient } from '@azure/storage-blob';
import { PortError } from '../../core/errors.ts';
import { printable } from '../../core/text.ts';
import { blobService } from '../../tools/azure/blob.ts';
import { blobAccess, tokenCredential } from '../../tools/azure/credentials.ts';
import {
  blobServiceUrl,
  CONTAINER_NAME,
  serviceUrl,
  type Transport,
  transport,
} from '../../tools/azure/endpoint.ts';
import { azureError } from '../../tools/azure/errors.ts';
import type { AzureOptions } from './options.ts';

/** Between two questions whether the cloud is done. */
const POLL_MS = 5_000;

/** A target with its clients. */
export interface Place {
  options: AzureOptions;
  compute: ComputeManagementClient;
  /** Only for page blobs. */
  container: ContainerClient | undefined;
  http: Transport;
  /** How often long work is asked after. */
  pollMs: number;
}

/** Reads credentials and CA file; connects to nothing yet. Throws CONFIG. */
export async function openPlace(
  options: AzureOptions,
  pollMs = POLL_MS,
  onRequest?: () => void,
): Promise<Place> {
  const http = { ...(await transport(options.caFile)), onRequest };
  const { management, blob, authority } = options.endpoints;
  const login = tokenCredential({ transport: http, authority });
  const endpoint =
    management === undefined
      ? undefined
      : serviceUrl(management, 'the resource manager').href.replace(/\/$/, '');
  const compute = new ComputeManagementClient(login, options.subscription, {
    ...(http.tlsOptions === undefined ? {} : { tlsOptions: http.tlsOptions }),
    // a redirect to another host would take the token with it
    redirectOptions: { maxRetries: 0 },
    ...(endpoint === undefined ? {} : { endpoint, credentials: { scopes: [`${endpoint}/.default`] } }),
  });
  if (onRequest !== undefined)
    compute.pipeline.addPolicy(
      {
        name: 'countRequests',
        sendRequest: (request, next) => {
          onRequest();
          return next(request);
        },
      },
      { afterPhase: 'Retry' },
    );
  return { options, compute, container: containerOf(options, blob, http, () => login), http, pollMs };
}

function containerOf(
  options: AzureOptions,
  endpoint: string | undefined,
  http: Transport,
  login: () => ReturnType<typeof tokenCredential>,
): ContainerClient | undefined {
  const { method, storageAccount, container } = options;
  if (method !== 'page-blob' || storageAccount === undefined || container === undefined) return undefined;
  if (!CONTAINER_NAME.test(container))
    throw new PortError('CONFIG', `not a name of a container: ${printable(container).slice(0, 100)}`);
  const url = blobServiceUrl(storageAccount, endpoint);
  return blobService(url, blobAccess(storageAccount, login), http).getContainerClient(container);
}

/** The container of page blobs. */
export function requireContainer(place: Place): ContainerClient {
  if (place.container === undefined) throw new PortError('BUG', 'page blobs without a container');
  return place.container;
}

/** One call to the resource manager, its errors in our words. */
export async function asked<T>(what: string, signal: AbortSignal, call: () => PromiseLike<T>): Promise<T> {
  try {
    return await call();
  } catch (error) {
    throw azureError(error, what, signal);
  }
}

/** The same for things that may not be there. */
export async function askedFor<T>(
  what: string,
  signal: AbortSignal,
  call: () => PromiseLike<T>,
): Promise<T | undefined> {
  try {
    return await call();
  } catch (error) {
    if ((error as { statusCode?: number }).statusCode === 404) return undefined;
    throw azureError(error, what, signal);
  }
}
