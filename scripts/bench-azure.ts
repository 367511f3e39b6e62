/**
 * The Azure rows of `npm run bench`: a sparse VHD sent to Azurite as a page blob. Bytes sent against bytes allocated, and the
 * time against `azcopy` where that is installed.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { statSync } from 'node:fs';
import * as fs from 'node:fs/promises';
import { BlobSASPermissions } from '@azure/storage-blob';
import { formatBytes, formatSeconds, MIB } from '../core/sizes.ts';
import { hasAzurite, startAzurite } from '../test/support/azurite.ts';
import { startFaultProxy } from '../test/support/fault-proxy.ts';
import { makeVhd } from '../test/support/vhd.ts';
import { signedPageBlob } from '../tools/azure/blob.ts';
import { transport } from '../tools/azure/endpoint.ts';
import { uploadPages } from '../tools/azure/page-upload.ts';
import type { Row } from './bench-cloud.ts';

const DATA_MIB = 256;
const ROUNDS = 3;

const median = (values: number[]): number => values.sort((a, b) => a - b)[values.length >> 1] ?? Number.NaN;

/** Runs of data with zeros and holes between, as a file system leaves them. */
function layout(dataMib: number): { bytes: number; data: [number, number][]; zeros: [number, number][] } {
  const data: [number, number][] = [];
  const zeros: [number, number][] = [];
  let at = MIB;
  for (let done = 0; done < dataMib; ) {
    const mib = Math.min(dataMib - done, [1, 7, 3, 16][data.length % 4] ?? 1);
    data.push([at, mib * MIB]);
    // small files: one block each, not beside each other
    data.push([at + (mib + 1) * MIB, 4096], [at + (mib + 2) * MIB, 8192]);
    zeros.push([at + (mib + 3) * MIB, MIB]);
    at += (mib + 8) * MIB;
    done += mib;
  }
  return { bytes: at + 1024 * MIB, data, zeros };
}

/** Bytes and time of a page blob. Without Azurite the row says so; without azcopy the time has no peer. */
export async function azureRows(dir: string): Promise<Row[]> {
  const sentRow = { what: 'page blob, sent against allocated', goal: '≤ 1.02' };
  if (!(await hasAzurite())) return [{ ...sentRow, ours: '', theirs: 'no azurite', ratio: 'skipped' }];
  let made: string | undefined;
  const azurite = await startAzurite();
  const proxy = await startFaultProxy(azurite.origin);
  try {
    const { bytes, ...runs } = layout(DATA_MIB);
    const image = makeVhd(dir, bytes, runs);
    made = image.path;
    const allocated = statSync(image.path).blocks * 512;
    const container = await azurite.container('bench');
    const wire = await transport();
    const target = async () => {
      const blob = container.getPageBlobClient(`${randomBytes(6).toString('hex')}.vhd`);
      return {
        blob,
        url: await blob.generateSasUrl({
          permissions: BlobSASPermissions.parse('racwd'),
          expiresOn: new Date(Date.now() + 3_600_000),
        }),
      };
    };
    const ours = async (throughProxy: boolean) => {
      const { blob, url } = await target();
      await blob.create(image.bytes);
      const started = performance.now();
      await uploadPages({
        blob: signedPageBlob(throughProxy ? url.replace(azurite.origin, proxy.url) : url, wire),
        file: image.path,
        bytes: image.bytes,
        done: new Set(),
        onBlock: async () => undefined,
        signal: new AbortController().signal,
        onProgress: () => undefined,
      });
      return (performance.now() - started) / 1000;
    };
    await ours(true);
    const sent = proxy.sentBytes({ method: 'PUT', path: /comp=page/ });
    const azcopy = spawnSync('azcopy', ['--version'], { stdio: 'ignore' }).status === 0;
    const times: number[] = [];
    const theirs: number[] = [];
    for (let n = 0; n < ROUNDS; n += 1) {
      times.push(await ours(false));
      if (!azcopy) continue;
      const { url } = await target();
      const started = performance.now();
      // the address is of a key made for this run, in an emulator that ends with it
      execFileSync('azcopy', ['copy', image.path, url, '--blob-type', 'PageBlob', '--from-to', 'LocalBlob'], {
        stdio: 'ignore',
      });
      theirs.push((performance.now() - started) / 1000);
    }
    const own = median(times);
    const peer = median(theirs);
    return [
      {
        ...sentRow,
        ours: formatBytes(sent),
        theirs: formatBytes(allocated),
        ratio: (sent / allocated).toFixed(4),
      },
      {
        what: 'page blob into Azurite, against azcopy',
        ours: `${formatSeconds(own)} (${Math.round(allocated / MIB / own)} MiB/s)`,
        theirs: azcopy ? formatSeconds(peer) : 'no azcopy',
        ratio: azcopy ? (peer / own).toFixed(2) : 'skipped',
        goal: '≥ 1.00',
      },
    ];
  } finally {
    await proxy.close();
    await azurite.close();
    if (made !== undefined) await fs.rm(made, { force: true });
  }
}
