/** Clients of the blob service, all with the same patience. */
import {
  AnonymousCredential,
  BlobServiceClient,
  newPipeline,
  PageBlobClient,
  type Pipeline,
  StorageRetryPolicyType,
} from '@azure/storage-blob';
import type { BlobAccess } from './credentials.ts';
import type { Transport } from './endpoint.ts';

/** The SDK tries 500, 503 and broken connections again. A longer try than this is taken for dead. */
const RETRIES = {
  retryPolicyType: StorageRetryPolicyType.EXPONENTIAL,
  maxTries: 6,
  retryDelayInMs: 400,
  maxRetryDelayInMs: 20_000,
  tryTimeoutInMs: 120_000,
};

function pipelineOf(credential: BlobAccess['credential'], { agent, onRequest }: Transport): Pipeline {
  const pipeline = newPipeline(credential, { retryOptions: RETRIES });
  if (agent !== undefined)
    pipeline.factories.push({
      create: (next) => ({
        sendRequest: (request) => {
          if (request.url.startsWith('https:')) request.agent = agent;
          return next.sendRequest(request);
        },
      }),
    });
  if (onRequest !== undefined)
    pipeline.factories.push({
      create: (next) => ({
        sendRequest: (request) => {
          onRequest();
          return next.sendRequest(request);
        },
      }),
    });
  return pipeline;
}

/** A storage account. `url` as of blobServiceUrl. */
export function blobService(url: string, access: BlobAccess, transport: Transport): BlobServiceClient {
  const address = access.kind === 'sas' ? `${url}${access.query}` : url;
  return new BlobServiceClient(address, pipelineOf(access.credential, transport));
}

/** A page blob by an address that is signed already, such as that of a managed disk. */
export function signedPageBlob(url: string, transport: Transport): PageBlobClient {
  return new PageBlobClient(url, pipelineOf(new AnonymousCredential(), transport));
}
