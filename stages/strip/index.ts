/** strip: moves application data into the store, proves it is there, empties it in the overlay, installs the way back. */
import * as z from 'zod';
import { buildContract } from '../../core/contract.ts';
import { type DataSetSummary, DISK_RULE, dataSetId, neededBytes } from '../../core/data-set.ts';
import { PortError } from '../../core/errors.ts';
import { makeDir, writeJson } from '../../core/files.ts';
import { Request } from '../../core/request.ts';
import { formatBytes } from '../../core/sizes.ts';
import type { Stage, StageContext } from '../../core/stage.ts';
import { printable, printableBytes } from '../../core/text.ts';
import type { CaptureResult } from '../../core/types.ts';
import { withStore } from '../../drivers/stores/index.ts';
import type { Store } from '../../drivers/stores/store.ts';
import { chooseSamples, proveContent } from '../../tools/content-proof.ts';
import { effectiveMode, type GuestDataSet, installGuestSide } from '../../tools/guest-side.ts';
import { openContent, plainMap, rangesOf } from '../../tools/tree-content.ts';
import { type TreeEntry, walkTree } from '../../tools/tree-walk.ts';
import { type Choice, choosePaths, filesystemOf } from './choose.ts';
import { dataDiskChoices, detachDisk, spaceWarning } from './data-disks.ts';
import { emptyTree } from './remove.ts';
import { reusableSet } from './reuse.ts';
import type { WrittenSet } from './set-lists.ts';
import { writeDataSet } from './write-set.ts';

const { strip, dataMode, store, storeCloud, verifyData, name } = Request.shape;
const Options = z.object({ strip, dataMode, store, storeCloud, verifyData, name });

/** A path that will become a data set. */
export interface PlannedSet extends Choice {
  id: string;
  /** Allocated bytes and files, when inspect measured them. */
  bytes?: number;
  files?: number;
}

/** What strip is going to do. */
export interface StripPlan {
  sets: PlannedSet[];
}

/** Names job and source, so that another job or a newer source never writes into the same data set. */
function saltOf(ctx: StageContext): string {
  const disks = ctx.result<CaptureResult>('capture')?.disks ?? [];
  const stamps = disks.flatMap((d) => [d.fileBytes, d.modifiedMs]);
  return [ctx.paths.dir, ctx.request.source, ...stamps].join('\0');
}

async function plan(ctx: StageContext): Promise<StripPlan> {
  const { request, facts } = ctx;
  const onDisks = dataDiskChoices(request, facts);
  const space = onDisks.length === 0 ? undefined : spaceWarning(facts);
  if (space !== undefined) ctx.warn(space);
  const others = await choosePaths(request, facts, ctx.guest, (text) => ctx.warn(text));
  // what lies on such a disk goes with it
  const apart = others.filter(({ path }) =>
    onDisks.every((d) => path !== d.path && !path.startsWith(`${d.path}/`)),
  );
  const choices = [...onDisks, ...apart].sort((a, b) => (a.path < b.path ? -1 : 1));
  const salt = saltOf(ctx);
  const sets = choices.map((choice): PlannedSet => {
    const known = facts.candidates.find((c) => c.path === choice.path);
    const whole =
      choice.rule === DISK_RULE ? filesystemOf(choice.path, facts).filesystem?.usedBytes : undefined;
    return {
      ...choice,
      id: dataSetId(request.name, choice.path, salt),
      ...(known === undefined ? {} : { bytes: known.bytes, files: known.files }),
      ...(whole === undefined ? {} : { bytes: whole }),
    };
  });
  // Compression is not counted on; paths nobody measured count nothing, the store refuses in time anyway.
  const dataBytes = sets.reduce((sum, s) => sum + (s.bytes ?? 0), 0);
  if (sets.length > 0) await withStore(request, ctx.signal, (store) => store.check(dataBytes));
  for (const set of sets) {
    const size = set.bytes === undefined ? '' : `, ${formatBytes(set.bytes)}`;
    ctx.change({
      path: set.path,
      action: 'remove',
      why: `${set.reason}: becomes data set ${set.id}${size}, needed by ${set.neededBy.join(', ')}`,
    });
  }
  ctx.change({
    path: '/usr/lib/port-image/contract.json',
    action: 'create',
    why: 'what this image is and what it expects; with it the client that fetches data sets',
  });
  return { sets };
}

