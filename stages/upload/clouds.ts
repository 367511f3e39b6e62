/** The clouds with a client of their own: planned one after the other, uploaded beside each other. */
import { readFile } from 'node:fs/promises';
import * as path from 'node:path';
import PQueue from 'p-queue';
import { Contract } from '../../core/contract.ts';
import type { DataSetSummary } from '../../core/data-set.ts';
import { asPortError, PortError } from '../../core/errors.ts';
import { exists, sha256File } from '../../core/files.ts';
import type { Progress, StageContext } from '../../core/stage.ts';
import type { Artifact, Verification } from '../../core/types.ts';
import type { CloudImage, UploadContext } from '../../core/uploader.ts';
import { imageDisks } from '../../core/work-disks.ts';
import { uploaderOf } from '../../drivers/uploaders.ts';
import { jobMark } from './mark.ts';
import { rawDigest } from './raw-digest.ts';

/** Uploads share the network and, while they read, the disk; more of them at a time make none of them faster. */
const LANES = 3;

/** What each cloud's client planned, by platform. */
export type CloudPlans = Record<string, unknown>;

/** Shows several uploads as one: who is at work, and their bytes together. One alone says what it does. */
class Together {
  readonly #ctx: StageContext;
  readonly #active = new Map<string, Progress>();

  constructor(ctx: StageContext) {
    this.#ctx = ctx;
  }

  show(platform: string, event: Progress): void {
    this.#active.set(platform, { ...this.#active.get(platform), ...event });
    if (this.#active.size === 1) {
      const { text } = event;
      this.#ctx.progress({ ...event, ...(text === undefined ? {} : { text: `${platform}: ${text}` }) });
      return;
    }
    const all = [...this.#active.values()];
    const sum = (of: (event: Progress) => number | undefined) =>
      all.reduce((total, each) => total + (of(each) ?? 0), 0);
    this.#ctx.progress({
      text: `uploading to ${[...this.#active.keys()].join(', ')}`,
      doneBytes: sum((e) => e.doneBytes),
      totalBytes: sum((e) => e.totalBytes),
    });
  }

  end(platform: string): void {
    this.#active.delete(platform);
  }
}

async function contextOf(
  ctx: StageContext,
  platform: string,
  together: Together,
): Promise<UploadContext<unknown>> {
  const row = ctx.platforms.find((p) => p.name === platform);
  if (row === undefined) throw new PortError('BUG', `a target without its platform: ${platform}`);
  const artifacts = (ctx.result<Artifact[]>('encode') ?? [])
    .filter((a) => a.platform === platform)
    .sort((a, b) => Number(a.disk !== undefined) - Number(b.disk !== undefined));
  const contractFile = path.join(ctx.paths.data, 'contract.json');
  // A plan is made before the guest stages have written it.
  const written = artifacts.length > 0 && (await exists(contractFile));
  const contract = written ? Contract.parse(JSON.parse(await readFile(contractFile, 'utf8'))) : undefined;
  const installed = ctx.result<{ packages: { name: string }[] }>('cloud-init')?.packages ?? [];
  const hasData = (ctx.result<DataSetSummary[]>('strip') ?? []).length > 0;
  const verification = ctx.result<Verification[]>('verify')?.find((v) => v.platform === platform);
  return {
    name: ctx.request.name,
    options: ctx.request.targets[platform],
    platform: row,
    facts: ctx.facts,
    artifacts,
    virtualBytes: Math.max(...imageDisks(ctx.facts).map((d) => ctx.facts.disks[d.index]?.virtualBytes ?? 0)),
    mark: await jobMark(ctx),
    identity: contract?.image ?? {},
    contract,
    contractSha256: written ? await sha256File(contractFile) : '',
    packages: installed.map((p) => p.name),
    userDataFile: hasData ? path.join(ctx.paths.out, 'user-data.yaml') : undefined,
    rawSha256: (artifact) => rawDigest(ctx, artifact),
    verified: verification?.verified,
    stateFile: path.join(ctx.paths.data, `upload-${platform}.json`),
    tmp: ctx.paths.tmp,
    signal: ctx.signal,
    log: ctx.log,
    progress: (event) => together.show(platform, event),
    change: (change) => ctx.change(change),
    warn: (text) => ctx.warn(`${platform}: ${text}`),
  };
}

/** Proves that every upload can work. Throws as the clients' plans. */
export async function planClouds(ctx: StageContext): Promise<CloudPlans> {
  const plans: CloudPlans = {};
  for (const platform of Object.keys(ctx.request.targets)) {
    ctx.progress({ text: `asking ${platform}` });
    plans[platform] = await uploaderOf(platform).plan(await contextOf(ctx, platform, new Together(ctx)));
  }
  return plans;
}

/**
 * Uploads to every cloud. One that fails does not stop the others: what they made is kept by their state files, and the
 * first failure is thrown when all have ended.
 */
export async function uploadToClouds(ctx: StageContext, plans: CloudPlans): Promise<CloudImage[]> {
  const queue = new PQueue({ concurrency: LANES });
  const together = new Together(ctx);
  const targets = Object.keys(ctx.request.targets);
  const one = async (platform: string): Promise<CloudImage> => {
    try {
      const context = await contextOf(ctx, platform, together);
      return await uploaderOf(platform).upload(context, plans[platform]);
    } finally {
      together.end(platform);
    }
  };
  const ends = await Promise.allSettled(targets.map((platform) => queue.add(() => one(platform))));
  const failures = ends.flatMap((end, i) =>
    end.status === 'rejected' ? [{ platform: targets[i] ?? '', error: asPortError(end.reason) }] : [],
  );
  const [first, ...more] = failures;
  for (const { platform, error } of more) ctx.warn(`${platform}: ${error.message}`);
  if (first !== undefined) throw first.error;
  return ends.flatMap((end) => (end.status === 'fulfilled' ? [end.value] : []));
}
