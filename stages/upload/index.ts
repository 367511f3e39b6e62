/** upload: hands the results over. The only destination so far is `file`: the job's `out/` folder, made complete. */
import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import * as z from 'zod';
import type { Provision } from '../../core/contract.ts';
import type { DataSetSummary } from '../../core/data-set.ts';
import { exists, sha256File, writeFileAtomic, writeJson } from '../../core/files.ts';
import { Request } from '../../core/request.ts';
import { GIB } from '../../core/sizes.ts';
import type { Stage, StageContext } from '../../core/stage.ts';
import type { Artifact } from '../../core/types.ts';
import { handOver } from './hand-over.ts';

const Options = z.object({ name: Request.shape.name });

/** Files the folder will hold, by name. */
export interface UploadPlan {
  files: string[];
}

/** What was handed over. */
export interface UploadResult {
  destination: 'file';
  /** Absolute path of the folder. */
  dir: string;
  files: { name: string; bytes: number; sha256: string }[];
}

async function plan(ctx: StageContext): Promise<UploadPlan> {
  const files = ['provision.json', 'vendor-data.json', 'HANDOVER.txt', 'SHA256SUMS'];
  for (const name of files) {
    ctx.change({ path: `out/${name}`, action: 'create', why: 'what an operator needs beside the image' });
  }
  return { files };
}

/** The provision document with a placeholder where the operator's store is named. */
export function provisionTemplate(dataSets: readonly { id: string }[]): Provision {
  const data: Provision['data'] = {};
  for (const set of dataSets) data[set.id] = { url: `https://STORE.EXAMPLE/CONTAINER/${set.id}/` };
  return { version: 1, data };
}

async function run(ctx: StageContext): Promise<UploadResult> {
  const { out } = ctx.paths;
  const dataSets = ctx.result<DataSetSummary[]>('strip') ?? [];
  // The final contract, where a guest stage left a copy; network_data.json is in `out` already.
  const contract = path.join(ctx.paths.data, 'contract.json');
  if (await exists(contract))
    await writeFileAtomic(path.join(out, 'contract.json'), await fs.readFile(contract));
  const provision = provisionTemplate(dataSets);
  await writeJson(path.join(out, 'provision.json'), provision);
  // The form Nova's dynamic vendor data has in vendor_data2.json.
  await writeJson(path.join(out, 'vendor-data.json'), { port_image: provision });
  const artifacts = ctx.result<Artifact[]>('encode') ?? [];
  const virtualBytes = Math.max(0, ...artifacts.map((a) => a.virtualBytes));
  await writeFileAtomic(
    path.join(out, 'HANDOVER.txt'),
    handOver({
      name: ctx.request.name,
      store: ctx.request.store,
      firmware: ctx.facts.firmware,
      artifacts,
      dataSets,
      minDiskGib: Math.ceil(virtualBytes / GIB),
      hasNetworkData: await exists(path.join(out, 'network_data.json')),
    }),
  );
  const files = await checksums(ctx, artifacts);
  return { destination: 'file', dir: out, files };
}

/** Digests of everything in the folder; an image's own digest is known since it was encoded. */
async function checksums(ctx: StageContext, artifacts: readonly Artifact[]): Promise<UploadResult['files']> {
  const { out } = ctx.paths;
  const files: UploadResult['files'] = [];
  for (const name of (await fs.readdir(out)).sort()) {
    const file = path.join(out, name);
    const stat = await fs.lstat(file);
    if (!stat.isFile() || name === 'SHA256SUMS' || name.startsWith('.')) continue;
    const known = artifacts.find((a) => a.path === file && a.bytes === stat.size)?.sha256;
    ctx.progress({ text: `checksum of ${name}` });
    files.push({ name, bytes: stat.size, sha256: known ?? (await sha256File(file, ctx.signal)) });
  }
  const sums = files.map((f) => `${f.sha256}  ${f.name}\n`).join('');
  await writeFileAtomic(path.join(out, 'SHA256SUMS'), sums);
  const { size } = await fs.stat(path.join(out, 'SHA256SUMS'));
  files.push({ name: 'SHA256SUMS', bytes: size, sha256: await sha256File(path.join(out, 'SHA256SUMS')) });
  return files;
}

/** Completes the `out/` folder for the person or program that takes the image on. */
export const stage: Stage<UploadPlan, UploadResult> = {
  name: 'upload',
  summary: 'hand the image over: contract, checksums and provisioning templates beside it',
  needs: ['inspect', 'encode'],
  inGuest: false,
  Options,
  plan,
  run,
};
