/** A project in the real Swift behind a fault proxy, and stores in it. */
import { createHash, randomBytes } from 'node:crypto';
import type { Readable } from 'node:stream';
import { SwiftStore, type SwiftStoreOptions } from '../../../drivers/stores/swift.ts';
import { loadCloud } from '../../../tools/openstack/config.ts';
import { CloudSession } from '../../../tools/openstack/session.ts';
import { SwiftApi } from '../../../tools/openstack/swift.ts';
import {
  CLOUD_NAME,
  type Cloud,
  type CloudOptions,
  startCloud,
  type TestProject,
} from '../../support/cloud.ts';
import { type FaultProxy, startFaultProxy } from '../../support/fault-proxy.ts';

/** What a test file works with. */
export interface SwiftWorld {
  cloud: Cloud;
  project: TestProject;
  proxy: FaultProxy;
  /** Logs in; Swift goes through the proxy. */
  open(stallTimeoutMs?: number): Promise<CloudSession>;
  store(prefix?: string, options?: Partial<SwiftStoreOptions>): SwiftStore;
  api(options?: ConstructorParameters<typeof SwiftApi>[1]): Promise<SwiftApi>;
  close(): Promise<void>;
}

/** Starts it. */
export async function swiftWorld(name: string, options?: CloudOptions): Promise<SwiftWorld> {
  const cloud = await startCloud(options);
  const proxy = await startFaultProxy(cloud.objectStoreUrl);
  const project = await cloud.project(name, { endpoints: { objectStore: proxy.url } });
  const sessions: CloudSession[] = [];
  let shared: Promise<CloudSession> | undefined;
  const open = async (stallTimeoutMs?: number) => {
    const env = { OS_CLIENT_CONFIG_FILE: project.cloudsYaml, HOME: project.dir };
    const session = await CloudSession.open(await loadCloud(CLOUD_NAME, env), { stallTimeoutMs });
    sessions.push(session);
    return session;
  };
  return {
    cloud,
    project,
    proxy,
    open,
    store: (prefix = '', more = {}) =>
      new SwiftStore(prefix, {
        open: () => {
          shared ??= open();
          return shared;
        },
        ...more,
      }),
    api: async (more) => {
      shared ??= open();
      return new SwiftApi(await shared, more);
    },
    close: async () => {
      for (const session of sessions) await session.close();
      await proxy.close();
      await project.cleanup();
    },
  };
}

export const sha256 = (data: Uint8Array) => createHash('sha256').update(data).digest('hex');
export const md5 = (data: Uint8Array) => createHash('md5').update(data).digest('hex');

/** Content in chunks of 64 KiB, which counts how often it is read. */
export function chunked(data: Buffer): { content: () => AsyncIterable<Uint8Array>; reads: () => number } {
  let reads = 0;
  let open = 0;
  return {
    reads: () => reads,
    content: async function* () {
      // as with the lanes of a data set: two readings at a time would disturb each other
      if (open > 0) throw new Error('content is read twice at a time');
      reads += 1;
      open += 1;
      try {
        for (let at = 0; at < data.length; at += 1 << 16) yield data.subarray(at, at + (1 << 16));
      } finally {
        open -= 1;
      }
    },
  };
}

export async function bytesOf(stream: Readable): Promise<Buffer> {
  return Buffer.concat(await stream.toArray());
}

export const MIB = 1 << 20;
export const random = (bytes: number) => randomBytes(bytes);