/** Walks, proves the direct way of reading, writes. */
async function storeTree(
  ctx: StageContext,
  target: Store,
  set: PlannedSet,
): Promise<{ written: WrittenSet; reused: boolean }> {
  const { guest, signal, facts } = ctx;
  const label = printable(set.path);
  ctx.progress({ text: `listing ${label}` });
  const tree = await walkTree(guest, set.path, ctx.paths.tmp);
  if (tree.foreign.length > 0) {
    throw new PortError('USAGE', `cannot strip ${label}: another file system or subvolume is in it`, {
      hint: `it is at ${printableBytes(Buffer.from(tree.foreign[0] ?? '', 'latin1'))}`,
    });
  }
  if (tree.sockets.length > 0) ctx.warn(`${label}: ${tree.sockets.length} sockets were left out`);
  const found = await reusableSet(target, set.id, set.path, tree.entries, signal, ctx.request.verifyData);
  if (found !== undefined) return { written: found, reused: true };

  const { filesystem } = filesystemOf(set.path, facts);
  let map = plainMap(filesystem);
  if (map === undefined && filesystem?.dirty === true) {
    ctx.warn(
      `${label}: its file system was not unmounted cleanly, so its files are read through the appliance, which is slower`,
    );
  }
  const content = () => openContent({ guest, root: set.path, map, tmpDir: ctx.paths.tmp });
  if (map !== undefined && !(await isProven(ctx, set.path, tree.entries, await content()))) {
    ctx.warn(
      `${label}: its files do not lie where the file system says; they are read through the appliance`,
    );
    map = undefined;
  }
  const bytes = tree.entries.reduce((sum, e) => sum + e.size, 0);
  const dataBytes = tree.entries.reduce(
    (sum, e) => sum + rangesOf(e).reduce((n, [, length]) => n + length, 0),
    0,
  );
  let done = 0;
  const started = performance.now();
  const written = await writeDataSet({
    store: target,
    id: set.id,
    path: set.path,
    entries: tree.entries,
    openContent: content,
    signal,
    verify: ctx.request.verifyData,
    onBytes: (more) => {
      done += more;
      ctx.progress({ text: `storing ${label}`, doneBytes: Math.min(done / 2, bytes), totalBytes: bytes });
    },
  });
  const seconds = (performance.now() - started) / 1000;
  ctx.log.info('data set stored and read back', {
    id: set.id,
    bytes,
    files: written.manifest.files,
    segments: written.manifest.segments.length,
    seconds: Number(seconds.toFixed(2)),
    dataBytes,
    mibPerSecond: Math.round(dataBytes / seconds / 2 ** 20),
    direct: map !== undefined,
  });
  return { written, reused: false };
}

async function isProven(
  ctx: StageContext,
  path: string,
  entries: readonly TreeEntry[],
  content: Awaited<ReturnType<typeof openContent>>,
): Promise<boolean> {
  try {
    return await proveContent(ctx.guest, path, chooseSamples(entries), content, ctx.paths.tmp);
  } finally {
    await content.close();
  }
}

function run(ctx: StageContext, planned: StripPlan): Promise<DataSetSummary[]> {
  return withStore(ctx.request, ctx.signal, (store) => stripInto(ctx, planned, store));
}

async function stripInto(ctx: StageContext, planned: StripPlan, target: Store): Promise<DataSetSummary[]> {
  const { request, facts, guest, platforms } = ctx;
  const summaries: DataSetSummary[] = [];
  const inGuest: GuestDataSet[] = [];
  await makeDir(ctx.paths.data);
  for (const set of planned.sets) {
    ctx.signal.throwIfAborted();
    const { written, reused } = await storeTree(ctx, target, set);
    const { manifest, sha256 } = written;
    const isDisk = set.rule === DISK_RULE;
    const isMount = !isDisk && filesystemOf(set.path, facts).mount === set.path;
    const mode = effectiveMode(set, facts.os.init, isMount, (text) => ctx.warn(text));
    const guestSet: GuestDataSet = {
      id: set.id,
      path: set.path,
      mode,
      neededBy: set.neededBy,
      keep: set.keep,
      bytes: manifest.bytes,
      files: manifest.files,
      neededBytes: neededBytes(manifest),
      segments: manifest.segments.length,
      manifestSha256: sha256,
      segmentsSha256: manifest.segmentsSha256,
    };
    await writeJson(`${ctx.paths.data}/${set.id}.json`, manifest);
    // Only now is it safe: everything was read back from the store and compared.
    if (isDisk) await detachDisk(guest, guestSet);
    else await emptyTree(guest, guestSet);
    ctx.change({
      path: set.path,
      action: 'remove',
      why: `${set.reason}: now data set ${set.id} (${manifest.files} files, ${formatBytes(manifest.bytes)})`,
    });
    inGuest.push(guestSet);
    summaries.push({
      id: set.id,
      path: set.path,
      bytes: manifest.bytes,
      storedBytes: manifest.segments.reduce((sum, s) => sum + s.bytes, 0),
      files: manifest.files,
      entries: manifest.entryCount,
      segments: manifest.segments.length,
      manifest: { key: `${set.id}/manifest.json`, sha256 },
      segmentsSha256: manifest.segmentsSha256,
      neededBy: set.neededBy,
      mode,
      rule: set.rule,
      reused,
    });
  }
  const version = new Date().toISOString().slice(0, 10).replaceAll('-', '.');
  const contract = buildContract({ facts, request, platforms, dataSets: summaries, version });
  const installed = await installGuestSide(guest, {
    init: facts.os.init,
    contract,
    dataSets: inGuest,
    warn: (text) => ctx.warn(text),
  });
  for (const file of installed) ctx.change({ path: file.path, action: 'create', why: file.why });
  return summaries;
}

/** Moves application data into the store. Result: DataSetSummary[]. */
export const stage: Stage<StripPlan, DataSetSummary[]> = {
  name: 'strip',
  summary: 'move application data into the store, prove it is there, install the way back',
  needs: ['capture', 'inspect'],
  inGuest: true,
  Options,
  plan,
  run,
};
