/**
 * What this machine remembers of a sync, in SQLite. It is a cache: the clouds say what is there, the report of each run what was done. It may
 * be deleted at any time; what was read once is then read again, and the runs are taken up from their reports.
 */
import * as fs from 'node:fs';
import * as path from 'node:path';
import type { DatabaseSync } from 'node:sqlite';
import { PortError } from '../../core/errors.ts';
import { FILE_MODE } from '../../core/files.ts';
import type { SyncOutcome, SyncReport } from '../../core/sync/types.ts';
import { compareVersions } from '../../core/sync/versions.ts';
import type { DigestCache } from './sources/file-digest.ts';

const FILE = 'ledger.sqlite';
/** Another one is begun anew. */
const SCHEMA = 1;
const BUSY_MS = 10_000;
/** Runs that are kept, and reports that are taken up again when the ledger is lost. */
const MOST_RUNS = 400;

const TABLES = `
CREATE TABLE IF NOT EXISTS content (file_digest TEXT PRIMARY KEY, raw_sha256 TEXT NOT NULL, virtual_bytes INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS digest (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS run (id TEXT PRIMARY KEY, started_at TEXT NOT NULL, report TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS outcome (run TEXT NOT NULL, started_at TEXT NOT NULL, target TEXT NOT NULL, series TEXT NOT NULL,
  version TEXT NOT NULL, verb TEXT NOT NULL, result TEXT NOT NULL, outcome TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS outcome_of ON outcome (target, series, started_at);
CREATE INDEX IF NOT EXISTS outcome_in ON outcome (run);
`;

/** Opened by one process at a time for writing; others may read beside it. */
export class Ledger {
  readonly #db: DatabaseSync;

  private constructor(db: DatabaseSync) {
    this.#db = db;
  }

  /**
   * Opens or makes it. One that is damaged or of another version is set aside, and made anew from the reports; one that cannot be
   * opened for another reason stays as it is. Throws DISK_SPACE, HOST_IO.
   */
  static async open(stateDir: string): Promise<Ledger> {
    const file = path.join(stateDir, FILE);
    const Database = await sqlite();
    const isNew = !fs.existsSync(file);
    try {
      const ledger = new Ledger(prepare(new Database(file)));
      if (isNew) ledger.#takeUp(stateDir);
      return ledger;
    } catch (error) {
      if (!isDamage(error)) throw asHostError(error);
      for (const end of ['-wal', '-shm']) fs.rmSync(`${file}${end}`, { force: true });
      if (fs.existsSync(file)) fs.renameSync(file, `${file}.damaged`);
      try {
        const ledger = new Ledger(prepare(new Database(file)));
        ledger.#takeUp(stateDir);
        return ledger;
      } catch (again) {
        throw asHostError(again);
      }
    }
  }

