/** Images of a Glance as a source. */
import * as path from 'node:path';
import type { SourceConfig } from '../../../core/sync/config.ts';
import { dateWord } from '../../../core/sync/dates.ts';
import { SYNC_WORD, type SyncImage, type SyncSource } from '../../../core/sync/types.ts';
import { printable } from '../../../core/text.ts';
import { fetchImage, planFetch } from '../../../tools/fetch-image/index.ts';
import type { GlanceImage } from '../../../tools/openstack/glance-types.ts';
import { isPortable } from '../properties.ts';
import { SyncCloud } from './client.ts';
import { MARK } from './marks.ts';

type GlanceSourceConfig = Extract<SourceConfig, { glance: unknown }>;

const HEX64 = /^[0-9a-f]{64}$/;
const text = (value: unknown): string | undefined =>
  typeof value === 'string' && value !== '' ? value : undefined;

/** A name made to fit a word: what does not fit becomes a dash. */
export function asWord(name: string): string {
  const word = name
    .replace(/[^A-Za-z0-9._+-]+/g, '-')
    .replace(/^[^A-Za-z0-9]+/, '')
    .slice(0, 128);
  return word === '' ? 'image' : word;
}

/** Of ours by what it says about itself; of others the name is the series and the date the version. */
function identityOf(image: GlanceImage): { series: string; version: string } {
  const version = text(image[MARK.version]);
  const id = text(image[MARK.id]);
  if (version !== undefined && id !== undefined && SYNC_WORD.test(version)) {
    const series =
      text(image[MARK.series]) ?? (id.endsWith(`-${version}`) ? id.slice(0, -version.length - 1) : id);
    if (SYNC_WORD.test(series)) return { series, version };
  }
  return { series: asWord(image.name ?? image.id), version: dateWord(new Date(image.created_at)) };
}

/** What Glance tells of an image, as an image of a sync. */
export function syncImage(image: GlanceImage): SyncImage {
  const raw = text(image[MARK.raw]);
  const { os_hash_algo: algorithm, os_hash_value: hex } = image;
  const isStrong = algorithm === 'sha512' || algorithm === 'sha256';
  const properties = Object.entries(image).filter(
    (entry): entry is [string, string] => isPortable(entry[0]) && typeof entry[1] === 'string',
  );
  const firmware = image.hw_firmware_type === 'uefi' ? 'uefi' : 'bios';
  return {
    ...identityOf(image),
    ref: image.id,
    name: image.name ?? image.id,
    rawSha256: raw !== undefined && HEX64.test(raw) ? raw : undefined,
    fileDigest: isStrong && hex ? `${algorithm}:${hex.toLowerCase()}` : undefined,
    format: image.disk_format ?? '',
    fileBytes: image.size ?? 0,
    virtualBytes: typeof image.virtual_size === 'number' ? image.virtual_size : undefined,
    createdAt: image.created_at,
    arch: text(image.architecture) ?? 'x86_64',
    firmware,
    minDiskGib: typeof image.min_disk === 'number' ? image.min_disk : 0,
    minRamMib: typeof image.min_ram === 'number' ? image.min_ram : 0,
    properties: Object.fromEntries(properties),
    dataSets: (text(image[MARK.data]) ?? '').split(',').filter((id) => id !== ''),
  };
}

/** Names that became one series by what was left out of them. */
export function mixedNames(images: readonly SyncImage[]): string[][] {
  const names = new Map<string, Set<string>>();
  for (const { series, name } of images)
    if (asWord(name) === series) names.set(series, (names.get(series) ?? new Set()).add(name));
  return [...names.values()].filter(({ size }) => size > 1).map((one) => [...one].sort());
}

function fits(
  image: GlanceImage,
  { glance }: GlanceSourceConfig,
  matches: (p: string, t: string) => boolean,
): boolean {
  if (image.status !== 'active' || image.container_format !== 'bare' || image.os_hidden) return false;
  if (image[MARK.state] !== undefined && image[MARK.state] !== 'complete') return false;
  // Further disks of a server belong to another image and start nothing.
  if (image.port_image_disk !== undefined) return false;
  if (glance.visibility !== undefined && image.visibility !== glance.visibility) return false;
  if (!glance.names.some((pattern) => matches(pattern, image.name ?? ''))) return false;
  return Object.entries(glance.properties).every(([key, value]) => image[key] === value);
}

/** Opens it. Throws CONFIG, CLOUD_LOGIN, CLOUD. */
export async function openGlanceSource(
  name: string,
  config: GlanceSourceConfig,
  { signal, matches }: { signal: AbortSignal; matches: (pattern: string, text: string) => boolean },
): Promise<SyncSource> {
  const cloud = await SyncCloud.open(config.glance.cloud, signal);
  return {
    name,
    async list(ctx) {
      const filters: Record<string, string> = { ...config.glance.properties, status: 'active' };
      if (config.glance.owner === 'project') filters.owner = cloud.session.projectId;
      if (config.glance.visibility !== undefined) filters.visibility = config.glance.visibility;
      const images = await cloud.images(filters, { hidden: false, signal: ctx.signal });
      const found = images
        // A filter the service does not know is ignored by some: look again.
        .filter((image) => filters.owner === undefined || image.owner === filters.owner)
        .filter((image) => fits(image, config, matches))
        .map(syncImage)
        .sort((a, b) => b.createdAt.localeCompare(a.createdAt));
      for (const names of mixedNames(found))
        ctx.warn(
          `${names.map(printable).join(' and ')} count as versions of one image: their names differ in signs a series cannot have`,
        );
      return found;
    },
    async fetch(image, dir, ctx) {
      const plan = await planFetch(
        { kind: 'glance', cloud: config.glance.cloud, id: image.ref },
        { signal: ctx.signal },
      );
      try {
        const file = path.join(dir, 'image');
        const fetched = await fetchImage(plan, file, {
          signal: ctx.signal,
          limitBytesPerSecond: ctx.bytesPerSecond,
          onProgress: (doneBytes, totalBytes) =>
            ctx.progress({
              text: `fetching ${image.name}`,
              doneBytes,
              ...(totalBytes === undefined ? {} : { totalBytes }),
            }),
          onRetry: (error) => ctx.log.info('fetch again', { message: error.message }),
        });
        return { path: file, format: plan.diskFormat ?? image.format, receivedBytes: fetched.receivedBytes };
      } finally {
        await plan.origin.close();
      }
    },
    close: () => cloud.close(),
  };
}
