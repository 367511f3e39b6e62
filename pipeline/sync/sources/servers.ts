/**
 * Servers as a source: a run captures each again into its job folder, which reads what changed, and converts it as
 * `port-image convert` does. One that fails does not stop the others, and keeps its last good image.
 */
import * as path from 'node:path';
import { asPortError, PortError } from '../../../core/errors.ts';
import type { Request } from '../../../core/request.ts';
import { parseSource } from '../../../core/source.ts';
import type { SourceConfig } from '../../../core/sync/config.ts';
import type {
  FetchedSyncImage,
  LeftOut,
  ListContext,
  SyncContext,
  SyncImage,
  SyncSource,
} from '../../../core/sync/types.ts';
import { printable } from '../../../core/text.ts';
import { buildRequest, ConvertOptions } from '../../request/build.ts';
import type { DigestCache } from './file-digest.ts';
import { eachOnce, type LocalSourceOptions } from './folder.ts';
import { fetchInPlace } from './job.ts';
import { jobImages } from './job-images.ts';
import { readKept } from './kept-images.ts';
import { recapture, serverImage } from './recapture.ts';

/** A source of this kind in the configuration. */
export type ServersConfig = Extract<SourceConfig, { servers: unknown }>;
/** One server of it. */
export type ServerConfig = ServersConfig['servers'][number];

/** A server that could not be captured or converted. */
export type ServerFailure = Omit<LeftOut, 'source'>;

/** A source that makes its images itself. */
export interface ServersSource extends SyncSource {
  /** Captures and converts every server. What fails is told; throws INTERRUPTED alone. */
  refresh(ctx: SyncContext): Promise<ServerFailure[]>;
}

/** Opens it; touches nothing yet. */
export function openServersSource(
  name: string,
  config: ServersConfig,
  options: LocalSourceOptions,
): ServersSource {
  return new Servers(name, config, options);
}

/** Options of `convert` that name files; in a sync file they are relative to it. */
const FILES = ['customize', 'packages', 'sshConfig', 'identity'] as const;

/** The request a server stands for. Throws CONFIG, USAGE. */
export async function serverRequest(
  server: ServerConfig,
  base: string,
  store: string | undefined,
): Promise<{ request: Request; dir: string }> {
  const parsed = ConvertOptions.safeParse(server.options);
  if (!parsed.success) {
    const issue = parsed.error.issues[0];
    const field = issue?.path.join('.') ?? '';
    throw new PortError(
      'CONFIG',
      `options of ${server.name}: ${printable(field)}: ${issue?.message ?? 'wrong'}`,
      {
        hint: 'the names are those of the file of port-image convert --config',
      },
    );
  }
  const options = { ...parsed.data };
  for (const key of FILES) {
    const file = options[key];
    if (file !== undefined) options[key] = path.resolve(base, file);
  }
  if (options.to === undefined) {
    throw new PortError('CONFIG', `options of ${server.name}: to: where shall its image run?`, {
      hint: 'name the platforms of the targets: to: openstack, or to: [openstack, aws]',
    });
  }
  const given = options.store ?? store;
  const { request, dir } = await buildRequest(
    absoluteSource(server.source, base),
    // The sync brings the image into clouds, not the conversion.
    { job: path.resolve(base, server.job), verify: true, compare: true, upload: false },
    {
      ...options,
      name: options.name ?? server.name,
      withDisks: options.withDisks?.map((disk) => absoluteSource(disk, base)),
      ...(given === undefined ? {} : { store: absoluteStore(given, base) }),
    },
  );
  return { request, dir };
}

/** A path in a sync file is relative to it, not to where the program runs. */
function absoluteSource(text: string, base: string): string {
  return parseSource(text).kind === 'path' ? path.resolve(base, text) : text;
}

function absoluteStore(url: string, base: string): string {
  const [, file] = /^file:(?!\/)(.+)$/.exec(url) ?? [];
  return file === undefined ? url : `file:${path.resolve(base, file)}`;
}

class Servers implements ServersSource {
  readonly name: string;
  readonly #config: ServersConfig;
  readonly #base: string;
  readonly #digests: DigestCache;
  /** Servers this run has been to, with success or not. */
  readonly #seen = new Set<string>();
  readonly #failed = new Set<string>();

  constructor(name: string, config: ServersConfig, { base, digests }: LocalSourceOptions) {
    this.name = name;
    this.#config = config;
    this.#base = base;
    this.#digests = digests;
  }

  /** What the last good conversion of each gave. Captures nothing. */
  async list(ctx: ListContext): Promise<SyncImage[]> {
    const images: SyncImage[] = [];
    for (const server of this.#config.servers) {
      ctx.signal.throwIfAborted();
      const made = await this.#imagesOf(server, ctx);
      images.push(...made);
      const [system] = made;
      if (system !== undefined && !this.#seen.has(server.name))
        ctx.warn(`${server.name} is captured again by a run; this is its image of ${system.version}`);
    }
    return eachOnce(images, ctx);
  }

  async #imagesOf(server: ServerConfig, ctx: ListContext): Promise<SyncImage[]> {
    const dir = path.resolve(this.#base, server.job);
    try {
      const kept = await readKept(dir);
      // A job somebody converted by hand before it became part of a sync.
      return kept?.images ?? (await jobImages(dir)).map(serverImage);
    } catch (error) {
      const told = asPortError(error);
      if (told.code === 'BUG') throw error;
      // Why it could not be made says more.
      if (this.#failed.has(server.name)) return [];
      if (told.code !== 'JOB_UNKNOWN') ctx.leaveOut(server.name, told);
      else if (!this.#seen.has(server.name)) ctx.warn(`${server.name} has no image yet: a run makes it`);
      return [];
    }
  }

  /** One after the other: a conversion takes the whole machine. */
  async refresh(ctx: SyncContext): Promise<ServerFailure[]> {
    const failures: ServerFailure[] = [];
    for (const server of this.#config.servers) {
      const { name } = server;
      if (ctx.signal.aborted) throw new PortError('INTERRUPTED', 'interrupted');
      try {
        const { request, dir } = await serverRequest(server, this.#base, this.#config.store);
        await recapture(name, dir, request, ctx);
      } catch (error) {
        if (ctx.signal.aborted) throw new PortError('INTERRUPTED', 'interrupted', { cause: error });
        const { code, message, hint } = asPortError(error);
        ctx.log.warn('server not captured', { server: name, code, message });
        failures.push({ what: name, code, message, hint });
        this.#failed.add(name);
      }
      this.#seen.add(name);
    }
    return failures;
  }

  /** The file itself, when it is still what the conversion wrote. Throws SOURCE_CHANGED. */
  fetch(image: SyncImage, _dir: string, { signal }: SyncContext): Promise<FetchedSyncImage> {
    return fetchInPlace(image, this.#digests, signal);
  }

  async close(): Promise<void> {}
}
