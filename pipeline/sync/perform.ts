/** One task of a plan, done: the same for a run in this process and for a worker of a fleet. */
import { createHash } from 'node:crypto';
import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import { asPortError, PortError } from '../../core/errors.ts';
import { makeDir } from '../../core/files.ts';
import type {
  CreatedImage,
  DataSetOutcome,
  SyncContext,
  SyncOutcome,
  SyncTarget,
  TargetImage,
} from '../../core/sync/types.ts';
import { printable } from '../../core/text.ts';
import { platformsNamed } from '../../drivers/registry.ts';
import { openStore } from '../../drivers/stores/index.ts';
import type { Store } from '../../drivers/stores/store.ts';
import { verifyFailed, verifyImage } from '../../stages/verify/verify-image.ts';
import { withRetries } from '../../tools/openstack/retry.ts';
import { carryDataSets } from './carry.ts';
import type { LocalDisks, OpenedImage } from './local-disks.ts';
import type { SyncFile, SyncTask, TaskResult } from './perform-types.ts';
import { inPlace, type Places } from './places.ts';
import { isOpen } from './window.ts';

/** What is shared by the tasks of one process. */
export interface PerformOptions extends SyncContext {
  file: SyncFile;
  places: Places;
  disks: LocalDisks;
  /** State folder of the sync on this machine. */
  stateDir: string;
  /** `RUN@HOST`. */
  owner: string;
  /** Attempts for failures that can heal; 1 where somebody else tries again. */
  attempts: number;
  /** The target's images as the plan saw them; asked for again when absent. */
  listed?: ReadonlyMap<string, readonly TargetImage[]> | undefined;
}

interface Sent {
  created: CreatedImage;
  receivedBytes: number;
}

/** Does it. Never throws but for INTERRUPTED: what goes wrong is in the outcome. */
export async function performTask(task: SyncTask, options: PerformOptions): Promise<TaskResult> {
  const { action } = task;
  const began = performance.now();
  const base: SyncOutcome = {
    action,
    result: 'done',
    sentBytes: 0,
    changedBytes: 0,
    dataBytes: 0,
    receivedBytes: 0,
    seconds: 0,
    attempts: 1,
  };
  const end = (more: Partial<SyncOutcome>): SyncOutcome => ({
    ...base,
    ...more,
    seconds: Number(((performance.now() - began) / 1000).toFixed(2)),
  });
  const { window } = options.file.config;
  if (action.verb === 'create' && window !== undefined && !isOpen(window, new Date())) {
    const message = `outside of the window ${window.from}-${window.to}`;
    return { outcome: end({ result: 'deferred', message }), dataSets: [] };
  }
  let attempts = 0;
  const dataSets: DataSetOutcome[] = [];
  try {
    const ctx = inPlace(options, `${action.target}, ${action.series}`);
    const once = async (): Promise<Partial<SyncOutcome>> => {
      attempts++;
      return perform(task, options, ctx, dataSets);
    };
    const more = await withRetries(once, {
      retries: options.attempts - 1,
      signal: options.signal,
      onRetry: (error) => ctx.warn(`once more after: ${error.message}`),
    });
    return { outcome: end({ ...more, attempts }), dataSets };
  } catch (error) {
    if (options.signal.aborted) throw new PortError('INTERRUPTED', 'interrupted', { cause: error });
    const { code, message, hint, temporary } = asPortError(error);
    const result = code === 'SYNC_BUSY' ? 'deferred' : 'failed';
    options.log.warn('task failed', { target: action.target, series: action.series, code, message });
    return { outcome: end({ result, code, message, hint, temporary, attempts }), dataSets };
  }
}

async function perform(
  task: SyncTask,
  options: PerformOptions,
  ctx: SyncContext,
  dataSets: DataSetOutcome[],
): Promise<Partial<SyncOutcome>> {
  const { action } = task;
  const target = await options.places.target(action.target);
  switch (action.verb) {
    case 'skip':
      await carry(task, options, ctx, dataSets);
      return { result: 'skipped', ref: action.targetRef, dataBytes: heldBytes(task, options) };
    case 'create':
      // Data first: an image that can be seen has its data.
      await carry(task, options, ctx, dataSets);
      return create(task, options, ctx, target);
    case 'update': {
      await carry(task, options, ctx, dataSets);
      const image = await listedImage(task, options, ctx, target);
      if (image === undefined || task.wanted === undefined)
        return { result: 'changed', message: 'it is gone' };
      await target.update(image, task.wanted, task.wantedDigest, ctx);
      return { ref: image.ref };
    }
    case 'hide':
    case 'delete': {
      const image = await listedImage(task, options, ctx, target);
      if (image === undefined) return { result: 'changed', message: 'it is gone already' };
      if (action.verb === 'hide') await target.hide(image, ctx);
      else await target.remove(image, ctx);
      return { ref: image.ref };
    }
  }
}

/** Bytes of an image that is in place: what an unchanged night had not to send. */
function heldBytes({ action }: SyncTask, { listed }: PerformOptions): number {
  return listed?.get(action.target)?.find((image) => image.ref === action.targetRef)?.bytes ?? 0;
}

async function listedImage(
  { action }: SyncTask,
  { listed }: PerformOptions,
  ctx: SyncContext,
  target: SyncTarget,
): Promise<TargetImage | undefined> {
  const images = listed?.get(action.target) ?? (await target.list(ctx));
  return images.find((image) => image.ref === action.targetRef);
}

