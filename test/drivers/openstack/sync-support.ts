/** What the tests of Glance as a target share: a project with proxies before its services, disks, and a look at what is there. */
import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import { promisify } from 'node:util';
import { TargetConfig } from '../../../core/sync/config.ts';
import type { CreateInput, LocalDisk, SyncTarget } from '../../../core/sync/types.ts';
import { openOpenstackTarget } from '../../../drivers/openstack/sync/target.ts';
import { CLOUD_NAME, type Cloud, startCloud, type TestProject } from '../../support/cloud.ts';
import { type FaultProxy, startFaultProxy } from '../../support/fault-proxy.ts';
import { createInput, type SyncTold } from '../../support/sync-input.ts';

const run = promisify(execFile);

/** An image as Glance shows it. */
export type Shown = Record<string, unknown> & { id: string; name: string };

/** A project in a cloud, reached through proxies that count and break. */
export interface SyncPlace {
  cloud: Cloud;
  project: TestProject;
  dir: string;
  image: FaultProxy;
  objects: FaultProxy;
  /** clouds.yaml of the way through the proxies. */
  clouds: string;
  /** A target of that project with a state folder of its own, closed at the end. */
  target(
    sync: string,
    more?: {
      state?: string;
      options?: Record<string, unknown>;
      delta?: 'auto' | 'off';
      owner?: string;
      staleAfterMs?: number;
    },
  ): Promise<SyncTarget>;
  /** Input of `create`, with a state folder and a scratch folder. */
  input(
    disk: LocalDisk,
    version: string,
    more?: Partial<CreateInput> & { state?: string },
  ): Promise<CreateInput & { told: SyncTold }>;
  /** Images of a sync as an independent client sees them, hidden ones too. */
  images(sync: string): Promise<Shown[]>;
  /** Throws unless the image, read with the distribution's client, shows the disk. */
  sameDisk(id: string, disk: LocalDisk): Promise<void>;
  /** Names of objects in the container of a sync. */
  objectsOf(sync: string): Promise<{ name: string; bytes: number }[]>;
  /** Body bytes sent into Glance and Swift through the proxies. */
  sentBytes(): number;
  reset(): void;
  close(): Promise<void>;
}

/** Opens it; the environment of this process names its clouds.yaml until `close`. */
export async function syncPlace(name: string): Promise<SyncPlace> {
  const cloud = await startCloud();
  const image = await startFaultProxy(cloud.imageUrl);
  const objects = await startFaultProxy(cloud.objectStoreUrl);
  const project = await cloud.project(name);
  const { dir } = project;
  const clouds = project.writeClouds('proxied.yaml', { image: image.url, objectStore: objects.url });
  const before = process.env.OS_CLIENT_CONFIG_FILE;
  process.env.OS_CLIENT_CONFIG_FILE = clouds;
  const opened: SyncTarget[] = [];
  const stateDir = (state = 'state') => path.join(dir, 'states', state);
  return {
    cloud,
    project,
    dir,
    image,
    objects,
    clouds,
    async target(sync, more = {}) {
      const { state, options = {}, delta = 'auto', owner = 'run-1@here', staleAfterMs = 60_000 } = more;
      const config = TargetConfig.parse({
        platform: 'openstack',
        delta,
        options: { cloud: CLOUD_NAME, ...options },
      });
      const { signal } = new AbortController();
      const facts = { sync, stateDir: stateDir(state), owner, staleAfterMs, signal };
      const target = await openOpenstackTarget('there', config, facts);
      opened.push(target);
      return target;
    },
    async input(disk, version, { state, ...more } = {}) {
      const tmp = path.join(dir, 'tmp', randomBytes(4).toString('hex'));
      await fs.mkdir(tmp, { recursive: true, mode: 0o700 });
      return createInput(tmp, disk, version, { stateDir: stateDir(state), ...more });
    },
    async images(sync) {
      const user = await project.login();
      const found: Shown[] = [];
      for (const hidden of ['false', 'true']) {
        const url = `${cloud.imageUrl}/v2/images?port_image_sync=${sync}&os_hidden=${hidden}&limit=1000`;
        const answer = await user.request('GET', url);
        found.push(...(JSON.parse(answer.text) as { images: Shown[] }).images);
      }
      return found;
    },
    async sameDisk(id, disk) {
      const file = path.join(dir, `${id}.saved`);
      await run('/usr/bin/openstack', ['image', 'save', '--file', file, id], { env: project.env, cwd: dir });
      await run('qemu-img', ['check', '-f', 'qcow2', file]);
      await run('qemu-img', ['compare', '-f', 'qcow2', '-F', 'raw', file, disk.rawPath]);
      await fs.rm(file);
    },
    async objectsOf(sync) {
      const user = await project.login();
      const url = `${project.accountUrl}/port-image-sync-${sync}?format=json&limit=10000`;
      const answer = await user.request('GET', url);
      return answer.status === 200 ? (JSON.parse(answer.text) as { name: string; bytes: number }[]) : [];
    },
    // What Glance reads from Swift passes the proxy too, but has no body.
    sentBytes: () => image.sentBytes() + objects.sentBytes(),
    reset() {
      image.reset();
      objects.reset();
    },
    async close() {
      if (before === undefined) delete process.env.OS_CLIENT_CONFIG_FILE;
      else process.env.OS_CLIENT_CONFIG_FILE = before;
      await Promise.allSettled(opened.map((target) => target.close()));
      await image.close();
      await objects.close();
      await project.cleanup();
    },
  };
}
