/** Runs a job: the order of stages, what is done already, the appliance session, the final proof about the source. */
import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import { asPortError, PortError } from '../core/errors.ts';
import { Facts } from '../core/facts.ts';
import { makeDir, sha256File, writeJson } from '../core/files.ts';
import type { Request } from '../core/request.ts';
import type { Change, JobPaths, Stage, StageName } from '../core/stage.ts';
import { STAGE_NAMES } from '../core/stage.ts';
import type { CapturedDisk, CaptureResult, Verification } from '../core/types.ts';
import { PROGRAM_VERSION } from '../core/version.ts';
import { workDisks } from '../core/work-disks.ts';
import { platformsNamed } from '../drivers/registry.ts';
import type { CapturePlan } from '../stages/capture/index.ts';
import { mountGuest } from '../stages/inspect/mount.ts';
import { stages } from '../stages/registry.ts';
import { libguestfsEnvironment, probeKvm } from '../tools/kvm.ts';
import { detachStale } from '../tools/qemu-storage-daemon.ts';
import { type SourceDigest, sourceDigest } from '../tools/source-digest.ts';
import { type RunState, stageContext } from './context.ts';
import type { Listener } from './events.ts';
import { openJob } from './job.ts';
import { openJobLog } from './job-log.ts';
import { type JobState, Journal } from './journal.ts';
import { lockFolder } from './lock.ts';
import { writeReport } from './report/write.ts';
import { type EditSession, openSession } from './session.ts';
import { changesOf, type Summary, summarize } from './summary.ts';
import { stagesWithoutFiles } from './trust.ts';

/** How to run. */
export interface RunOptions {
  signal: AbortSignal;
  listener: Listener;
  /** Stop after this stage (for debugging). */
  until?: StageName;
  /** Only plan: nothing is edited, encoded or stored. */
  dryRun?: boolean;
  /** Forget that these stages were done. */
  repeat?: readonly StageName[];
}

/** What a run ended with. */
export interface RunOutcome {
  summary: Summary;
  /** Intended changes of the stages that were planned. */
  planned: Change[];
  /** What plans warned of, in a dry run. */
  warnings: string[];
}

/** Runs or resumes the job in a folder. Everything a stage throws comes out as PortError. */
export async function runJob(dir: string, options: RunOptions): Promise<RunOutcome> {
  const { paths, request } = await openJob(dir);
  const unlock = await lockFolder(paths.dir);
  await makeDir(paths.logs);
  const log = openJobLog(paths.logs, { job: path.basename(paths.dir) });
  let journal: Journal | undefined;
  try {
    await detachStale(paths.tmp).catch(() => {}); // a killed run leaves its FUSE export mounted
    await fs.rm(paths.tmp, { recursive: true, force: true });
    for (const sub of [paths.capture, paths.data, paths.out, paths.logs, paths.tmp]) await makeDir(sub);
    journal = await Journal.open(paths.journal);
    return await new Run(paths, request, journal, options, log).execute();
  } catch (error) {
    const known = asPortError(
      options.signal.aborted ? new PortError('INTERRUPTED', 'interrupted', { cause: error }) : error,
    );
    log.warn('run failed', { code: known.code, message: known.message, stack: known.stack ?? '' });
    throw known;
  } finally {
    await journal?.close();
    await fs.rm(paths.tmp, { recursive: true, force: true }).catch(() => {});
    log.close();
    await unlock();
  }
}

class Run {
  readonly #paths: JobPaths;
  readonly #journal: Journal;
  readonly #options: RunOptions;
  readonly #state: RunState;
  readonly #planned: Change[] = [];
  readonly #warnings: string[] = [];
  readonly #plans = new Map<StageName, unknown>();
  #done: JobState;
  #digests: Promise<Map<string, SourceDigest>> | undefined;
  #session: EditSession | undefined;
  #sessionId: string | undefined;

