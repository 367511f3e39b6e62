import { randomBytes } from 'node:crypto';
import { mkdtempSync, openSync, rmSync, writeSync } from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { BlobSASPermissions, type ContainerClient } from '@azure/storage-blob';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { MIB } from '../../../core/sizes.ts';
import { blobService, signedPageBlob } from '../../../tools/azure/blob.ts';
import { blobAccess } from '../../../tools/azure/credentials.ts';
import { transport } from '../../../tools/azure/endpoint.ts';
import { provePages } from '../../../tools/azure/page-proof.ts';
import { type PageUpload, uploadPages } from '../../../tools/azure/page-upload.ts';
import { type Azurite, hasAzurite, startAzurite } from '../../support/azurite.ts';
import { type FaultProxy, startFaultProxy } from '../../support/fault-proxy.ts';
import { makeVhd } from '../../support/vhd.ts';

const missing = !(await hasAzurite());
const signal = new AbortController().signal;
const quiet = { signal, onProgress: () => undefined };
const wire = await transport();

let azurite: Azurite;
let proxy: FaultProxy;
let container: ContainerClient;
let dir: string;

beforeAll(async () => {
  if (missing) return;
  azurite = await startAzurite();
  proxy = await startFaultProxy(azurite.origin);
  const access = blobAccess(azurite.account, () => ({ getToken: async () => null }), azurite.env);
  container = blobService(`${proxy.url}/${azurite.account}`, access, wire).getContainerClient('pages');
  await container.create();
  dir = mkdtempSync(path.join(os.tmpdir(), 'port-image-pages-'));
});
afterEach(() => proxy?.reset());
afterAll(async () => {
  await proxy?.close();
  await azurite?.close();
  if (dir !== undefined) rmSync(dir, { recursive: true, force: true });
});

const vhd = () =>
  makeVhd(dir, 40 * MIB, {
    // a run over a border of blocks, single pages with zeros between, and written zeros
    data: [
      [0, 4096],
      [3 * MIB, 3 * MIB],
      [9 * MIB, 4096],
      [9 * MIB + 256 * 1024, 8192],
      [39 * MIB, MIB],
    ],
    zeros: [[20 * MIB, 4 * MIB]],
  });

async function blank(bytes: number) {
  const blob = container.getPageBlobClient(`${randomBytes(4).toString('hex')}.vhd`);
  await blob.create(bytes);
  return blob;
}

function run(
  image: { path: string; bytes: number },
  blob: PageUpload['blob'],
  done: number[] = [],
  more = {},
) {
  return uploadPages({
    blob,
    file: image.path,
    bytes: image.bytes,
    done: new Set(done),
    onBlock: async (index) => void done.push(index),
    ...quiet,
    ...more,
  });
}

test.skipIf(missing)('only data travels (azurite), and what is there is the image', async () => {
  const image = vhd();
  const blob = await blank(image.bytes);
  const sent = await run(image, blob);
  expect(sent.sentBytes).toBe(proxy.sentBytes({ method: 'PUT', path: /comp=page/ }));
  expect(sent.sentBytes).toBe(image.dataBytes);
  expect(sent.sentBytes).toBeLessThanOrEqual(1.02 * image.allocatedBytes);
  const read = await provePages(blob, image.path, image.bytes, quiet);
  expect(read).toBe(image.dataBytes);
});

test.skipIf(missing)('the footer is the last that is written (azurite)', async () => {
  const image = vhd();
  await run(image, await blank(image.bytes));
  const puts = proxy.requests.filter((seen) => seen.path.includes('comp=page'));
  expect(puts.at(-1)?.headers['x-ms-range'] ?? puts.at(-1)?.headers.range).toBe(
    `bytes=${image.bytes - 512}-${image.bytes - 1}`,
  );
  for (const put of puts) expect(put.headers['content-md5']).toBeDefined();
});

