/** The SDK's clients, tuned once: credentials by its default chain, sockets for many small requests, patient retries. */

import { Agent } from 'node:https';
import type { EBSClient } from '@aws-sdk/client-ebs';
import type { EC2Client } from '@aws-sdk/client-ec2';
import { NodeHttpHandler } from '@smithy/node-http-handler';

/** Where the services are. */
export interface AwsPlace {
  region: string;
  /** Of the shared configuration files; the SDK's own choice when absent. */
  profile?: string | undefined;
  /** Other addresses of the services. */
  endpoints: { ebs?: string | undefined; ec2?: string | undefined };
  /** Told of every request that is sent, repeated ones as well. */
  onRequest?: (() => void) | undefined;
}

/** Requests for one answer: the SDK repeats what is temporary, after pauses that grow to 20 seconds. */
const MOST_REQUESTS = 8;
const CONNECT_MS = 10_000;
const SILENCE_MS = 60_000;

function handler(sockets: number): NodeHttpHandler {
  return new NodeHttpHandler({
    connectionTimeout: CONNECT_MS,
    socketTimeout: SILENCE_MS,
    httpsAgent: new Agent({ keepAlive: true, maxSockets: sockets }),
  });
}

function settings({ region, profile }: AwsPlace, endpoint: string | undefined, sockets: number) {
  return {
    region,
    maxAttempts: MOST_REQUESTS,
    retryMode: 'standard',
    requestHandler: handler(sockets),
    ...(profile === undefined ? {} : { profile }),
    ...(endpoint === undefined ? {} : { endpoint }),
  };
}

/** Behind the SDK's own repetition, so that each try counts. */
function counted<Client extends EC2Client | EBSClient>(client: Client, { onRequest }: AwsPlace): Client {
  if (onRequest !== undefined) {
    // biome-ignore lint/suspicious/noExplicitAny: the stack of each client has types of its own for the same thing
    (client.middlewareStack as any).add(
      (next: (args: unknown) => Promise<unknown>) => (args: unknown) => {
        onRequest();
        return next(args);
      },
      { step: 'deserialize', priority: 'low', name: 'countRequests' },
    );
  }
  return client;
}

/** EC2; loaded only when it is needed. Destroy it. */
export async function ec2Client(place: AwsPlace): Promise<EC2Client> {
  const { EC2Client } = await import('@aws-sdk/client-ec2');
  return counted(new EC2Client(settings(place, place.endpoints.ec2, 16)), place);
}

/** EBS direct, with as many sockets as requests are under way. Destroy it. */
export async function ebsClient(place: AwsPlace, sockets: number): Promise<EBSClient> {
  const { EBSClient } = await import('@aws-sdk/client-ebs');
  return counted(new EBSClient(settings(place, place.endpoints.ebs, sockets)), place);
}
