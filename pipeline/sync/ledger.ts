/**
 * What this machine remembers of a sync, in SQLite. It is a cache: the clouds say what is there, the report of each run what was done. It may
 * be deleted at any time; what was read once is then read again, and the runs are taken up from their reports.
 */
import * as fs from 'node:fs';
import * as path from 'node:path';
import type { DatabaseSync } from 'node:sqlite';
import { FILE_MODE } from '../../core/files.ts';
import type { SyncOutcome, SyncReport } from '../../core/sync/types.ts';
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

  /** Opens or makes it. One that is damaged or of another version is set aside, and made anew from the reports. */
  static async open(stateDir: string): Promise<Ledger> {
    const file = path.join(stateDir, FILE);
    const Database = await sqlite();
    const isNew = !fs.existsSync(file);
    try {
      const ledger = new Ledger(prepare(new Database(file)));
      if (isNew) ledger.#takeUp(stateDir);
      return ledger;
    } catch {
      for (const end of ['-wal', '-shm']) fs.rmSync(`${file}${end}`, { force: true });
      if (fs.existsSync(file)) fs.renameSync(file, `${file}.damaged`);
      const ledger = new Ledger(prepare(new Database(file)));
      ledger.#takeUp(stateDir);
      return ledger;
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
    this.#db
      .prepare('INSERT OR REPLACE INTO content VALUES (?, ?, ?)')
      .run(fileDigest, rawSha256, virtualBytes);
  }

  /** Digests of files by all that tells one state of a file from another. */
  readonly digests: DigestCache = {
    get: (key) => {
      const row = this.#db.prepare('SELECT value FROM digest WHERE key = ?').get(key);
      return row === undefined ? undefined : String(row.value);
    },
    set: (key, value) => {
      this.#db.prepare('INSERT OR REPLACE INTO digest VALUES (?, ?)').run(key, value);
    },
  };

  /** Keeps a run with its outcomes; saving it again replaces it. */
  saveRun(report: SyncReport): void {
    const { outcomes, ...rest } = report;
    this.#db.exec('BEGIN IMMEDIATE');
    try {
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
      this.#db.exec('ROLLBACK');
      throw error;
    }
  }

  /** Newest first, with their outcomes. */
  runs(limit: number): SyncReport[] {
    const rows = this.#db
      .prepare('SELECT id, report FROM run ORDER BY started_at DESC, id DESC LIMIT ?')
      .all(limit);
    return rows.map((row) => {
      const report = JSON.parse(String(row.report)) as SyncReport;
      return { ...report, outcomes: this.outcomesOf(String(row.id)) };
    });
  }

  outcomesOf(run: string): SyncOutcome[] {
    const rows = this.#db.prepare('SELECT outcome FROM outcome WHERE run = ? ORDER BY rowid').all(run);
    return rows.map((row) => JSON.parse(String(row.outcome)) as SyncOutcome);
  }

  /** Newest outcome of each image in each target, whatever run it is of. */
  newest(): { startedAt: string; outcome: SyncOutcome }[] {
    const rows = this.#db
      .prepare(
        `SELECT started_at, outcome FROM (SELECT *, row_number() OVER (PARTITION BY target, series ORDER BY started_at DESC,
           CASE result WHEN 'failed' THEN 0 WHEN 'deferred' THEN 1 WHEN 'changed' THEN 2 ELSE 3 END, rowid DESC) AS place
         FROM outcome WHERE verb NOT IN ('hide', 'delete')) WHERE place = 1 ORDER BY series, target`,
      )
      .all();
    return rows.map((row) => ({
      startedAt: String(row.started_at),
      outcome: JSON.parse(String(row.outcome)) as SyncOutcome,
    }));
  }

  /** Images whose newest outcome in a target failed. */
  lastFailures(): { series: string; target: string }[] {
    return this.newest()
      .filter(({ outcome }) => outcome.result === 'failed' || outcome.result === 'deferred')
      .map(({ outcome }) => ({ series: outcome.action.series, target: outcome.action.target }));
  }

  close(): void {
    this.#db.close();
  }
}

function prepare(db: DatabaseSync): DatabaseSync {
  try {
    db.exec(`PRAGMA busy_timeout = ${BUSY_MS}`);
    db.exec('PRAGMA journal_mode = WAL');
    const version = Number(db.prepare('PRAGMA user_version').get()?.user_version ?? 0);
    if (version !== 0 && version !== SCHEMA) throw new Error('another version');
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
