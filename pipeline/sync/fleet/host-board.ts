/** What a worker does right now, kept in the queue so that `queue status` can tell which host has a job. */
import type { HostData } from './jobs.ts';
import { PARTS } from './jobs.ts';
import type { Queue } from './queue.ts';

/** One worker's entry. Best effort: work never waits for it. */
export class HostBoard {
  readonly #queue: Queue;
  readonly #data: HostData;
  readonly #key: string;
  #writing: Promise<void> | undefined;
  #isOutdated = false;

  constructor(queue: Queue, facts: Pick<HostData, 'name' | 'lanes'>) {
    this.#queue = queue;
    this.#data = { ...facts, pid: process.pid, startedAt: new Date().toISOString(), jobs: [] };
    this.#key = `${facts.name}/${process.pid}`;
  }

  /** Writes the entry for the first time. Throws QUEUE. */
  async show(): Promise<void> {
    await this.#write().catch((error: unknown) => {
      throw this.#queue.error(error);
    });
  }

  began(id: string): void {
    this.#data.jobs.push({ id, startedAt: new Date().toISOString() });
    this.#update();
  }

  ended(id: string): void {
    this.#data.jobs = this.#data.jobs.filter((job) => job.id !== id);
    this.#update();
  }

  /** Takes the entry away. */
  async remove(): Promise<void> {
    await this.#writing;
    const rows = await this.#queue.boss.findJobs(PARTS.host, { key: this.#key }).catch(() => []);
    if (rows.length > 0)
      await this.#queue.boss
        .deleteJob(
          PARTS.host,
          rows.map(({ id }) => id),
        )
        .catch(() => {});
  }

  async #write(): Promise<void> {
    await this.#queue.boss.upsert(PARTS.host, this.#data, { singletonKey: this.#key });
  }

  /** Many short jobs make few writes: while one is under way the next waits, with the newest state. */
  #update(): void {
    this.#isOutdated = true;
    this.#writing ??= (async () => {
      while (this.#isOutdated) {
        this.#isOutdated = false;
        await this.#write().catch(() => {});
      }
      this.#writing = undefined;
    })();
  }
}
