/** A real Azurite (Microsoft's emulator of the blob service) for one test file. */
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import * as net from 'node:net';
import * as os from 'node:os';
import * as path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { BlobServiceClient, type ContainerClient, StorageSharedKeyCredential } from '@azure/storage-blob';
import { serviceProgram } from './services.ts';

/** A running emulator with an account of its own. */
export interface Azurite {
  account: string;
  /** Base64. */
  key: string;
  /** Address of the account's blobs, no slash at its end. */
  url: string;
  /** Scheme, host and port alone, for a fault proxy. */
  origin: string;
  service: BlobServiceClient;
  /** What a program needs to log in with the key. */
  env: Record<string, string>;
  /** A fresh container. */
  container(name?: string): Promise<ContainerClient>;
  close(): Promise<void>;
}

async function freePort(): Promise<number> {
  const server = net.createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as net.AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** Whether Azurite can be had on this machine. */
export const hasAzurite = async (): Promise<boolean> => (await serviceProgram('azurite')) !== undefined;

/** Starts one. Throws when it cannot be had: ask `hasAzurite` first. */
export async function startAzurite(): Promise<Azurite> {
  const program = await serviceProgram('azurite');
  if (program === undefined) throw new Error('no azurite here');
  const port = await freePort();
  const dir = mkdtempSync(path.join(os.tmpdir(), 'port-image-azurite-'));
  const account = 'portimagetest';
  const key = randomBytes(64).toString('base64');
  const child = spawn(
    process.execPath,
    [
      '--require',
      path.join(import.meta.dirname, 'azurite-copy.cjs'),
      program,
      '--blobHost',
      '127.0.0.1',
      '--blobPort',
      `${port}`,
      '--location',
      dir,
      '--silent',
    ]
      // the SDK is newer than the emulator
      .concat(['--disableTelemetry', '--skipApiVersionCheck']),
    { stdio: 'ignore', env: { ...process.env, AZURITE_ACCOUNTS: `${account}:${key}` } },
  );
  const ended = new Promise((resolve) => child.once('close', resolve));
  const origin = `http://127.0.0.1:${port}`;
  const url = `${origin}/${account}`;
  const service = new BlobServiceClient(url, new StorageSharedKeyCredential(account, key));
  for (let tries = 0; ; tries += 1) {
    if (
      await fetch(url).then(
        () => true,
        () => false,
      )
    )
      break;
    if (tries > 600 || child.exitCode !== null) throw new Error('azurite does not start');
    await sleep(100);
  }
  return {
    account,
    key,
    url,
    origin,
    service,
    env: { AZURE_STORAGE_KEY: key },
    async container(name = `box-${randomBytes(4).toString('hex')}`) {
      const container = service.getContainerClient(name);
      await container.create();
      return container;
    },
    async close() {
      child.kill('SIGTERM');
      await ended;
      rmSync(dir, { recursive: true, force: true });
    },
  };
}
