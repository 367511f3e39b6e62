/**
 * The Azure rows of the benchmarks: a sparse VHD sent to Azurite as a page blob. Prints bytes sent against bytes allocated, and
 * the time against `azcopy` where that is installed.
 *
 *     node scripts/bench-azure.ts [MIB]      size of the data (256)
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync, statSync } from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { BlobSASPermissions } from '@azure/storage-blob';
import { formatBytes, formatSeconds, MIB } from '../core/sizes.ts';
import { startAzurite } from '../test/support/azurite.ts';
import { startFaultProxy } from '../test/support/fault-proxy.ts';
import { makeVhd } from '../test/support/vhd.ts';
import { signedPageBlob } from '../tools/azure/blob.ts';
import { transport } from '../tools/azure/endpoint.ts';
import { uploadPages } from '../tools/azure/page-upload.ts';

const GOAL = 1.02;
const ROUNDS = 3;

const median = (values: number[]): number => values.sort((a, b) => a - b)[values.length >> 1] ?? Number.NaN;
const print = (line: string) => process.stdout.write(`${line}\n`);

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

async function main(): Promise<void> {
  const dataMib = Number(process.argv[2] ?? 256);
  const dir = mkdtempSync(path.join(os.tmpdir(), 'port-image-bench-azure-'));
  const azurite = await startAzurite();
  const proxy = await startFaultProxy(azurite.origin);
  try {
    const { bytes, ...runs } = layout(dataMib);
    const image = makeVhd(dir, bytes, runs);
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
    const ratio = sent / allocated;
    print(`disk ${formatBytes(image.bytes)}, allocated ${formatBytes(allocated)}`);
    print(`sent / allocated   ${sent} / ${allocated} = ${ratio.toFixed(4)}   (goal ≤ ${GOAL})`);
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
    print(`time               ${formatSeconds(own)}, ${Math.round(allocated / MIB / own)} MiB/s`);
    if (azcopy)
      print(
        `azcopy             ${formatSeconds(median(theirs))}, ratio ${(median(theirs) / own).toFixed(2)}`,
      );
    else print('azcopy             not installed: not compared');
    if (ratio > GOAL) process.exitCode = 1;
  } finally {
    await proxy.close();
    await azurite.close();
    rmSync(dir, { recursive: true, force: true });
  }
}

await main();
