/** Asks every place of a sync file whether a run would be let in. Nothing is changed but what a store's own test needs. */
import * as fs from 'node:fs/promises';
import * as os from 'node:os';
import * as path from 'node:path';
import { asPortError, PortError } from '../../core/errors.ts';
import type { SourceConfig, SyncConfig } from '../../core/sync/config.ts';
import type { SyncContext } from '../../core/sync/types.ts';
import { printable } from '../../core/text.ts';
import { openStore } from '../../drivers/stores/index.ts';
import { referenced } from './notify.ts';
import type { SyncFile } from './perform-types.ts';
import { inPlace, Places } from './places.ts';
import { serverRequest } from './sources/servers.ts';

/** What a place said. */
export interface PlaceAnswer {
  /** `source a`, `target b`, `store of b`, `notify[0]`. */
  place: string;
  /** What was found there, in a few words. */
  found?: string | undefined;
  error?: PortError | undefined;
}

/** Asks all of them, side by side; answers are in the order of the file. Throws INTERRUPTED. */
export async function askPlaces(
  file: SyncFile,
  options: SyncContext & { stateDir: string; env?: NodeJS.ProcessEnv },
): Promise<PlaceAnswer[]> {
  const { config } = file;
  // what is read here is forgotten: a test leaves no ledger
  const digests = new Map<string, string>();
  const places = new Places(file, {
    stateDir: options.stateDir,
    digests,
    owner: `check@${os.hostname()}`,
    signal: options.signal,
  });
  const ask = async (place: string, work: () => Promise<string>): Promise<PlaceAnswer> => {
    options.progress({ text: `asking ${place}` });
    try {
      return { place, found: await work() };
    } catch (error) {
      if (options.signal.aborted) throw new PortError('INTERRUPTED', 'interrupted', { cause: error });
      return { place, error: asPortError(error) };
    }
  };
  try {
    return await Promise.all([
      ...Object.entries(config.sources).flatMap(([name, source]) => [
        ask(`source ${name}`, () => askSource(name, source, file, places, options)),
        ...storeOf(
          `source ${name}`,
          source.store,
          'glance' in source ? source.glance.cloud : undefined,
          ask,
          options,
        ),
      ]),
      ...Object.entries(config.targets).flatMap(([name, target]) => [
        ask(`target ${name}`, async () => {
          const opened = await places.target(name);
          const images = await opened.list(inPlace(options, name));
          return `${opened.platform}, ${printable(opened.place)}: ${count(images.length, 'image')} of this sync`;
        }),
        ...storeOf(`target ${name}`, target.store, target.options.cloud, ask, options),
      ]),
      ...config.notify.map((one, at) =>
        ask(`notify[${at}]`, () => askNotify(one, options.env ?? process.env)),
      ),
    ]);
  } finally {
    await places.close();
  }
}

type Ask = (place: string, work: () => Promise<string>) => Promise<PlaceAnswer>;

function storeOf(
  place: string,
  url: string | undefined,
  cloud: unknown,
  ask: Ask,
  { signal }: SyncContext,
): Promise<PlaceAnswer>[] {
  if (url === undefined) return [];
  return [
    ask(`store of ${place}`, async () => {
      const store = openStore(url, { cloud: typeof cloud === 'string' ? cloud : undefined, signal });
      try {
        await store.check(0);
        return `${printable(store.url)} can be written to`;
      } finally {
        await store.close?.();
      }
    }),
  ];
}

/** Clouds are listed; what is on this machine is looked at without reading images. */
async function askSource(
  name: string,
  source: SourceConfig,
  file: SyncFile,
  places: Places,
  ctx: SyncContext,
): Promise<string> {
  const base = path.dirname(file.path);
  if ('glance' in source) {
    const images = await (await places.source(name)).list({
      ...inPlace(ctx, name),
      leaveOut: (what, { message }) => ctx.warn(`${name}: ${printable(what)} is left out: ${message}`),
    });
    return `Glance of ${printable(source.glance.cloud)}: ${count(images.length, 'image')} that ${images.length === 1 ? 'fits' : 'fit'}`;
  }
  if ('servers' in source) {
    for (const server of source.servers) await serverRequest(server, base, source.store);
    return `${count(source.servers.length, 'server')}: well described; a run asks them`;
  }
  const dir = path.resolve(base, 'job' in source ? source.job : source.folder.path);
  const found = await fs.readdir('job' in source ? path.join(dir, 'out') : dir).catch((error: unknown) => {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT')
      throw new PortError(
        'HOST_IO',
        `${printable(dir)} ${'job' in source ? 'is no finished conversion' : 'is not there'}`,
      );
    throw error;
  });
  return `${printable(dir)}: ${count(found.length, 'file')}`;
}

function count(number: number, what: string): string {
  return `${number} ${what}${number === 1 ? '' : 's'}`;
}

/** Nobody is told anything: the address is there, the program can be started. */
async function askNotify(
  { webhook, command }: SyncConfig['notify'][number],
  env: NodeJS.ProcessEnv,
): Promise<string> {
  if (webhook !== undefined) {
    await referenced(webhook, env);
    return `the URL of the webhook is in ${printable(webhook)}`;
  }
  const [program = ''] = command ?? [];
  const dirs = program.includes('/') ? [''] : (env.PATH ?? '').split(':').filter((dir) => dir !== '');
  for (const dir of dirs) {
    const full = dir === '' ? program : path.join(dir, program);
    if (
      await fs.access(full, fs.constants.X_OK).then(
        () => true,
        () => false,
      )
    )
      return printable(full);
  }
  throw new PortError('PROGRAM_MISSING', `${printable(program)} is not there, or is no program`);
}