  #takeUp(stateDir: string): void {
    const runs = path.join(stateDir, 'runs');
    const names = fs.existsSync(runs) ? fs.readdirSync(runs).sort().slice(-MOST_RUNS) : [];
    for (const name of names) {
      const report = readReport(path.join(runs, name, 'report.json'));
      if (report !== undefined) this.saveRun(report);
    }
  }

  /** What a file of this digest shows, when it was read once. */
  rawOf(fileDigest: string): { rawSha256: string; virtualBytes: number } | undefined {
    const row = this.#db
      .prepare('SELECT raw_sha256, virtual_bytes FROM content WHERE file_digest = ?')
      .get(fileDigest);
    return row === undefined
      ? undefined
      : { rawSha256: String(row.raw_sha256), virtualBytes: Number(row.virtual_bytes) };
  }

  rememberRaw(
    fileDigest: string,
    { rawSha256, virtualBytes }: { rawSha256: string; virtualBytes: number },
  ): void {
    this.#remember('INSERT OR REPLACE INTO content VALUES (?, ?, ?)', fileDigest, rawSha256, virtualBytes);
  }

  /** What cannot be written is read again by the next run: no reason to fail. */
  #remember(statement: string, ...values: (string | number)[]): void {
    try {
      this.#db.prepare(statement).run(...values);
    } catch (error) {
      if (resultOf(error) === undefined) throw error;
    }
  }

  /** Digests of files by all that tells one state of a file from another. */
  readonly digests: DigestCache = {
    get: (key) => {
      const row = this.#db.prepare('SELECT value FROM digest WHERE key = ?').get(key);
      return row === undefined ? undefined : String(row.value);
    },
    set: (key, value) => {
      this.#remember('INSERT OR REPLACE INTO digest VALUES (?, ?)', key, value);
    },
  };

  /** Keeps a run with its outcomes; saving it again replaces it. Throws DISK_SPACE, HOST_IO. */
  saveRun(report: SyncReport): void {
    const { outcomes, ...rest } = report;
    try {
      this.#db.exec('BEGIN IMMEDIATE');
      this.#db.prepare('DELETE FROM outcome WHERE run = ?').run(report.run);
      this.#db
        .prepare('INSERT OR REPLACE INTO run VALUES (?, ?, ?)')
        .run(report.run, report.startedAt, JSON.stringify({ ...rest, outcomes: [] }));
      const add = this.#db.prepare('INSERT INTO outcome VALUES (?, ?, ?, ?, ?, ?, ?, ?)');
      for (const outcome of outcomes) {
        const { target, series, version, verb } = outcome.action;
        add.run(
          report.run,
          report.startedAt,
          target,
          series,
          version,
          verb,
          outcome.result,
          JSON.stringify(outcome),
        );
      }
      const old = 'SELECT id FROM run ORDER BY started_at DESC, id DESC LIMIT -1 OFFSET ?';
      this.#db.prepare(`DELETE FROM outcome WHERE run IN (${old})`).run(MOST_RUNS);
      this.#db.prepare(`DELETE FROM run WHERE id IN (${old})`).run(MOST_RUNS);
      this.#db.exec('COMMIT');
    } catch (error) {
      // Of some errors SQLite has taken everything back itself.
      if (this.#db.isTransaction) this.#db.exec('ROLLBACK');
      throw asHostError(error);
    }
  }

  /** Newest first, with their outcomes. */
  runs(limit: number): SyncReport[] {
    const rows = this.#db
      .prepare('SELECT id, report FROM run ORDER BY started_at DESC, id DESC LIMIT ?')
      .all(limit);
    return rows.map((row) => {
      const report = JSON.parse(String(row.report)) as SyncReport;
      // Reports of earlier releases do not have all fields.
      const { leftOut = [], partial = false } = report as Partial<SyncReport>;
      return { ...report, leftOut, partial, outcomes: this.outcomesOf(String(row.id)) };
    });
  }

  outcomesOf(run: string): SyncOutcome[] {
    const rows = this.#db.prepare('SELECT outcome FROM outcome WHERE run = ? ORDER BY rowid').all(run);
    return rows.map((row) => JSON.parse(String(row.outcome)) as SyncOutcome);
  }

  /**
   * Newest outcome of each version in each target, whatever run it is of; newer versions first. Versions that were deleted are not
   * among them, nor failures of earlier runs that no later one came back to.
   */
  newest(): { startedAt: string; outcome: SyncOutcome }[] {
    const rows = this.#db
      .prepare(
        `SELECT started_at, outcome, started_at = max(started_at) OVER (PARTITION BY target, series) AS is_last
         FROM (SELECT *, row_number() OVER (PARTITION BY target, series, version ORDER BY started_at DESC, rowid DESC) AS place FROM outcome)
         WHERE place = 1 AND NOT (verb = 'delete' AND result IN ('done', 'skipped')) ORDER BY series, target`,
      )
      .all();
    return rows
      .map((row) => ({
        startedAt: String(row.started_at),
        outcome: JSON.parse(String(row.outcome)) as SyncOutcome,
        isLast: row.is_last === 1,
      }))
      .filter(({ outcome, isLast }) => isLast || /^(done|adopted|skipped)$/.test(outcome.result))
      .map(({ startedAt, outcome }) => ({ startedAt, outcome }))
      .sort((a, b) => byImage(a.outcome.action, b.outcome.action));
  }

  /** Images that failed or were put off in the newest run that was about them. */
  lastFailures(): { series: string; target: string }[] {
    return this.newest()
      .filter(({ outcome }) => outcome.result === 'failed' || outcome.result === 'deferred')
      .map(({ outcome }) => ({ series: outcome.action.series, target: outcome.action.target }));
  }

  close(): void {
    this.#db.close();
  }
}

