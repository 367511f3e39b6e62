/**
 * The platform rows of `npm run bench`: the images of five platforms written from one work disk, all together and each by
 * itself. Encode does not depend on the guest, so a finished job is enough: it is read, never changed.
 */
import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import { Facts } from '../core/facts.ts';
import { silentLog } from '../core/log.ts';
import type { Platform } from '../core/platform.ts';
import { Request } from '../core/request.ts';
import { formatSeconds } from '../core/sizes.ts';
import type { StageContext } from '../core/stage.ts';
import { aws } from '../drivers/aws/index.ts';
import { azure } from '../drivers/azure/index.ts';
import { gcp } from '../drivers/gcp/index.ts';
import { openstack } from '../drivers/openstack/index.ts';
import { vmware } from '../drivers/vmware/index.ts';
import { jobPaths } from '../pipeline/job.ts';
import { stage } from '../stages/encode/index.ts';
import * as qemuImg from '../tools/qemu-img.ts';
import type { Row } from './bench-cloud.ts';

const PLATFORMS: readonly Platform[] = [aws, azure, gcp, vmware, openstack];

/** Seconds encode needs for these platforms: writing, checking, comparing and summing. */
async function encodeSeconds(dir: string, job: string, platforms: readonly Platform[]): Promise<number> {
  const there = jobPaths(job);
  const paths = jobPaths(path.join(dir, 'encode'));
  for (const folder of [paths.dir, paths.out, paths.tmp])
    await fs.mkdir(folder, { recursive: true, mode: 0o700 });
  const facts = Facts.parse(JSON.parse(await fs.readFile(there.facts, 'utf8')));
  const request = Request.parse({
    ...JSON.parse(await fs.readFile(there.request, 'utf8')),
    to: platforms.map((p) => p.name),
  });
  const { signal } = new AbortController();
  await qemuImg.createOverlay({ path: there.work, format: 'qcow2' }, paths.work, { signal, log: silentLog });
  const ctx: StageContext = {
    request,
    paths,
    platforms,
    facts,
    signal,
    log: silentLog,
    result: () => undefined,
    get guest(): never {
      throw new Error('encode has no guest');
    },
    progress: () => {},
    change: () => {},
    warn: (text) => process.stderr.write(`${text}\n`),
  };
  try {
    const started = performance.now();
    await stage.run(ctx, await stage.plan(ctx));
    return (performance.now() - started) / 1000;
  } finally {
    await fs.rm(paths.dir, { recursive: true, force: true });
  }
}

/** All images against the slowest alone. `job` is the folder of a finished job of one disk. */
export async function platformRows(dir: string, job: string): Promise<Row[]> {
  await encodeSeconds(dir, job, [openstack]); // nobody counts it: it fills the page cache
  const alone: { name: string; taken: number }[] = [];
  for (const platform of PLATFORMS) {
    const taken = await encodeSeconds(dir, job, [platform]);
    process.stderr.write(`encode ${platform.name}: ${formatSeconds(taken)}\n`);
    alone.push({ name: platform.name, taken });
  }
  const together = await encodeSeconds(dir, job, PLATFORMS);
  process.stderr.write(`encode together: ${formatSeconds(together)}\n`);
  const slowest = alone.reduce((a, b) => (b.taken > a.taken ? b : a));
  return [
    {
      what: 'five images together, against the slowest',
      ours: formatSeconds(together),
      theirs: `${formatSeconds(slowest.taken)} ${slowest.name}`,
      ratio: (together / slowest.taken).toFixed(2),
      goal: '≤ 1.30',
    },
  ];
}
