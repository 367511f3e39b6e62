/** A run of a sync: look everywhere, plan, do the plan, retire what is old, tell. */
import { randomBytes } from 'node:crypto';
import * as fs from 'node:fs/promises';
import * as os from 'node:os';
import * as path from 'node:path';
import { asPortError, PortError } from '../../core/errors.ts';
import { makeDir } from '../../core/files.ts';
import { dateWord, isoDate } from '../../core/sync/dates.ts';
import type { SyncContext, SyncOutcome, SyncPlan, SyncReport, TargetImage } from '../../core/sync/types.ts';
import { printable } from '../../core/text.ts';
import { lockFolder } from '../lock.ts';
import { ProcessCarrier } from './carrier.ts';
import { Ledger } from './ledger.ts';
import { LocalDisks } from './local-disks.ts';
import { isMade, lookEverywhere } from './look.ts';
import { type PerformOptions, performTask } from './perform.ts';
import type { SyncFile, SyncTask, TaskCarrier, TaskResult } from './perform-types.ts';
import { placeOf } from './place.ts';
import { inPlace, Places } from './places.ts';
import { type Listings, type PlannedSync, planSync } from './plan.ts';
import { exitStatusOf } from './report/exit-status.ts';
import { INDEX_RUNS, writeReport, writeRun } from './report/write.ts';
import { isRetirement, retirementKey, retireOld, without } from './retire.ts';
import { waves } from './waves.ts';

/** How to run. */
export interface SyncOptions extends SyncContext {
  /** Only what has one of these names: of a source, a target or a series. */
  only?: readonly string[] | undefined;
  /** Only what failed in the run before. */
  onlyFailed?: boolean | undefined;
  /** Makes what carries the tasks; this process does when absent. */
  carrier?: ((run: string) => Promise<TaskCarrier>) | undefined;
  /** Told each outcome as it is known. */
  onOutcome?: ((outcome: SyncOutcome) => void) | undefined;
  /** Told the plan before anything of it is done. */
  onPlan?: ((plan: SyncPlan) => void) | undefined;
}

/** Where a sync keeps its ledger, its reports and copies under way. */
export function stateDirOf({ config, path: file }: SyncFile): string {
  if (config.state !== undefined) return path.resolve(path.dirname(file), config.state);
  const home = process.env.XDG_STATE_HOME ?? path.join(os.homedir(), '.local', 'state');
  return path.join(home, 'port-image', 'sync', config.sync);
}

/** Everything a run holds open. */
class Session {
  readonly file: SyncFile;
  readonly stateDir: string;
  readonly ledger: Ledger;
  readonly places: Places;

  /** `20260821T010000Z-ab12cd`. */
  readonly run: string;
  /** `RUN@PLACE`. */
  readonly owner: string;

  constructor(file: SyncFile, stateDir: string, ledger: Ledger, place: string, signal: AbortSignal) {
    this.file = file;
    this.stateDir = stateDir;
    this.ledger = ledger;
    this.run = `${dateWord(new Date())}-${randomBytes(3).toString('hex')}`;
    this.owner = `${this.run}@${place}`;
    this.places = new Places(file, { stateDir, digests: ledger.digests, owner: this.owner, signal });
  }

  async close(): Promise<void> {
    await this.places.close();
    this.ledger.close();
  }
}

async function open(file: SyncFile, signal: AbortSignal): Promise<Session> {
  const stateDir = stateDirOf(file);
  await makeDir(stateDir);
  return new Session(file, stateDir, await Ledger.open(stateDir), await placeOf(stateDir), signal);
}

/** A name that names nothing is a mistake, not a run with nothing to do. Throws USAGE. */
function requireKnown({ config }: SyncFile, listings: Listings, only: readonly string[]): void {
  const series = [...listings.sources.values(), ...listings.targets.values()].flatMap((images) =>
    images.map((image) => image.series),
  );
  const known = new Set([...Object.keys(config.sources), ...Object.keys(config.targets), ...series]);
  const wrong = only.find((name) => !known.has(name));
  // An image of a source that cannot be asked now may have the name.
  if (wrong === undefined || listings.unreachable.length > 0) return;
  throw new PortError('USAGE', `no source, target or image is named ${printable(wrong)}`, {
    hint: 'images are named by their series, as sync FILE --plan shows it',
  });
}

function makePlan(session: Session, listings: Listings, options: SyncOptions): PlannedSync {
  if (options.only !== undefined) requireKnown(session.file, listings, options.only);
  const planned = planSync({
    config: session.file.config,
    listings,
    now: new Date(),
    rawOf: (digest) => session.ledger.rawOf(digest)?.rawSha256,
    only: options.only,
  });
  if (options.onlyFailed !== true) return planned;
  const failed = new Set(session.ledger.lastFailures().map(({ series, target }) => `${target}\0${series}`));
  const tasks = planned.tasks.filter(({ action }) => failed.has(`${action.target}\0${action.series}`));
  return { plan: { ...planned.plan, actions: tasks.map((t) => t.action) }, tasks };
}

