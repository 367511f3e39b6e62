/** What a run of a sync says it did, and whether that is so. */
import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import type { SyncOutcome, SyncReport } from '../../core/sync/types.ts';
import { amis, glanceImages, sameDisk, sameInGlance, saveSnapshot, saveVhd } from './sync-checks.ts';
import { type SyncWorld, TARGETS, type TargetName } from './sync-world.ts';

/** Outcome of the newest version of a series in a target. */
export function outcomeOf(report: SyncReport, target: TargetName, series: string): SyncOutcome {
  const found = report.outcomes.find(
    ({ action }) => action.target === target && action.series === series && action.source !== '',
  );
  if (found === undefined) throw new Error(`no outcome of ${series} in ${target}: ${JSON.stringify(report)}`);
  return found;
}

/** Reads the image of one or several runs back from all targets, with other clients than ours. Throws with what differs. */
export async function isThere(
  world: SyncWorld,
  reports: readonly SyncReport[],
  series: string,
  raw: string,
): Promise<void> {
  const of = (target: TargetName) => {
    const report = reports.find(({ outcomes }) => outcomes.some(({ action }) => action.target === target));
    if (report === undefined) throw new Error(`no run has the target ${target}`);
    return { ...outcomeOf(report, target, series), sync: report.sync };
  };
  const refs = Object.fromEntries(TARGETS.map((target) => [target, of(target).ref]));
  const image = (await glanceImages(world.b)).find(({ id }) => id === refs.b);
  if (image === undefined) throw new Error(`B has no ${refs.b}`);
  if (image.status !== 'active') throw new Error(`${image.id} in B is ${image.status}`);
  await sameInGlance(world.b, image, raw, world.dir);
  const ami = (await amis(world)).find(({ ImageId }) => ImageId === refs.aws);
  if (ami?.State !== 'available') throw new Error(`${refs.aws} in EC2 is ${ami?.State}`);
  const compared = path.join(world.dir, 'compared.raw');
  const { size } = await fs.stat(raw);
  const wholeGib = Math.ceil(size / 2 ** 30) * 2 ** 30;
  await saveSnapshot(world, ami.BlockDeviceMappings?.[0]?.Ebs?.SnapshotId ?? '', wholeGib, compared);
  await sameDisk(compared, 'raw', raw);
  const { sync, action } = of('azure');
  await saveVhd(world, `${sync}/${series}/${action.version}`, compared);
  await sameDisk(compared, 'raw', raw);
  await fs.rm(compared);
  const wrong = [...world.gate.wrong, ...world.arm.problems];
  if (wrong.length > 0) throw new Error(`wrong requests: ${wrong.join(', ')}`);
}
