/**
 * Which versions of a target are hidden, which deleted, and when the others will be. Never the last good one, never a pinned one,
 * never one that is wanted, never one in use.
 */
import type { RetentionConfig } from '../../core/sync/config.ts';
import { isoDate } from '../../core/sync/dates.ts';
import type { ComingRetirement, SyncAction, TargetImage } from '../../core/sync/types.ts';
import { compareVersions } from '../../core/sync/versions.ts';
import { printable } from '../../core/text.ts';
import { isPinned } from './rules.ts';

/** A version a source offers for a target. */
export interface Wished {
  series: string;
  version: string;
  /** The target's own name for it; '' while it is not there. */
  ref: string;
  createdAt: string;
}

/** What one target is judged by. */
export interface RetentionInput {
  target: string;
  /** Images there by series, newest first, unfinished ones too. */
  held: ReadonlyMap<string, readonly TargetImage[]>;
  wished: readonly Wished[];
  retention: RetentionConfig;
  now: Date;
  /** Leave series alone that no source offers now. */
  onlyWished: boolean;
  /** Series of which something is wanted that could not be told: nothing of them goes. */
  unsure?: ReadonlySet<string> | undefined;
  /** What was to come has come or will not: only what is there counts. */
  isAfter?: boolean | undefined;
}

/** What becomes of old versions. */
export interface Retirements {
  retire: SyncAction[];
  coming: ComingRetirement[];
  notes: string[];
}

/** Judges every series of a target. */
export function retirements(input: RetentionInput): Retirements {
  const found: Retirements = { retire: [], coming: [], notes: [] };
  const offered = new Map<string, Wished[]>();
  for (const one of input.wished) offered.set(one.series, [...(offered.get(one.series) ?? []), one]);
  for (const [series, images] of input.held) {
    const wished = offered.get(series) ?? [];
    if ((wished.length === 0 && input.onlyWished) || input.unsure?.has(series) === true) continue;
    judge(input, series, images, wished, found);
  }
  return found;
}

function judge(
  { target, retention, now, isAfter = false }: RetentionInput,
  series: string,
  images: readonly TargetImage[],
  wished: readonly Wished[],
  found: Retirements,
): void {
  const complete = images.filter((image) => image.state === 'complete');
  const wanted = new Set(wished.map((one) => one.ref));
  const visible = complete.filter((image) => !image.hidden);
  // What will be there when all is done: versions still to be made count as the newest they are.
  const absent = wished.filter((one) => one.ref === '');
  const missing = isAfter ? [] : absent;
  const coming = new Set(absent.map((one) => one.version));
  // What nobody has read yet may be what lies there under its version: then it counts once, and does not go.
  const mayBeWanted = (image: TargetImage) => wanted.has(image.ref) || coming.has(image.version);
  const rank = (image: TargetImage) =>
    missing.filter((one) => compareVersions(one.version, image.version) > 0).length +
    visible.filter((other) => (isAfter || !coming.has(other.version)) && isNewer(other, image)).length;
  const isLastGood = (image: TargetImage) => missing.length === 0 && visible[0] === image;
  const isOld = (image: TargetImage) =>
    retention.maxAge !== undefined && now.getTime() - Date.parse(image.createdAt) > retention.maxAge;
  for (const image of visible) {
    if (mayBeWanted(image) || isPinned(retention, series, image.version) || isLastGood(image)) continue;
    const isTooMany = rank(image) >= retention.keep;
    if (!isTooMany && !isOld(image)) {
      announceAge(image);
      continue;
    }
    const why = isTooMany ? `more than ${retention.keep} newer versions are kept` : 'older than maxAge';
    found.retire.push(actionOf('hide', image, isTooMany ? `${retention.keep} newer versions are kept` : why));
    found.coming.push(comingOf('delete', image, now.getTime() + retention.hideFor));
  }
  for (const image of complete) {
    if (!image.hidden || mayBeWanted(image)) continue;
    if (isPinned(retention, series, image.version)) continue;
    // Hidden by hand, or every version is: who asks for the id still gets it, and one must stay.
    if (visible.length === 0 && missing.length === 0 && complete[0] === image) continue;
    const dueMs = Date.parse(image.hiddenAt) + retention.hideFor;
    // An image nobody knows since when it is hidden was not hidden by a run of this sync.
    if (Number.isNaN(dueMs)) continue;
    if (dueMs > now.getTime()) {
      found.coming.push(comingOf('delete', image, dueMs));
      continue;
    }
    const blocker = image.inUse === true ? 'in use' : image.protected ? 'protected' : undefined;
    if (blocker !== undefined) {
      found.notes.push(
        `${target}: ${printable(image.name)} ${printable(image.version)} stays: it is ${blocker}`,
      );
      continue;
    }
    found.retire.push(actionOf('delete', image, `hidden since ${image.hiddenAt.slice(0, 10)}`));
  }

  function announceAge(image: TargetImage): void {
    if (retention.maxAge === undefined || visible[0] === image) return;
    found.coming.push(comingOf('hide', image, Date.parse(image.createdAt) + retention.maxAge));
  }

  function actionOf(verb: 'hide' | 'delete', image: TargetImage, why: string): SyncAction {
    return {
      verb,
      target,
      source: '',
      series,
      version: image.version,
      name: image.name,
      sourceRef: '',
      targetRef: image.ref,
      why,
      mostBytes: 0,
    };
  }

  function comingOf(what: 'hide' | 'delete', image: TargetImage, atMs: number): ComingRetirement {
    return {
      target,
      series,
      version: image.version,
      name: image.name,
      targetRef: image.ref,
      what,
      notBefore: isoDate(new Date(atMs)),
    };
  }
}

function isNewer(a: TargetImage, b: TargetImage): boolean {
  if (a === b) return false;
  return (compareVersions(a.version, b.version) || a.createdAt.localeCompare(b.createdAt)) > 0;
}
