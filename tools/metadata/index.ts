/** Metadata of every kind of platform: services on a socket, disks in a drive. */
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { MetadataKind } from '../../core/platform.ts';
import { MIB } from '../../core/sizes.ts';
import { azure } from './azure.ts';
import { aliyun, ec2 } from './ec2.ts';
import { gce } from './gce.ts';
import { GUEST_NETWORKS } from './network.ts';
import { oracle } from './oracle.ts';
import type { MetadataRequest, MetadataService, ServiceMetadata } from './service.ts';

const SERVICES: Readonly<Partial<Record<MetadataKind, (meta: ServiceMetadata) => MetadataService>>> = {
  ec2,
  gce,
  azure,
  oracle,
  aliyun,
};

/** Most bytes of a request that are read; a guest may send anything. */
const MAX_BODY_BYTES = MIB;
/** Most requests remembered. */
const MAX_SEEN = 2000;

/** A running service. */
export interface MetadataServer {
  /** Requests so far: `PUT /latest/api/token 200`. */
  seen(): readonly string[];
  close(): Promise<void>;
}

/** What a service is told of the machine's network. */
export function serviceMetadata(
  kind: MetadataKind,
  meta: Pick<ServiceMetadata, 'instanceId' | 'hostname' | 'userData' | 'mac'>,
): ServiceMetadata {
  const { dhcpStart, net } = GUEST_NETWORKS[kind];
  return { ...meta, address: dhcpStart, net };
}

/** Starts the service of a kind on a unix socket; undefined for kinds whose metadata is on a disk. */
export async function serveMetadata(
  kind: MetadataKind,
  meta: ServiceMetadata,
  socketPath: string,
): Promise<MetadataServer | undefined> {
  const service = SERVICES[kind]?.(meta);
  if (service === undefined) return undefined;
  const seen: string[] = [];
  const timers = new Set<NodeJS.Timeout>();
  const server = createServer((request, response) => {
    readRequest(request).then(
      (asked) => {
        const answer = service(asked);
        if (seen.length < MAX_SEEN) seen.push(`${asked.method} ${asked.path} ${answer.status}`);
        const send = () => {
          response.writeHead(answer.status, {
            ...answer.headers,
            ...(answer.type === undefined ? {} : { 'content-type': answer.type }),
            'content-length': Buffer.byteLength(answer.body ?? ''),
          });
          response.end(asked.method === 'HEAD' ? undefined : (answer.body ?? ''));
        };
        if (answer.afterMs === undefined) return send();
        const timer = setTimeout(() => {
          timers.delete(timer);
          send();
        }, answer.afterMs);
        timers.add(timer);
      },
      () => refuse(response),
    );
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(socketPath, resolve);
  });
  return {
    seen: () => seen,
    close: () =>
      new Promise((resolve) => {
        for (const timer of timers) clearTimeout(timer);
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

function refuse(response: ServerResponse): void {
  if (!response.headersSent) response.writeHead(400);
  response.end();
}

async function readRequest(request: IncomingMessage): Promise<MetadataRequest> {
  const pieces: Buffer[] = [];
  let bytes = 0;
  for await (const piece of request as AsyncIterable<Buffer>) {
    bytes += piece.length;
    if (bytes > MAX_BODY_BYTES) throw new Error('a request of the guest is too large');
    pieces.push(piece);
  }
  const url = new URL(`http://metadata${request.url?.startsWith('/') === true ? request.url : '/'}`);
  return {
    method: request.method ?? 'GET',
    path: url.pathname.replace(/\/{2,}/g, '/'),
    query: url.searchParams,
    headers: request.headers,
    body: Buffer.concat(pieces).toString('utf8'),
  };
}
