/** The plan of a run: what every target lacks, holds too much of, or shows otherwise than wanted. Pure: listings in, plan out. */

import { PortError } from '../../core/errors.ts';
import type { SyncConfig } from '../../core/sync/config.ts';
import { isoDate } from '../../core/sync/dates.ts';
import type { SyncAction, SyncImage, SyncPlan, TargetImage } from '../../core/sync/types.ts';
import { compareVersions } from '../../core/sync/versions.ts';
import { printable } from '../../core/text.ts';
import type { SyncTask } from './perform-types.ts';
import { retirements, type Wished } from './retention.ts';
import { ruleFor, wantedDigest, wantedImage } from './rules.ts';

/** What was seen in all places. */
export interface Listings {
  /** By source; those that could not be asked are missing. */
  sources: ReadonlyMap<string, readonly SyncImage[]>;
  /** By target; those that could not be asked are missing. */
  targets: ReadonlyMap<string, readonly TargetImage[]>;
  unreachable: SyncPlan['unreachable'];
  /** Of sources that could be asked. */
  leftOut: SyncPlan['leftOut'];
}

/** What the plan is made from. */
export interface PlanInput {
  config: SyncConfig;
  listings: Listings;
  now: Date;
  /** What the ledger remembers of a file: sha256 of the disk it shows. */
  rawOf(fileDigest: string): string | undefined;
  /** Only in the targets, and of the sources and series, that are named; of a kind that is not named, all. All when absent. */
  only?: readonly string[] | undefined;
  /** The plan was carried out: what is still missing does not count as what will be there. */
  isAfter?: boolean | undefined;
}

/** A plan, and its actions with all that is needed to do them. */
export interface PlannedSync {
  plan: SyncPlan;
  /** In the order of the plan's actions. */
  tasks: SyncTask[];
}

/** One image of a source, chosen. */
interface Chosen {
  source: string;
  image: SyncImage;
}

/** Images by series and version; the first source that has one counts. */
function chosenImages(input: PlanInput, notes: string[]): Chosen[] {
  const { config, listings } = input;
  const taken = new Map<string, string>();
  const chosen: Chosen[] = [];
  for (const [source, settings] of Object.entries(config.sources)) {
    for (const versions of bySeries(listings.sources.get(source) ?? []).values()) {
      const most = settings.versions === 'all' ? versions.length : settings.versions;
      for (const image of versions.slice(0, most)) {
        const key = `${image.series}@${image.version}`;
        const other = taken.get(key);
        if (other !== undefined) {
          notes.push(`${printable(key)} is in ${other} and in ${source}: the one of ${other} counts`);
          continue;
        }
        taken.set(key, source);
        chosen.push({ source, image });
      }
    }
  }
  return chosen;
}

/** Newest first in each series. */
function bySeries<T extends { series: string; version: string; createdAt: string }>(
  images: readonly T[],
): Map<string, T[]> {
  const series = new Map<string, T[]>();
  for (const image of images) {
    const known = series.get(image.series);
    if (known === undefined) series.set(image.series, [image]);
    else known.push(image);
  }
  for (const versions of series.values()) versions.sort(newestFirst);
  return series;
}

function newestFirst(
  a: { version: string; createdAt: string },
  b: { version: string; createdAt: string },
): number {
  return compareVersions(b.version, a.version) || b.createdAt.localeCompare(a.createdAt);
}

/** Whether two are the same image: by content, or by the file it was made of. A name or a version alone never says so. */
function isSame(image: SyncImage, raw: string | undefined, there: TargetImage): boolean {
  if (there.series !== image.series || there.version !== image.version) return false;
  if (raw !== undefined) return there.rawSha256 === raw;
  return image.fileDigest !== undefined && there.fileDigest === image.fileDigest;
}

