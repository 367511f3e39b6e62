/** What all places of a sync hold at the beginning of a run. */
import { PortError } from '../../core/errors.ts';
import type { SyncContext, SyncImage, SyncPlan, SyncSource, TargetImage } from '../../core/sync/types.ts';
import type { SyncFile } from './perform-types.ts';
import { inPlace, type Places, unreachable } from './places.ts';
import type { Listings } from './plan.ts';
import type { ServersSource } from './sources/servers.ts';

/** Asks every place; one that fails is told and left alone. */
export async function lookEverywhere(
  { config }: SyncFile,
  places: Places,
  options: SyncContext,
): Promise<Listings> {
  const sources = new Map<string, readonly SyncImage[]>();
  const targets = new Map<string, readonly TargetImage[]>();
  const failed: Listings['unreachable'] = [];
  const leftOut: SyncPlan['leftOut'] = [];
  const ask = async <T>(
    kind: 'source' | 'target',
    name: string,
    into: Map<string, readonly T[]>,
    list: () => Promise<readonly T[]>,
  ) => {
    options.progress({ text: `asking ${name}` });
    try {
      into.set(name, await list());
    } catch (error) {
      if (options.signal.aborted) throw new PortError('INTERRUPTED', 'interrupted', { cause: error });
      failed.push(unreachable(kind, name, error));
    }
  };
  await Promise.all([
    ...Object.keys(config.sources).map((name) =>
      ask('source', name, sources, () => listSource(places, name, options, leftOut)),
    ),
    ...Object.keys(config.targets).map((name) =>
      ask('target', name, targets, async () => (await places.target(name)).list(inPlace(options, name))),
    ),
  ]);
  failed.sort((a, b) => a.name.localeCompare(b.name));
  leftOut.sort((a, b) => a.source.localeCompare(b.source));
  return { sources, targets, unreachable: failed, leftOut };
}

/** Images of a source; what cannot be used goes into `leftOut`. Throws SOURCE_EMPTY and what the source throws. */
async function listSource(
  places: Places,
  name: string,
  options: SyncContext,
  leftOut: SyncPlan['leftOut'],
): Promise<SyncImage[]> {
  const source = await places.source(name);
  const images = await source.list({
    ...inPlace(options, name),
    leaveOut: (what, { code, message, hint }) => leftOut.push({ source: name, what, code, message, hint }),
  });
  // An empty folder may be a disk that is not mounted, a filter may be mistyped: everything in place is the wrong answer.
  if (images.length === 0 && leftOut.every((one) => one.source !== name) && !isMade(source))
    throw new PortError('SOURCE_EMPTY', 'it has no image that fits', {
      hint: 'check its path, names and filters, and whether its file system is mounted',
    });
  return images;
}

/** Whether a source makes its images in a run. */
export function isMade(source: SyncSource): source is ServersSource {
  return 'refresh' in source;
}
