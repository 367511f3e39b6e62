/**
 * Questions pg-boss has no call for, each as one SELECT on its table of jobs: many jobs by their keys or ids, and counts. They only
 * read; whatever changes a job goes through pg-boss.
 */
import type { PgBoss } from 'pg-boss';
import { DEAD, KINDS, PARTS, SCHEMA } from './jobs.ts';

/** State of a job in the queue. */
export type JobState = 'created' | 'retry' | 'active' | 'completed' | 'cancelled' | 'failed';

/** A job somebody waits for or works on. */
export interface HeldJob {
  id: string;
  key: string;
  state: JobState;
  retryCount: number;
}

/** A job that came to an end. */
export interface EndedJob {
  id: string;
  state: 'completed' | 'cancelled' | 'failed';
  runId: string;
  retryCount: number;
  output: unknown;
  data: unknown;
}

/** Jobs of these keys that wait or run. The index of the policy `exclusive` answers it. */
export async function heldJobs(boss: PgBoss, name: string, keys: readonly string[]): Promise<HeldJob[]> {
  const { rows } = await boss.getDb().executeSql(
    `SELECT id, singleton_key AS key, state, retry_count AS "retryCount" FROM ${SCHEMA}.job
     WHERE name = $1 AND policy = 'exclusive' AND state <= 'active' AND COALESCE(singleton_key, '') = ANY($2::text[])`,
    [name, keys],
  );
  return rows as HeldJob[];
}

/** How many running jobs of the same group were taken before this one. */
export async function takenBefore(boss: PgBoss, name: string, id: string): Promise<number> {
  const { rows } = await boss.getDb().executeSql(
    `SELECT count(*)::int AS count FROM ${SCHEMA}.job mine JOIN ${SCHEMA}.job other
       ON other.name = mine.name AND other.group_id = mine.group_id AND other.state = 'active'
     WHERE mine.name = $1 AND mine.id = $2 AND (other.started_on, other.id) < (mine.started_on, mine.id)`,
    [name, id],
  );
  return (rows[0] as { count: number }).count;
}

const ENDED = `id, state, retry_count AS "retryCount", output, data, data->>'runId' AS "runId"`;

/** Jobs that ended since a moment of the server's clock, and that moment for the next question. */
export async function endedSince(
  boss: PgBoss,
  name: string,
  since: string,
): Promise<{ jobs: EndedJob[]; now: string }> {
  const db = boss.getDb();
  // Asked before the jobs, and some seconds back: what was committed late is seen the next time.
  const { rows: clock } = await db.executeSql(`SELECT (now() - interval '10 seconds')::text AS now`);
  const now = (clock[0] as { now: string }).now;
  if (since === '') return { jobs: [], now };
  const { rows } = await db.executeSql(
    `SELECT ${ENDED} FROM ${SCHEMA}.job
     WHERE name = $1 AND completed_on >= $2::timestamptz AND state > 'active'`,
    [name, since],
  );
  return { jobs: rows as EndedJob[], now };
}

/** Those of these jobs that ended. */
export async function endedOf(boss: PgBoss, name: string, ids: readonly string[]): Promise<EndedJob[]> {
  const { rows } = await boss
    .getDb()
    .executeSql(
      `SELECT ${ENDED} FROM ${SCHEMA}.job WHERE name = $1 AND id = ANY($2::uuid[]) AND state > 'active'`,
      [name, ids],
    );
  return rows as EndedJob[];
}

/** Those of these jobs that are known to the queue at all, with their state and run. */
export async function jobsOf(
  boss: PgBoss,
  name: string,
  ids: readonly string[],
): Promise<{ id: string; state: JobState; runId: string }[]> {
  const { rows } = await boss
    .getDb()
    .executeSql(
      `SELECT id, state, data->>'runId' AS "runId" FROM ${SCHEMA}.job WHERE name = $1 AND id = ANY($2::uuid[])`,
      [name, ids],
    );
  return rows as { id: string; state: JobState; runId: string }[];
}

/** A running or waiting job, for people. */
export interface ListedJob {
  id: string;
  name: string;
  state: JobState;
  data: unknown;
  retryCount: number;
  seconds: number;
  silentSeconds: number | null;
}

/** Jobs that wait or run, of one sync or of all; the oldest first. */
export async function openJobs(boss: PgBoss, states: readonly JobState[]): Promise<ListedJob[]> {
  const { rows } = await boss.getDb().executeSql(
    `SELECT id, name, state, data, retry_count AS "retryCount",
       extract(epoch FROM now() - COALESCE(started_on, created_on))::float AS seconds,
       extract(epoch FROM now() - heartbeat_on)::float AS "silentSeconds"
     FROM ${SCHEMA}.job WHERE name = ANY($1::text[]) AND state::text = ANY($2::text[])
     ORDER BY created_on, id LIMIT 100000`,
    [KINDS.map((kind) => PARTS[kind]), states],
  );
  return rows as ListedJob[];
}

/** How many jobs of each part are in each state. */
export async function jobCounts(boss: PgBoss): Promise<{ name: string; state: JobState; count: number }[]> {
  const names = KINDS.flatMap((kind) => [PARTS[kind], DEAD[kind]]);
  const { rows } = await boss
    .getDb()
    .executeSql(
      `SELECT name, state, count(*)::int AS count FROM ${SCHEMA}.job WHERE name = ANY($1::text[]) GROUP BY 1, 2`,
      [names],
    );
  return rows as { name: string; state: JobState; count: number }[];
}