/** The plan a run would follow now; nothing is changed anywhere but in the ledger. Throws CONFIG, INTERRUPTED, HOST_IO. */
export async function planOnly(file: SyncFile, options: SyncOptions): Promise<SyncPlan> {
  const session = await open(file, options.signal);
  try {
    return makePlan(session, await lookEverywhere(file, session.places, options), options).plan;
  } finally {
    await session.close();
  }
}

/**
 * One run. What fails in one place stops no other; the report tells each outcome. Throws only what keeps it from running at all:
 * JOB_LOCKED (another run of this state folder), HOST_IO, CONFIG.
 */
export async function runSync(file: SyncFile, options: SyncOptions): Promise<SyncReport> {
  const stateDir = stateDirOf(file);
  await makeDir(stateDir);
  const unlock = await lockFolder(stateDir);
  try {
    const session = await open(file, options.signal);
    try {
      return await new Run(session, options).run();
    } finally {
      await session.close();
      await fs.rm(path.join(stateDir, 'tmp'), { recursive: true, force: true });
    }
  } finally {
    // Whatever failed: a daemon lives on, and its next night needs the folder.
    await unlock();
  }
}

class Run {
  readonly #session: Session;
  readonly #options: SyncOptions;
  readonly #startedAt = new Date();
  readonly #results: TaskResult[] = [];
  readonly #notes: string[] = [];
  /** Servers that were not captured: their images are old, and whoever watches the status must hear of it. */
  readonly #leftOut: SyncPlan['leftOut'] = [];
  #plan: SyncPlan | undefined;
  #tasks: readonly SyncTask[] = [];
  #freedBytes = 0;

  constructor(session: Session, options: SyncOptions) {
    this.#session = session;
    this.#options = options;
  }