async function create(
  task: SyncTask,
  options: PerformOptions,
  ctx: SyncContext,
  target: SyncTarget,
): Promise<Partial<SyncOutcome>> {
  const { action, image, wanted } = task;
  if (image === undefined || wanted === undefined) throw new PortError('BUG', 'a task without its image');
  const source = await options.places.source(action.source);
  const booted = { checks: 0 };
  const { created, receivedBytes } = await options.disks.use(
    source,
    image,
    ctx,
    async (opened): Promise<Sent> => {
      const scratch = path.join(
        options.stateDir,
        'tmp',
        digestName(action.target, image.series, image.version),
      );
      await makeDir(scratch);
      try {
        const made = await target.create({
          ...ctx,
          image,
          identity: { series: image.series, version: image.version, rawSha256: opened.index.rawSha256 },
          disk: opened,
          wanted,
          wantedDigest: task.wantedDigest,
          owner: options.owner,
          staleAfterMs: options.file.config.staleAfter,
          stateDir: path.join(options.stateDir, 'targets', action.target),
          tmp: scratch,
          uploadBytesPerSecond: options.file.config.limits.uploadBytesPerSecond,
          ...proof(task, options, ctx, opened, scratch, booted),
        });
        return { created: made, receivedBytes: opened.receivedBytes };
      } finally {
        await fs.rm(scratch, { recursive: true, force: true });
      }
    },
  );
  const { ref, method, adopted, sentBytes, changedBytes, dataBytes, content, proof: proved } = created;
  if (adopted) await asWanted(task, ctx, target, ref);
  return {
    result: adopted ? 'adopted' : 'done',
    ref,
    method,
    sentBytes,
    changedBytes,
    dataBytes,
    receivedBytes,
    content,
    proof: booted.checks === 0 ? proved : `${proved}; it booted: ${booted.checks} checks hold`,
  };
}

/** What was found there may be hidden, or look as it was wanted once: the plan could not know that it is this one. */
async function asWanted(
  { wanted, wantedDigest }: SyncTask,
  ctx: SyncContext,
  target: SyncTarget,
  ref: string,
): Promise<void> {
  const image = (await target.list(ctx)).find((one) => one.ref === ref);
  if (image?.state !== 'complete' || wanted === undefined) return;
  if (image.hidden || image.wanted !== wantedDigest) await target.update(image, wanted, wantedDigest, ctx);
}

/** The boot that proves an image, where the target asks for one; `booted` is told how many checks held. */
function proof(
  task: SyncTask,
  options: PerformOptions,
  ctx: SyncContext,
  opened: OpenedImage,
  scratch: string,
  booted: { checks: number },
): { prove?: () => Promise<void> } {
  const { action, image } = task;
  const config = options.file.config.targets[action.target];
  if (config?.verify !== 'boot' || image === undefined) return {};
  return {
    prove: async () => {
      const [platform] = platformsNamed([config.platform]);
      if (platform === undefined) throw new PortError('BUG', `no platform ${config.platform}`);
      const verification = await verifyImage({
        image: opened.file.path,
        format: opened.file.format,
        platform,
        firmware: image.firmware,
        logs: path.join(options.stateDir, 'boots', digestName(action.target, image.series, image.version)),
        scratch,
        signal: ctx.signal,
        log: ctx.log,
        onProgress: (text) => ctx.progress({ text: `boot: ${text}` }),
      });
      if (!verification.verified) throw verifyFailed([verification]);
      booted.checks = verification.checks.filter(({ ok }) => ok === true).length;
    },
  };
}

/** Brings the data sets of the image into the target's store. Throws when one does not arrive. */
async function carry(
  task: SyncTask,
  options: PerformOptions,
  ctx: SyncContext,
  dataSets: DataSetOutcome[],
): Promise<void> {
  const { action, image } = task;
  if (!task.carryData || image === undefined) return;
  const { sources, targets } = options.file.config;
  const source = sources[action.source];
  const target = targets[action.target];
  if (source?.store === undefined || target?.store === undefined) {
    throw new PortError(
      'CONFIG',
      `data of ${printable(image.series)} cannot be carried to ${action.target}`,
      {
        hint: `both need a store: sources.${action.source}.store and targets.${action.target}.store`,
      },
    );
  }
  const stores: Store[] = [];
  try {
    const from = openStore(source.store, {
      cloud: 'glance' in source ? source.glance.cloud : undefined,
      signal: ctx.signal,
    });
    stores.push(from);
    const { cloud } = target.options;
    const to = openStore(target.store, {
      cloud: typeof cloud === 'string' ? cloud : undefined,
      signal: ctx.signal,
    });
    stores.push(to);
    const outcomes = await carryDataSets(image.dataSets, from, to, ctx);
    for (const outcome of outcomes) {
      const at = dataSets.findIndex((known) => known.id === outcome.id);
      const told = { ...outcome, target: action.target };
      if (at < 0) dataSets.push(told);
      else dataSets[at] = { ...told, sentBytes: told.sentBytes + (dataSets[at]?.sentBytes ?? 0) };
    }
    const failed = outcomes.find((outcome) => outcome.result === 'failed');
    if (failed !== undefined) {
      throw new PortError(
        'STORE',
        `data set ${printable(failed.id)} did not arrive: ${failed.message ?? ''}`,
        {
          temporary: true,
        },
      );
    }
  } finally {
    await Promise.allSettled(stores.map((store) => store.close?.()));
  }
}

function digestName(...parts: string[]): string {
  return createHash('sha256').update(parts.join('\0')).digest('hex').slice(0, 24);
}
