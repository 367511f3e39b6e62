/** Properties by which a sync knows its images in Glance, and what they say. */
import { createHash } from 'node:crypto';
import { SYNC_WORD, type TargetImage } from '../../../core/sync/types.ts';
import type { GlanceImage } from '../../../tools/openstack/glance-types.ts';
import { STATE } from '../properties.ts';

/** Names of our properties. */
export const MARK = {
  sync: 'port_image_sync',
  id: 'port_image_id',
  series: 'port_image_series',
  version: 'port_image_version',
  raw: 'port_image_sha256',
  file: 'port_image_file',
  state: 'port_image_state',
  owner: 'port_image_sync_owner',
  claim: 'port_image_sync_claim',
  alive: 'port_image_sync_alive',
  wanted: 'port_image_sync_wanted',
  hiddenAt: 'port_image_hidden_at',
  data: 'port_image_data',
} as const;

const text = (value: unknown): string => (typeof value === 'string' ? value : '');

/**
 * Id an image of this content gets: the same for everybody who makes it, so that of two who try at once one makes it and the other is
 * told by Glance. Another attempt has another id, because Glance never gives one of a removed image again.
 */
export function imageUuid(
  sync: string,
  identity: { series: string; version: string; rawSha256: string },
  attempt: number,
): string {
  const { series, version, rawSha256 } = identity;
  const hash = createHash('sha256')
    .update(['port-image', sync, series, version, rawSha256, attempt].join('\0'))
    .digest();
  // RFC 9562, version 8: made by a rule of one's own
  hash[6] = ((hash[6] ?? 0) & 0x0f) | 0x80;
  hash[8] = ((hash[8] ?? 0) & 0x3f) | 0x80;
  const hex = hash.toString('hex', 0, 16);
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join('-');
}

/** What Glance tells of an image of this sync; undefined for one that is of none, or that lacks what makes it one. */
export function targetImage(image: GlanceImage, sync: string): TargetImage | undefined {
  const series = text(image[MARK.series]);
  const version = text(image[MARK.version]);
  if (image[MARK.sync] !== sync || !SYNC_WORD.test(series) || !SYNC_WORD.test(version)) return undefined;
  // One an operator has deactivated is whole, and theirs to decide about.
  const isWhole = image.status === 'active' || image.status === 'deactivated';
  const isComplete = image[MARK.state] === STATE.complete && isWhole;
  return {
    ref: image.id,
    name: image.name ?? '',
    series,
    version,
    rawSha256: text(image[MARK.raw]),
    fileDigest: text(image[MARK.file]),
    state: isComplete ? 'complete' : 'in-progress',
    owner: text(image[MARK.owner]),
    aliveAt: text(image[MARK.alive]),
    hidden: image.os_hidden,
    hiddenAt: text(image[MARK.hiddenAt]),
    createdAt: image.created_at,
    bytes: image.size ?? 0,
    wanted: text(image[MARK.wanted]),
    inUse: undefined,
    protected: image.protected,
  };
}
