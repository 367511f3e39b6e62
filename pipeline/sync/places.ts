/** Sources and targets of a sync file, opened when they are needed. */
import * as path from 'node:path';
import { asPortError, PortError } from '../../core/errors.ts';
import type { SourceConfig, TargetConfig } from '../../core/sync/config.ts';
import type { SyncContext, SyncPlan, SyncSource, SyncTarget } from '../../core/sync/types.ts';
import { openAwsTarget } from '../../drivers/aws/sync/target.ts';
import { openAzureTarget } from '../../drivers/azure/sync/target.ts';
import { openGcpTarget } from '../../drivers/gcp/sync/target.ts';
import { openGlanceSource } from '../../drivers/openstack/sync/source.ts';
import { openOpenstackTarget } from '../../drivers/openstack/sync/target.ts';
import type { SyncFile } from './perform-types.ts';
import { matches } from './rules.ts';
import { type DigestCache, openFolderSource } from './sources/folder.ts';
import { openJobSource } from './sources/job.ts';
import { openServersSource } from './sources/servers.ts';

/** What opening a place needs. */
export interface PlacesOptions {
  /** State folder of the sync. */
  stateDir: string;
  digests: DigestCache;
  /** `RUN@PLACE`; of one place only one run is alive. */
  owner: string;
  signal: AbortSignal;
}

type OpenTarget = (
  name: string,
  config: TargetConfig,
  facts: { sync: string; stateDir: string; owner: string; staleAfterMs: number; signal: AbortSignal },
) => Promise<SyncTarget>;

/** Clients by platform. A new one is one line here. */
const TARGETS: Readonly<Record<TargetConfig['platform'], OpenTarget>> = {
  openstack: openOpenstackTarget,
  aws: openAwsTarget,
  azure: openAzureTarget,
  gcp: openGcpTarget,
};

/** One that could not be opened is tried again after this time: a worker lives for months, and its clouds come back. */
const FORGET_MS = 60_000;

/** Places that are open. Each is opened once; one that cannot be opened is told the same way for a minute. Close it. */
export class Places {
  readonly #file: SyncFile;
  readonly #options: PlacesOptions;
  readonly #sources = new Map<string, Promise<SyncSource>>();
  readonly #targets = new Map<string, Promise<SyncTarget>>();
  readonly #failedAt = new Map<Promise<unknown>, number>();

  constructor(file: SyncFile, options: PlacesOptions) {
    this.#file = file;
    this.#options = options;
  }

  /** Throws CONFIG, CLOUD_LOGIN, CLOUD_REFUSED, CLOUD, SOURCE_REMOTE. */
  source(name: string): Promise<SyncSource> {
    const known = this.#sources.get(name);
    if (known !== undefined && !this.#isForgotten(known)) return known;
    const config = this.#file.config.sources[name];
    const opened =
      config === undefined
        ? Promise.reject(new PortError('BUG', `no source ${name}`))
        : this.#openSource(name, config);
    this.#remember(opened);
    this.#sources.set(name, opened);
    return opened;
  }

  /** Throws CONFIG, CLOUD_LOGIN, CLOUD_REFUSED, CLOUD. */
  target(name: string): Promise<SyncTarget> {
    const known = this.#targets.get(name);
    if (known !== undefined && !this.#isForgotten(known)) return known;
    const config = this.#file.config.targets[name];
    const { stateDir, owner, signal } = this.#options;
    const opened =
      config === undefined
        ? Promise.reject(new PortError('BUG', `no target ${name}`))
        : TARGETS[config.platform](name, config, {
            sync: this.#file.config.sync,
            stateDir: path.join(stateDir, 'targets', name),
            owner,
            staleAfterMs: this.#file.config.staleAfter,
            signal,
          });
    this.#remember(opened);
    this.#targets.set(name, opened);
    return opened;
  }

  #remember(opened: Promise<unknown>): void {
    opened.catch(() => this.#failedAt.set(opened, performance.now()));
  }

  #isForgotten(opened: Promise<unknown>): boolean {
    const failedAt = this.#failedAt.get(opened);
    if (failedAt === undefined || performance.now() - failedAt < FORGET_MS) return false;
    this.#failedAt.delete(opened);
    return true;
  }

  async #openSource(name: string, config: SourceConfig): Promise<SyncSource> {
    const { digests, signal } = this.#options;
    const base = path.dirname(this.#file.path);
    if ('glance' in config) return openGlanceSource(name, config, { signal, matches });
    if ('job' in config) return openJobSource(name, config, { base, digests });
    if ('folder' in config) return openFolderSource(name, config, { base, digests });
    return openServersSource(name, config, { base, digests });
  }

  /** Requests sent so far, by target. */
  async calls(): Promise<Record<string, number>> {
    const calls: Record<string, number> = {};
    for (const [name, opened] of this.#targets) {
      const target = await opened.catch(() => undefined);
      calls[name] = target?.calls() ?? 0;
    }
    return calls;
  }

  /** Ends all connections; never throws. */
  async close(): Promise<void> {
    const all = [...this.#sources.values(), ...this.#targets.values()];
    await Promise.allSettled(all.map(async (opened) => (await opened).close()));
  }
}

/** An error of a place, as a plan and a report have it. */
export function unreachable(
  kind: 'source' | 'target',
  name: string,
  error: unknown,
): SyncPlan['unreachable'][number] {
  const { code, message, hint } = asPortError(error);
  return { kind, name, code, message, ...(hint === undefined ? {} : { hint }) };
}

/** A context whose warnings and progress say which place they are of. */
export function inPlace(ctx: SyncContext, place: string): SyncContext {
  return {
    ...ctx,
    progress: (event) =>
      ctx.progress(event.text === undefined ? event : { ...event, text: `${place}: ${event.text}` }),
    warn: (text) => ctx.warn(`${place}: ${text}`),
  };
}
