/**
 * The journal of a job: one JSON object per line, appended and flushed. A kill can only cut the last line, so reading
 * keeps every whole line and drops a cut tail; a broken line before the end means somebody changed the file.
 */
import * as fs from 'node:fs/promises';
import { PortError } from '../core/errors.ts';
import { FILE_MODE } from '../core/files.ts';
import { type Change, STAGE_NAMES, type StageName } from '../core/stage.ts';

/** One line of `journal.jsonl`. `at` is ISO 8601 in UTC. */
export type JournalEntry = { at: string } & JournalEvent;

/** What can happen in a job. */
export type JournalEvent =
  | { event: 'run-started'; pid: number; version: string }
  /** One for each disk; the only disk of older jobs has no id. */
  | { event: 'source-digest'; disk?: string; sha256: string; kind: 'plain' | 'blocks'; fileBytes: number }
  | { event: 'session-opened'; session: string }
  | {
      event: 'session-closed';
      session: string;
      /** Work disks by id. */
      disks?: { disk: string; sha256: string; bytes: number }[];
      /** The only work disk of an older job. */
      workSha256?: string;
      workBytes?: number;
    }
  | { event: 'stage-started'; stage: StageName; session?: string }
  | {
      event: 'stage-done';
      stage: StageName;
      seconds: number;
      result: unknown;
      changes: Change[];
      warnings: string[];
      session?: string;
      /** sha256 of `facts.json` or of the work disk this stage wrote, when it wrote one. */
      digest?: string;
    }
  | { event: 'stage-failed'; stage: StageName; code: string; message: string }
  | { event: 'stage-invalidated'; stage: StageName; why: string }
  | { event: 'run-done'; ok: boolean; sourceUnchanged: boolean | null };

/** What the journal says is true now. */
export interface JobState {
  /** Last valid `stage-done` per stage. */
  done: Map<StageName, Extract<JournalEntry, { event: 'stage-done' }>>;
  /** Closing of the session whose overlay is the job's work disk. */
  work: Extract<JournalEntry, { event: 'session-closed' }> | undefined;
  /** By id of the disk; '' is the only disk of an older job. */
  sources: Map<string, Extract<JournalEntry, { event: 'source-digest' }>>;
  applianceLaunches: number;
  finished: boolean;
}

/** Reads the whole lines of a journal. Throws JOB_TAMPERED when a line before the last is broken. */
export function parseJournal(text: string): JournalEntry[] {
  const lines = text.split('\n');
  const entries: JournalEntry[] = [];
  for (const [index, line] of lines.entries()) {
    if (line === '') continue;
    let entry: unknown;
    try {
      entry = JSON.parse(line);
    } catch (error) {
      if (index === lines.length - 1) break; // cut by a kill
      throw new PortError('JOB_TAMPERED', `line ${index + 1} of the journal is broken`, {
        cause: error,
        hint: 'start a new job; this folder cannot be trusted',
      });
    }
    if (index === lines.length - 1) break; // whole JSON but no newline: it was never flushed as done
    if (typeof entry !== 'object' || entry === null || typeof (entry as JournalEntry).event !== 'string') {
      throw new PortError('JOB_TAMPERED', `line ${index + 1} of the journal is no event`);
    }
    entries.push(entry as JournalEntry);
  }
  return entries;
}

/** Folds entries into what is true now. Guest stages only count when their session closed cleanly. */
export function replay(entries: readonly JournalEntry[]): JobState {
  const state: JobState = {
    done: new Map(),
    work: undefined,
    sources: new Map(),
    applianceLaunches: 0,
    finished: false,
  };
  const pending = new Map<string, Extract<JournalEntry, { event: 'stage-done' }>[]>();
  for (const entry of entries) {
    switch (entry.event) {
      case 'source-digest':
        state.sources.set(entry.disk ?? '', entry);
        break;
      case 'session-opened':
        state.applianceLaunches += 1;
        pending.set(entry.session, []);
        break;
      case 'stage-done':
        // inspect leaves facts.json, which does not depend on the overlay
        if (entry.stage === 'customize') state.applianceLaunches += 1; // virt-customize launches its own
        if (entry.session === undefined || entry.stage === 'inspect') state.done.set(entry.stage, entry);
        else pending.get(entry.session)?.push(entry);
        break;
      case 'session-closed':
        state.work = entry;
        for (const done of pending.get(entry.session) ?? []) state.done.set(done.stage, done);
        invalidateAfterGuest(state);
        break;
      case 'stage-invalidated':
        state.done.delete(entry.stage);
        if (entry.stage === 'capture') state.sources.clear();
        break;
      case 'run-done':
        state.finished = entry.ok;
        break;
      case 'run-started':
        state.finished = false;
        break;
      default:
        break;
    }
  }
  return state;
}

/** A new work disk makes everything built from an older one worthless. */
function invalidateAfterGuest(state: JobState): void {
  for (const stage of STAGE_NAMES.slice(STAGE_NAMES.indexOf('customize'))) state.done.delete(stage);
}

/** The journal file of an open job. */
export class Journal {
  readonly #path: string;
  readonly #entries: JournalEntry[];
  #handle: fs.FileHandle | undefined;

  private constructor(path: string, entries: JournalEntry[]) {
    this.#path = path;
    this.#entries = entries;
  }

  /** Opens or creates a journal; a tail cut by a kill is removed from the file. */
  static async open(path: string): Promise<Journal> {
    const text = await fs.readFile(path, 'utf8').catch((error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') return '';
      throw error;
    });
    const entries = parseJournal(text);
    const journal = new Journal(path, entries);
    journal.#handle = await fs.open(path, 'a', FILE_MODE);
    const keep = Buffer.byteLength(text.slice(0, text.lastIndexOf('\n') + 1));
    if (keep < Buffer.byteLength(text)) await journal.#handle.truncate(keep);
    return journal;
  }

  get entries(): readonly JournalEntry[] {
    return this.#entries;
  }

  /** Appends and flushes: when this returns, the event survives a power loss. */
  async append(event: JournalEvent): Promise<void> {
    const entry = { at: new Date().toISOString(), ...event } as JournalEntry;
    if (this.#handle === undefined) throw new PortError('BUG', `journal ${this.#path} is closed`);
    await this.#handle.appendFile(`${JSON.stringify(entry)}\n`);
    await this.#handle.datasync();
    this.#entries.push(entry);
  }

  state(): JobState {
    return replay(this.#entries);
  }

  async close(): Promise<void> {
    await this.#handle?.close();
    this.#handle = undefined;
  }
}