/** The file is sound, and not of this release. */
class OtherVersion extends Error {}

/** SQLite's result codes, https://www.sqlite.org/rescode.html; the low byte is the primary one. */
const SQLITE = { error: 1, corrupt: 11, full: 13, notADatabase: 26 };

function resultOf(error: unknown): number | undefined {
  const { errcode } = error as { errcode?: unknown };
  return typeof errcode === 'number' ? errcode & 0xff : undefined;
}

/** Whether the content is to blame: tables that are not what they were made as count as well. */
function isDamage(error: unknown): boolean {
  const result = resultOf(error);
  return (
    error instanceof OtherVersion ||
    result === SQLITE.corrupt ||
    result === SQLITE.notADatabase ||
    result === SQLITE.error
  );
}

/** What the machine is to blame for: a full disk, a folder that cannot be written to, a lock that is held. */
function asHostError(error: unknown): unknown {
  const result = resultOf(error);
  if (result === undefined) return error;
  const { message } = error as Error;
  return result === SQLITE.full
    ? new PortError('DISK_SPACE', `the ledger of the sync cannot be written: ${message}`, {
        cause: error,
        hint: 'free some space where the state of the sync is; nothing that is known is lost',
      })
    : new PortError('HOST_IO', `the ledger of the sync cannot be used: ${message}`, {
        cause: error,
        hint: 'look at the file system its state is on (full, read-only, failing?)',
      });
}

/** By series, newest version first, then by target. */
function byImage(a: SyncOutcome['action'], b: SyncOutcome['action']): number {
  return (
    a.series.localeCompare(b.series) ||
    compareVersions(b.version, a.version) ||
    a.target.localeCompare(b.target)
  );
}

function prepare(db: DatabaseSync): DatabaseSync {
  try {
    db.exec(`PRAGMA busy_timeout = ${BUSY_MS}`);
    db.exec('PRAGMA journal_mode = WAL');
    const version = Number(db.prepare('PRAGMA user_version').get()?.user_version ?? 0);
    if (version !== 0 && version !== SCHEMA) throw new OtherVersion();
    db.exec(TABLES);
    db.exec(`PRAGMA user_version = ${SCHEMA}`);
    const file = db.location();
    if (file !== null) fs.chmodSync(file, FILE_MODE);
    return db;
  } catch (error) {
    db.close();
    throw error;
  }
}

/** Node tells everybody that its SQLite is experimental; users of this program cannot do anything about it. */
async function sqlite(): Promise<typeof DatabaseSync> {
  const emit = process.emitWarning;
  process.emitWarning = (...args: unknown[]) => {
    const [warning] = args;
    if (/sqlite/i.test(String(warning))) return;
    Reflect.apply(emit, process, args);
  };
  try {
    return (await import('node:sqlite')).DatabaseSync;
  } finally {
    process.emitWarning = emit;
  }
}

/** A report as it was written; undefined for anything else. */
export function readReport(file: string): SyncReport | undefined {
  try {
    const value = JSON.parse(fs.readFileSync(file, 'utf8')) as SyncReport;
    return value.schema === 'port-image/sync-run/1' && Array.isArray(value.outcomes) ? value : undefined;
  } catch {
    return undefined;
  }
}