/** Makes the plan. */
export function planSync(input: PlanInput): PlannedSync {
  const { config, listings, now, only } = input;
  const notes: string[] = [];
  const tasks: SyncTask[] = [];
  const plan: SyncPlan = {
    schema: 'port-image/sync-plan/1',
    sync: config.sync,
    madeAt: isoDate(now),
    actions: [],
    coming: [],
    unreachable: [...listings.unreachable],
    leftOut: [...listings.leftOut],
    notes,
  };
  // Targets narrow down images, and images targets: what is named must fit both.
  const places = only?.filter((name) => Object.hasOwn(config.targets, name)) ?? [];
  const images = only?.filter((name) => !Object.hasOwn(config.targets, name)) ?? [];
  const isMeant = (target: string, ...names: string[]) =>
    (places.length === 0 || places.includes(target)) &&
    (images.length === 0 || names.some((name) => images.includes(name)));
  const wished = new Map<string, Wished[]>();
  const unsure = new Map<string, Set<string>>();
  const there = new Map<string, Map<string, TargetImage[]>>();
  for (const [target, images] of listings.targets) there.set(target, bySeries(images));
  for (const { source, image } of chosenImages(input, notes)) {
    const raw =
      image.rawSha256 ?? (image.fileDigest === undefined ? undefined : input.rawOf(image.fileDigest));
    let fits = false;
    for (const target of Object.keys(config.targets)) {
      const rule = ruleFor(config, source, image, target);
      if (rule === undefined) continue;
      fits = true;
      const held = there.get(target);
      if (held === undefined) continue;
      const wanted = tolerated(() => wantedImage(rule, image), notes);
      // One image with a name that cannot be used stops no other.
      if (wanted === undefined) {
        unsure.set(target, (unsure.get(target) ?? new Set()).add(image.series));
        continue;
      }
      const digest = wantedDigest(wanted);
      const list = wished.get(target) ?? [];
      wished.set(target, list);
      const versions = held.get(image.series) ?? [];
      const found = versions.find((t) => t.state === 'complete' && isSame(image, raw, t));
      list.push({
        series: image.series,
        version: image.version,
        ref: found?.ref ?? '',
        createdAt: image.createdAt,
      });
      if (!isMeant(target, source, image.series)) continue;
      const action = actionFor(image, found, versions, digest, {
        source,
        target,
        name: wanted.name,
        mostBytes: mostBytes(config, target, image),
      });
      tasks.push({
        action,
        image: { ...image, ...(raw === undefined ? {} : { rawSha256: raw }) },
        wanted,
        wantedDigest: digest,
        carryData: rule.data === 'carry' && image.dataSets.length > 0,
      });
    }
    if (!fits) notes.push(`no rule fits ${printable(image.name)} of ${source}: it stays where it is`);
  }
  // A source that cannot be asked may have what looks old here: of a series, or newer than all that others have of it.
  const isSure = listings.unreachable.every(({ kind }) => kind !== 'source');
  for (const [target, held] of isSure ? there : []) {
    const {
      retire,
      coming,
      notes: told,
    } = retirements({
      target,
      held,
      wished: wished.get(target) ?? [],
      retention: config.retention,
      now,
      // An image of a source that cannot be read may be what looks like a leftover here.
      onlyWished: plan.leftOut.length > 0,
      unsure: unsure.get(target),
      isAfter: input.isAfter,
    });
    notes.push(...told);
    plan.coming.push(...coming.filter((c) => isMeant(target, c.series)));
    for (const action of retire) {
      if (!isMeant(target, action.series)) continue;
      tasks.push({ action, wantedDigest: '', carryData: false });
    }
  }
  plan.actions = tasks.map((task) => task.action);
  return { plan, tasks };
}

/** The value, or a note why there is none. */
function tolerated<T>(make: () => T, notes: string[]): T | undefined {
  try {
    return make();
  } catch (error) {
    if (!(error instanceof PortError)) throw error;
    if (!notes.includes(error.message)) notes.push(error.message);
    return undefined;
  }
}

/** Most that can be sent: the file where it travels as it is, else every byte of the disk. */
function mostBytes(config: SyncConfig, target: string, image: SyncImage): number {
  return config.targets[target]?.platform === 'openstack'
    ? image.fileBytes
    : (image.virtualBytes ?? image.fileBytes);
}

function actionFor(
  image: SyncImage,
  found: TargetImage | undefined,
  versions: readonly TargetImage[],
  wanted: string,
  at: Pick<SyncAction, 'source' | 'target' | 'name' | 'mostBytes'>,
): SyncAction {
  const base = { ...at, series: image.series, version: image.version, sourceRef: image.ref };
  if (found === undefined) {
    const newest = versions.find((t) => t.state === 'complete');
    const sameVersion = versions.some((t) => t.state === 'complete' && t.version === image.version);
    const why =
      newest === undefined
        ? 'the target has no version of it'
        : sameVersion
          ? 'the target has other content under this version'
          : `the target has ${printable(newest.version)}`;
    return { verb: 'create', ...base, targetRef: '', why };
  }
  if (found.hidden) {
    return {
      verb: 'update',
      ...base,
      targetRef: found.ref,
      why: 'it is hidden there, and wanted again',
      mostBytes: 0,
    };
  }
  if (found.wanted !== wanted) {
    return {
      verb: 'update',
      ...base,
      targetRef: found.ref,
      why: 'name, visibility, sharing or properties differ',
      mostBytes: 0,
    };
  }
  return { verb: 'skip', ...base, targetRef: found.ref, why: 'the same content is there', mostBytes: 0 };
}