test.skipIf(missing)('cut connections, 503 and 429 are gone on after (azurite)', async () => {
  const image = vhd();
  const blob = await blank(image.bytes);
  const path = /comp=page/;
  proxy.on({ method: 'PUT', path, times: 1 }, { cutRequest: { fraction: 0.5 } });
  proxy.on({ method: 'PUT', path, times: 1 }, { cutResponse: { bytes: 0 } });
  proxy.on({ method: 'PUT', path, times: 1 }, { status: 503, headers: { 'x-ms-error-code': 'ServerBusy' } });
  proxy.on(
    { method: 'PUT', path, times: 1 },
    { status: 429, headers: { 'x-ms-error-code': 'TooManyRequests' } },
  );
  await run(image, blob);
  await provePages(blob, image.path, image.bytes, quiet);
});

test.skipIf(missing)(
  'a stopped upload is gone on with: acknowledged blocks are not sent again (azurite)',
  async () => {
    const image = vhd();
    const blob = await blank(image.bytes);
    const stop = new AbortController();
    const done: number[] = [];
    const onBlock = async (index: number) => {
      done.push(index);
      stop.abort();
    };
    await expect(run(image, blob, [], { onBlock, signal: stop.signal })).rejects.toMatchObject({
      code: 'INTERRUPTED',
    });
    expect(done.length).toBeGreaterThan(0);
    proxy.reset();
    const before = done.length;
    const again = await run(image, blob, done);
    expect(again.sentBytes).toBeLessThan(image.dataBytes);
    expect(done.length).toBeGreaterThan(before);
    await provePages(blob, image.path, image.bytes, quiet);
  },
);

test.skipIf(missing)(
  'a byte that differs, data that is missing and pages too many are found (azurite)',
  async () => {
    const image = vhd();
    const wrong = { code: 'CLOUD_MISMATCH' };
    const blob = await blank(image.bytes);
    await run(image, blob);
    proxy.on({ method: 'GET', times: 1, path: /\.vhd(\?timeout=\d+)?$/ }, { flipResponseByte: 5 });
    await expect(provePages(blob, image.path, image.bytes, quiet)).rejects.toMatchObject(wrong);
    proxy.reset();
    await blob.clearPages(9 * MIB, 4096);
    await expect(provePages(blob, image.path, image.bytes, quiet)).rejects.toMatchObject(wrong);
    await run(image, blob);
    await blob.uploadPages(randomBytes(512), 30 * MIB, 512);
    await expect(provePages(blob, image.path, image.bytes, quiet)).rejects.toMatchObject(wrong);
    await blob.clearPages(30 * MIB, 512);
    const handle = openSync(image.path, 'r+');
    writeSync(handle, Buffer.from('x'), 0, 1, 4 * MIB);
    await expect(provePages(blob, image.path, image.bytes, quiet)).rejects.toMatchObject(wrong);
  },
);

test.skipIf(missing)(
  'a wrong key and a signature that is over are told as logins, without the signature (azurite)',
  async () => {
    const image = vhd();
    const blob = await blank(image.bytes);
    const access = blobAccess(azurite.account, () => ({ getToken: async () => null }), {
      AZURE_STORAGE_KEY: randomBytes(64).toString('base64'),
    });
    const stranger = blobService(azurite.url, access, wire)
      .getContainerClient('pages')
      .getPageBlobClient(blob.name);
    await expect(run(image, stranger)).rejects.toMatchObject({ code: 'CLOUD_LOGIN' });
    const own = azurite.service.getContainerClient('pages').getPageBlobClient(blob.name);
    const sas = await own.generateSasUrl({
      permissions: BlobSASPermissions.from({ write: true }),
      expiresOn: new Date(Date.now() - 60_000),
    });
    const error = await run(image, signedPageBlob(sas, wire)).catch((failure: Error) => failure);
    expect(error).toMatchObject({ code: 'CLOUD_LOGIN' });
    expect((error as Error).message).not.toContain(new URL(sas).searchParams.get('sig') ?? '?');
  },
);
