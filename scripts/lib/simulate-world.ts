/** Images and clouds of a simulation: made by numbers, the same each time. */
import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import * as z from 'zod';
import { GIB, MIB } from '../../core/sizes.ts';
import { SyncConfig } from '../../core/sync/config.ts';
import type { SyncImage, TargetImage } from '../../core/sync/types.ts';
import type { SyncFile, SyncTask } from '../../pipeline/sync/perform-types.ts';
import { planSync } from '../../pipeline/sync/plan.ts';

/** What real runs took; see docs/fleet.md for how it was recorded. */
export const Timings = z.object({
  schema: z.literal('port-image/sync-timings/1'),
  /** What was run, where. One sentence. */
  recorded: z.string(),
  /** Images one request of a listing tells. */
  listPage: z.int().min(1),
  /** By verb: what each costs whatever its size, and for each MiB of data sent. */
  verbs: z.record(
    z.enum(['create', 'update', 'hide', 'delete']),
    z.object({
      seconds: z.number(),
      secondsPerMib: z.number(),
      calls: z.number(),
      callsPerMib: z.number(),
    }),
  ),
});
/** What real runs took. */
export type Timings = z.infer<typeof Timings>;

/** Which night is played. */
export type Night = 'first' | 'unchanged' | 'one-percent';

/** Where the recorded timings are. */
export const RECORDED = path.resolve(import.meta.dirname, '../../fixtures/recorded/sync/timings.json');
/** Of a changed image, so much of its data is new (one package of the two nights in fixtures/nightly). */
const CHANGED_SHARE = 0.02;
/** The most a target may have. */
const LANES = 16;

/** The recorded timings. */
export async function loadTimings(file = RECORDED): Promise<Timings> {
  return Timings.parse(JSON.parse(await fs.readFile(file, 'utf8')));
}

/** Seconds and requests of a task. */
export function costOf(
  timings: Timings,
  { action, image }: SyncTask,
  night: Night,
): { seconds: number; calls: number; mib: number } {
  const cost = action.verb === 'skip' ? undefined : timings.verbs[action.verb];
  if (cost === undefined) return { seconds: 0, calls: 0, mib: 0 };
  const whole = (image?.fileBytes ?? 0) / MIB;
  const mib = action.verb !== 'create' ? 0 : night === 'first' ? whole : whole * CHANGED_SHARE;
  return {
    seconds: cost.seconds + cost.secondsPerMib * mib,
    calls: cost.calls + cost.callsPerMib * mib,
    mib,
  };
}

/** A sync of so many clouds. */
export function worldFile(clouds: number): SyncFile {
  const targets = Object.fromEntries(
    Array.from({ length: clouds }, (_, i) => [`cloud-${i + 1}`, { platform: 'openstack', lanes: LANES }]),
  );
  const sources = { golden: { glance: { cloud: 'golden' } } };
  const text = JSON.stringify({ sync: 'simulated', sources, targets });
  return { path: '/etc/port-image/sync.yaml', text, config: SyncConfig.parse(JSON.parse(text)) };
}

/** Pseudo-random numbers from 0 to 1, the same for each seed (mulberry32). */
function numbers(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

const hex = (number: number, text: string) =>
  number.toString(16).padStart(8, '0').repeat(8).slice(0, 56) + text;

/** Images of a source, one version each. `changed` of them have a newer one. */
export function worldImages(count: number, changed: number): SyncImage[] {
  const random = numbers(count);
  return Array.from({ length: count }, (_, i): SyncImage => {
    // from half a GiB to 16 GiB, most of them small
    const fileBytes = Math.round(0.5 * GIB * 32 ** random());
    const isChanged = i < changed;
    return {
      series: `server-${i}`,
      version: isChanged ? '20260822' : '20260821',
      ref: `00000000-0000-4000-8000-${String(i).padStart(12, '0')}`,
      name: `server-${i}`,
      rawSha256: hex(i, isChanged ? '00000002' : '00000001'),
      fileDigest: `sha512:${hex(i, '0000').repeat(2)}${isChanged ? '00000002' : '00000001'}`,
      format: 'qcow2',
      fileBytes,
      virtualBytes: 4 * fileBytes,
      createdAt: isChanged ? '2026-08-22T01:00:00Z' : '2026-08-21T01:00:00Z',
      arch: 'x86_64',
      firmware: 'bios',
      minDiskGib: 20,
      minRamMib: 2048,
      properties: { os_distro: 'debian', os_version: '12', hw_disk_bus: 'virtio', hw_vif_model: 'virtio' },
      dataSets: [],
    };
  });
}

/** What the clouds hold after every image of a first night arrived. */
export function heldAfterFirstNight(file: SyncFile, count: number): Map<string, TargetImage[]> {
  const empty = new Map(Object.keys(file.config.targets).map((name) => [name, [] as TargetImage[]]));
  const first = planSync({
    config: file.config,
    listings: {
      sources: new Map([['golden', worldImages(count, 0)]]),
      targets: empty,
      unreachable: [],
      leftOut: [],
    },
    now: new Date('2026-08-21T02:00:00Z'),
    rawOf: () => undefined,
  });
  for (const { action, image, wantedDigest } of first.tasks) {
    if (image === undefined) continue;
    empty.get(action.target)?.push({
      series: image.series,
      version: image.version,
      rawSha256: image.rawSha256 ?? '',
      ref: `${action.target}/${image.series}`,
      name: action.name,
      fileDigest: image.fileDigest ?? '',
      state: 'complete',
      owner: 'first@host',
      aliveAt: '',
      hidden: false,
      hiddenAt: '',
      createdAt: '2026-08-21T03:00:00Z',
      bytes: image.fileBytes,
      wanted: wantedDigest,
      inUse: false,
      protected: false,
    });
  }
  return empty;
}