  constructor(
    paths: JobPaths,
    request: Request,
    journal: Journal,
    options: RunOptions,
    log: RunState['log'],
  ) {
    this.#paths = paths;
    this.#journal = journal;
    this.#options = options;
    this.#done = journal.state();
    this.#state = {
      request,
      paths,
      platforms: platformsNamed(request.to),
      results: new Map(),
      facts: undefined,
      guest: undefined,
      signal: options.signal,
      log,
      listener: options.listener,
    };
  }

  async execute(): Promise<RunOutcome> {
    await this.#journal.append({ event: 'run-started', pid: process.pid, version: PROGRAM_VERSION });
    await this.#forget();
    for (const [name, entry] of this.#done.done) this.#state.results.set(name, entry.result);
    try {
      if (this.#options.dryRun === true && (await this.#copiesFirst())) return await this.#finish(null);
      const disks = await this.#capture();
      this.#digests = this.#checkSources(disks);
      this.#digests.catch(() => {}); // awaited before anything is believed
      await this.#guestPart(disks);
      if (this.#options.dryRun === true) return await this.#finish(null);
      await this.#digests;
      const rest = this.#remaining(STAGE_NAMES.slice(STAGE_NAMES.indexOf('customize')));
      await this.#planAll(rest);
      let proof: Promise<boolean> | undefined;
      for (const stage of rest) {
        await this.#runStage(stage);
        // nothing reads the source after encoding; prove it unchanged while the verification boots
        if (stage.name === 'encode') proof = this.#sourcesUnchanged(disks);
        proof?.catch(() => {});
      }
      const last = this.#options.until ?? 'upload';
      const unchanged = last === 'upload' ? await (proof ?? this.#sourcesUnchanged(disks)) : null;
      // of a source that was copied, only our copy can be summed
      return await this.#finish(disks.some((d) => d.copied) ? null : unchanged);
    } catch (error) {
      await this.#session?.discard();
      throw error;
    }
  }

  /** Drops done-marks of stages to repeat, of stages whose files are gone, and of everything built on them. */
  async #forget(): Promise<void> {
    const lost = await stagesWithoutFiles(this.#paths, this.#done, this.#options.signal);
    const again = new Set([...(this.#options.repeat ?? []), ...lost]);
    const first = STAGE_NAMES.findIndex((s) => again.has(s));
    if (first === -1) return;
    for (const stage of STAGE_NAMES.slice(first)) {
      if (this.#done.done.has(stage)) {
        await this.#journal.append({ event: 'stage-invalidated', stage, why: 'repeated' });
      }
    }
    this.#done = this.#journal.state();
  }

  #isDone(name: StageName): boolean {
    return this.#done.done.has(name);
  }

  /** Stages of a list that are still to do, up to `until`. */
  #remaining(names: readonly StageName[]): Stage[] {
    const until =
      this.#options.until === undefined ? STAGE_NAMES.length : STAGE_NAMES.indexOf(this.#options.until);
    const todo: Stage[] = [];
    for (const name of names) {
      const stage = stages.find((s) => s.name === name);
      if (stage === undefined || STAGE_NAMES.indexOf(name) > until || !applies(stage, this.#state.request))
        continue;
      if (this.#isDone(name)) this.#options.listener({ event: 'stage-skipped', stage: name });
      else todo.push(stage);
    }
    return todo;
  }

  /** A source that would have to be copied is not copied to plan more: the plan ends with the copy. */
  async #copiesFirst(): Promise<boolean> {
    const [capture] = this.#remaining(['capture']);
    if (capture === undefined) return false;
    await this.#planAll([capture]);
    return (this.#plans.get('capture') as CapturePlan).copies;
  }

  async #capture(): Promise<readonly CapturedDisk[]> {
    for (const stage of this.#remaining(['capture'])) {
      await this.#planAll([stage]);
      await this.#runStage(stage);
    }
    const { disks } = this.#state.results.get('capture') as CaptureResult;
    if (disks.length === 0) throw new PortError('BUG', 'capture found no disk');
    return disks;
  }

  /** Sums each disk; one after the other, because they usually share one drive. Throws SOURCE_CHANGED. */
  async #checkSources(disks: readonly CapturedDisk[]): Promise<Map<string, SourceDigest>> {
    const digests = new Map<string, SourceDigest>();
    for (const { id, path: file, fileBytes } of disks) {
      const known = this.#done.sources.get(id) ?? this.#done.sources.get('');
      const digest = await sourceDigest(file, { signal: this.#options.signal, kind: known?.kind });
      if (known === undefined) {
        const { sha256, kind } = digest;
        await this.#journal.append({ event: 'source-digest', disk: id, sha256, kind, fileBytes });
      } else if (digest.sha256 !== known.sha256) {
        throw new PortError('SOURCE_CHANGED', `${file} changed since this job began`, {
          hint: 'start a new job from the source as it is now',
        });
      }
      digests.set(id, digest);
    }
    return digests;
  }

  async #sourcesUnchanged(disks: readonly CapturedDisk[]): Promise<boolean> {
    const before = await this.#digests;
    for (const { id, path: file } of disks) {
      const was = before?.get(id);
      const now = await sourceDigest(file, { signal: this.#options.signal, kind: was?.kind });
      if (was?.sha256 !== now.sha256) {
        throw new PortError('SOURCE_CHANGED', `${file} changed while it was converted`, {
          hint: 'shut the source machine down, or convert a snapshot',
        });
      }
    }
    return true;
  }

  /** inspect and all guest stages, in one appliance launch; nothing is launched when all of it is done. */
  async #guestPart(disks: readonly CapturedDisk[]): Promise<void> {
    const inspect = this.#remaining(['inspect']);
    const edits = this.#remaining(guestStages.map((s) => s.name));
    const pending = inspect.length > 0 || edits.length > 0;
    if (this.#isDone('inspect')) this.#state.facts = await this.#readFacts();
    if (!pending) return;
    const kvm = await probeKvm();
    if (!kvm.usable)
      this.#options.listener({
        event: 'note',
        text: `no KVM (${kvm.reason}): emulation, several times slower`,
      });
    this.#sessionId = `${Date.now().toString(36)}-${process.pid}`;
    await this.#journal.append({ event: 'session-opened', session: this.#sessionId });
    this.#session = await openSession({
      paths: this.#paths,
      disks,
      applianceEnv: libguestfsEnvironment(kvm),
      signal: this.#options.signal,
      log: this.#state.log,
    });
    this.#state.guest = this.#session.guest;
    if (this.#state.facts === undefined) {
      for (const stage of inspect) {
        await this.#planAll([stage]);
        await this.#runStage(stage);
      }
    } else {
      await mountGuest(this.#session.guest, this.#state.facts);
    }
    // everything that can refuse, refuses before the first edit
    if (edits.length > 0) await this.#planAll([...this.#all(guestStages), ...this.#later()]);
    await writeJson(this.#paths.plan, { changes: this.#planned });
    if (this.#options.dryRun === true || edits.length === 0) {
      await this.#session.discard();
    } else {
      // strip writes into the store: a changed source must not overwrite the data sets of the one this job began with
      if (this.#done.sources.size > 0) await this.#digests;
      // the overlay always starts from the source, so all edits are done again, in order
      for (const stage of this.#all(guestStages)) await this.#runStage(stage);
      await this.#digests; // a source that changed under us must not become a work disk
      const work = await this.#session.commit(this.#imageDisks());
      await this.#journal.append({ event: 'session-closed', session: this.#sessionId, disks: work });
      this.#done = this.#journal.state();
    }
    this.#session = undefined;
    this.#sessionId = undefined;
    this.#state.guest = undefined;
  }

  /** Ids of the disks that become images; the others end with the session. */
  #imageDisks(): string[] {
    const { facts } = this.#state;
    if (facts === undefined) throw new PortError('BUG', 'a session ended without facts');
    return workDisks(this.#paths, facts).map((d) => d.id);
  }

  async #readFacts(): Promise<Facts> {
    return Facts.parse(JSON.parse(await fs.readFile(this.#paths.facts, 'utf8')));
  }

  #all(list: readonly Stage[]): Stage[] {
    const until =
      this.#options.until === undefined ? STAGE_NAMES.length : STAGE_NAMES.indexOf(this.#options.until);
    return list.filter((s) => applies(s, this.#state.request) && STAGE_NAMES.indexOf(s.name) <= until);
  }

  /** Stages after the session, planned with the guest stages so that they refuse before the first edit. */
  #later(): Stage[] {
    return this.#all(
      stages.filter((s) => !s.inGuest && STAGE_NAMES.indexOf(s.name) > STAGE_NAMES.indexOf('trim')),
    );
  }

  async #planAll(list: readonly Stage[]): Promise<void> {
    for (const stage of list) {
      if (this.#plans.has(stage.name)) continue;
      const { context, changes, warnings } = stageContext(this.#state, stage.name, true);
      this.#options.signal.throwIfAborted();
      const plan = await this.#guarded(stage, () => stage.plan(context));
      this.#plans.set(stage.name, plan);
      this.#planned.push(...changes);
      for (const text of warnings) {
        this.#state.log.info('plan', { stage: stage.name, text });
        // a run tells them when it does what was planned
        if (this.#options.dryRun !== true) continue;
        this.#options.listener({ event: 'warning', stage: stage.name, text });
        this.#warnings.push(text);
      }
    }
  }

  async #runStage(stage: Stage): Promise<void> {
    const { name } = stage;
    const session = stage.inGuest ? this.#sessionId : undefined;
    const started = performance.now();
    const all = stages.filter((s) => applies(s, this.#state.request));
    this.#options.signal.throwIfAborted();
    this.#options.listener({
      event: 'stage-started',
      stage: name,
      index: all.indexOf(stage) + 1,
      total: all.length,
    });
    await this.#journal.append({
      event: 'stage-started',
      stage: name,
      ...(session === undefined ? {} : { session }),
    });
    const { context, changes, warnings } = stageContext(this.#state, name, false);
    const result = await this.#guarded(stage, () => stage.run(context, this.#plans.get(name)));
    this.#state.results.set(name, result);
    let digest: string | undefined;
    if (name === 'inspect') {
      this.#state.facts = await this.#readFacts();
      digest = await sha256File(this.#paths.facts);
    }
    const seconds = Number(((performance.now() - started) / 1000).toFixed(2));
    await this.#journal.append({
      event: 'stage-done',
      stage: name,
      seconds,
      result: result ?? null,
      changes,
      warnings,
      ...(session === undefined ? {} : { session }),
      ...(digest === undefined ? {} : { digest }),
    });
    this.#state.log.info('stage done', {
      stage: name,
      seconds,
      peakRssBytes: process.resourceUsage().maxRSS * 1024,
    });
    this.#options.listener({ event: 'stage-done', stage: name, seconds });
  }

  /** Runs a part of a stage; a failure is journaled under the stage's name. */
  async #guarded<T>(stage: Stage, part: () => Promise<T>): Promise<T> {
    try {
      return await part();
    } catch (error) {
      const known = asPortError(error);
      await this.#journal.append({
        event: 'stage-failed',
        stage: stage.name,
        code: known.code,
        message: known.message,
      });
      throw known;
    }
  }

  async #finish(unchanged: boolean | null): Promise<RunOutcome> {
    const whole = this.#options.dryRun !== true && this.#options.until === undefined;
    if (whole) await this.#journal.append({ event: 'run-done', ok: true, sourceUnchanged: unchanged });
    const { entries } = this.#journal;
    const summary = await summarize(this.#paths, this.#state.request, entries);
    if (whole) {
      const proofs = (this.#state.results.get('verify') ?? []) as Verification[];
      await writeReport(this.#paths, summary, changesOf(entries), proofs);
    }
    return { summary, planned: this.#planned, warnings: this.#warnings };
  }
}

const guestStages = stages.filter((s) => s.inGuest && s.name !== 'inspect');

/** Stages a request does not need at all. */
function applies(stage: Stage, request: Request): boolean {
  if (stage.name === 'customize') return request.customize !== undefined;
  if (stage.name === 'verify') return request.verify;
  return true;
}