  async run(): Promise<SyncReport> {
    let interrupted = false;
    try {
      await this.#work();
    } catch (error) {
      if (!this.#options.signal.aborted) throw error;
      interrupted = true;
      for (const result of this.#open('the run was stopped before it was done')) this.#results.push(result);
    }
    const report = await this.#report(interrupted);
    // The report first: the ledger can be made of it, not the other way round.
    await writeRun(this.#session.stateDir, report, this.#session.ledger.runs(INDEX_RUNS));
    this.#session.ledger.saveRun(report);
    return report;
  }

  /** Results of tasks that have none yet; what is in place already is no work that was left. */
  #open(message: string): TaskResult[] {
    const told = new Set(this.#results.map(({ outcome }) => outcome.action));
    return this.#tasks
      .filter(({ action }) => action.verb !== 'skip' && !told.has(action))
      .map((task) => without(task, { result: 'deferred', message }));
  }

  /** What is told of this run should it be killed: the next one is not the first that knows of it. */
  async #begin(): Promise<void> {
    const report: SyncReport = {
      ...(await this.#report(true)),
      outcomes: this.#open('the run was under way, and did not end').map(({ outcome }) => outcome),
    };
    await writeReport(this.#session.stateDir, report);
    this.#session.ledger.saveRun(report);
  }

  async #work(): Promise<void> {
    const { stateDir, places } = this.#session;
    const options = this.#options;
    await fs.rm(path.join(stateDir, 'tmp'), { recursive: true, force: true });
    const disks = new LocalDisks({
      dir: path.join(stateDir, 'images'),
      bytesPerSecond: this.#session.file.config.limits.downloadBytesPerSecond,
      remember: (digest, facts) => this.#session.ledger.rememberRaw(digest, facts),
    });
    await disks.start();
    await this.#refresh();
    const seen = await lookEverywhere(this.#session.file, places, options);
    const listings = { ...seen, leftOut: [...this.#leftOut, ...seen.leftOut] };
    const { plan, tasks } = makePlan(this.#session, listings, options);
    this.#plan = plan;
    this.#tasks = tasks;
    options.onPlan?.(plan);
    await this.#begin();
    // Part of a plan says nothing about the rest, nor does one without a place.
    const isWhole =
      options.only === undefined && options.onlyFailed !== true && plan.unreachable.length === 0;
    if (isWhole) {
      await disks.keepOnly(
        tasks.flatMap(({ action: { verb, source }, image }) =>
          verb === 'create' && image !== undefined ? [{ source, image }] : [],
        ),
      );
    }
    const perform: PerformOptions = {
      ...options,
      file: this.#session.file,
      places,
      disks,
      stateDir,
      owner: this.#session.owner,
      attempts: this.#session.file.config.limits.attempts,
      listed: listings.targets,
    };
    await this.#carry(tasks, perform);
    await retireOld({
      tasks,
      results: this.#results,
      perform,
      judge: (target, images, now) => this.#retirements(target, images, now, listings),
      take: (task, result) => this.#take(task, result),
    });
    await this.#sweep(listings, perform);
  }

  /** Sources that make their images themselves do so now: servers are captured again. */
  async #refresh(): Promise<void> {
    const { file, places } = this.#session;
    for (const name of Object.keys(file.config.sources)) {
      const source = await places.source(name).catch(() => undefined);
      if (source === undefined || !isMade(source)) continue;
      for (const failure of await source.refresh(inPlace(this.#options, name)))
        this.#leftOut.push({
          source: name,
          ...failure,
          message: `not captured anew: ${failure.message}`,
        });
    }
  }

  #take(task: SyncTask, result: TaskResult): void {
    this.#results.push(result);
    const { outcome } = result;
    this.#options.onOutcome?.(outcome);
    this.#options.log.info('task ended', {
      verb: task.action.verb,
      target: task.action.target,
      series: task.action.series,
      version: task.action.version,
      result: outcome.result,
      sentBytes: outcome.sentBytes,
    });
  }

  async #carry(tasks: readonly SyncTask[], perform: PerformOptions): Promise<void> {
    const here: SyncTask[] = [];
    const elsewhere: SyncTask[] = [];
    for (const task of tasks) {
      if (isRetirement(task)) continue;
      // What costs no bytes needs no other host.
      if (task.action.verb === 'skip' && !task.carryData) here.push(task);
      else elsewhere.push(task);
    }
    for (const task of here) this.#take(task, await performTask(task, perform));
    for (const wave of waves(elsewhere)) await this.#carryAll(wave, perform);
  }

  async #carryAll(tasks: readonly SyncTask[], perform: PerformOptions): Promise<void> {
    const open = new Set(tasks);
    try {
      const carrier =
        (await this.#options.carrier?.(this.#session.run)) ??
        new ProcessCarrier(
          this.#session.file.config,
          (task) => performTask(task, perform),
          ({ action, image }) =>
            image === undefined ? async () => {} : perform.disks.hold(action.source, image),
          this.#options.signal,
        );
      await carrier.run(tasks, (task, result) => {
        open.delete(task);
        this.#take(task, result);
      });
    } catch (error) {
      if (this.#options.signal.aborted) throw error;
      const { code, message, hint, temporary } = asPortError(error);
      for (const task of open)
        this.#take(task, without(task, { result: 'failed', code, message, hint, temporary }));
      return;
    }
    // A task nobody tells anything of is not done, whatever became of it.
    for (const task of open)
      this.#take(task, without(task, { result: 'failed', code: 'BUG', message: 'nobody told its result' }));
  }

  /** What retention would have go of a target as it is now. */
  #retirements(
    target: string,
    images: readonly TargetImage[],
    now: Date,
    listings: Listings,
  ): ReadonlySet<string> {
    const { file, ledger } = this.#session;
    const { plan } = planSync({
      config: file.config,
      listings: { ...listings, targets: new Map([[target, images]]) },
      now,
      rawOf: (digest) => ledger.rawOf(digest)?.rawSha256,
      isAfter: true,
    });
    return new Set(plan.actions.map(retirementKey));
  }

  /** Where something was made or removed, or a dead run left something: an unchanged night asks for nothing more. */
  async #sweep(listings: Listings, perform: PerformOptions): Promise<void> {
    const { places } = this.#session;
    for (const [name, before] of listings.targets) {
      const changed = this.#results.some(
        ({ outcome: { action, result } }) =>
          action.target === name &&
          (action.verb === 'create' || action.verb === 'delete') &&
          result !== 'failed' &&
          result !== 'deferred',
      );
      if (!changed && before.every((image) => image.state === 'complete')) continue;
      const ctx = inPlace(perform, name);
      try {
        const target = await places.target(name);
        this.#freedBytes += await target.sweep(await target.list(ctx), ctx);
      } catch (error) {
        if (this.#options.signal.aborted) throw error;
        this.#notes.push(`${name}: leftovers stay for the next run: ${(error as Error).message}`);
      }
    }
  }

  async #report(interrupted: boolean): Promise<SyncReport> {
    const endedAt = new Date();
    const report: SyncReport = {
      schema: 'port-image/sync-run/1',
      sync: this.#session.file.config.sync,
      run: this.#session.run,
      host: os.hostname(),
      startedAt: isoDate(this.#startedAt),
      endedAt: isoDate(endedAt),
      seconds: Number(((endedAt.getTime() - this.#startedAt.getTime()) / 1000).toFixed(1)),
      outcomes: this.#results.map(({ outcome }) => outcome),
      dataSets: this.#results.flatMap(({ dataSets }) => dataSets),
      coming: this.#plan?.coming ?? [],
      unreachable: this.#plan?.unreachable ?? [],
      leftOut: this.#plan?.leftOut ?? this.#leftOut,
      notes: [...(this.#plan?.notes ?? []), ...this.#notes],
      calls: await this.#session.places.calls(),
      freedBytes: this.#freedBytes,
      exitStatus: 0,
      interrupted,
      partial: this.#options.only !== undefined || this.#options.onlyFailed === true,
    };
    report.exitStatus = exitStatusOf(report);
    return report;
  }
}
