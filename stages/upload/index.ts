/** upload: hands the results over: the job's `out/` folder, made complete, and where asked for images in clouds. */
import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import * as z from 'zod';
import type { DataSetSummary } from '../../core/data-set.ts';
import { exists, sha256File, writeFileAtomic } from '../../core/files.ts';
import { Request } from '../../core/request.ts';
import type { Stage, StageContext } from '../../core/stage.ts';
import type { Artifact } from '../../core/types.ts';
import type { CloudImage } from '../../core/uploader.ts';
import { type CloudPlans, planClouds, uploadToClouds } from './clouds.ts';
import { handOver, handOverScripts } from './hand-over.ts';
import { writeProvision } from './provision.ts';

export { provisionTemplate } from './provision.ts';

const Options = z.object({
  name: Request.shape.name,
  targets: Request.shape.targets,
  urlHours: Request.shape.urlHours,
});

/** Files the folder will hold, by name, and the upload. */
export interface UploadPlan {
  files: string[];
  clouds: CloudPlans;
}

/** What was handed over; no URL and no secret is in it. */
export interface UploadResult {
  /** Absolute path of the folder. */
  dir: string;
  files: { name: string; bytes: number; sha256: string }[];
  /** True when provision.json holds URLs that work as they are. */
  provisionSigned: boolean;
  /** When they end, ISO 8601. */
  provisionExpires?: string;
  /** Images that were registered in clouds. */
  images: CloudImage[];
}

async function plan(ctx: StageContext): Promise<UploadPlan> {
  const files = ['provision.json', 'vendor-data.json', 'user-data.yaml', 'HANDOVER.txt', 'SHA256SUMS'];
  // Before the folder: what a cloud refuses is to be heard first.
  const clouds = await planClouds(ctx);
  for (const name of files) {
    ctx.change({ path: `out/${name}`, action: 'create', why: 'what an operator needs beside the image' });
  }
  return { files, clouds };
}

async function run(ctx: StageContext, { clouds }: UploadPlan): Promise<UploadResult> {
  const { out } = ctx.paths;
  const images = await uploadToClouds(ctx, clouds);
  const dataSets = ctx.result<DataSetSummary[]>('strip') ?? [];
  // The final contract, where a guest stage left a copy; network_data.json is in `out` already.
  const contract = path.join(ctx.paths.data, 'contract.json');
  if (await exists(contract))
    await writeFileAtomic(path.join(out, 'contract.json'), await fs.readFile(contract));
  // After the upload: the life of the URLs begins now.
  const provisioning = await writeProvision(ctx, dataSets);
  const artifacts = ctx.result<Artifact[]>('encode') ?? [];
  const input = {
    name: ctx.request.name,
    store: ctx.request.store,
    firmware: ctx.facts.firmware,
    arch: ctx.facts.os.arch,
    artifacts,
    dataSets,
    hasNetworkData: await exists(path.join(out, 'network_data.json')),
    provisioning,
    images,
  };
  await writeFileAtomic(path.join(out, 'HANDOVER.txt'), handOver(input));
  for (const { name, text } of handOverScripts(input)) await writeFileAtomic(path.join(out, name), text);
  return {
    dir: out,
    files: await checksums(ctx, artifacts),
    provisionSigned: provisioning.signed,
    images,
    ...(provisioning.expires === undefined ? {} : { provisionExpires: provisioning.expires }),
  };
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

/** Completes the `out/` folder for the person or program that takes the image on, after the upload if there is one. */
export const stage: Stage<UploadPlan, UploadResult> = {
  name: 'upload',
  summary:
    'hand the image over: into clouds where asked, with contract, checksums and provisioning beside it',
  needs: ['inspect', 'encode'],
  inGuest: false,
  Options,
  plan,
  run,
};
