/** What the tests of uploads share: an image file, an input for it, and what came of it. */
import { createHash, randomBytes } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import * as path from 'node:path';
import { silentLog } from '../../../core/log.ts';
import { GlanceRequest } from '../../../drivers/openstack/options.ts';
import type { UploadInput } from '../../../drivers/openstack/upload/index.ts';
import { loadCloud } from '../../../tools/openstack/config.ts';
import type { GlanceApi } from '../../../tools/openstack/glance.ts';
import type { GlanceImage } from '../../../tools/openstack/glance-types.ts';
import { CloudSession } from '../../../tools/openstack/session.ts';
import { CLOUD_NAME } from '../../support/cloud.ts';

/** An image of random bytes: Glance does not look inside. */
export function imageFile(dir: string, bytes: number, name = 'image.raw'): { file: string; content: Buffer } {
  const content = randomBytes(bytes);
  const file = path.join(dir, name);
  writeFileSync(file, content);
  return { file, content };
}

/** A name no other test uses. */
export const newName = () => `img-${randomBytes(4).toString('hex')}`;

/** Every image of that name, hidden ones too. */
export async function imagesNamed(glance: GlanceApi, name: string): Promise<GlanceImage[]> {
  const images: GlanceImage[] = [];
  for (const os_hidden of ['false', 'true']) {
    for await (const image of glance.list({ name, os_hidden })) images.push(image);
  }
  return images;
}

/** Digest in hex. */
export const digest = (content: Uint8Array, algorithm = 'sha256') =>
  createHash(algorithm).update(content).digest('hex');

/** An upload of that file; `request` and `fields` replace parts of it. */
export function uploadInput(
  image: { file: string; content: Buffer },
  request: Partial<GlanceRequest> = {},
  fields: Partial<UploadInput> = {},
): UploadInput & { warnings: string[] } {
  const sha256 = digest(image.content);
  const warnings: string[] = [];
  const jobId = fields.jobId ?? randomBytes(10).toString('hex');
  return {
    warnings,
    file: image.file,
    bytes: image.content.length,
    sha256,
    format: 'raw',
    name: 'shop',
    properties: {
      properties: {
        architecture: 'x86_64',
        os_type: 'linux',
        os_distro: 'debian',
        hw_disk_bus: 'virtio',
        img_config_drive: 'mandatory',
        port_image_id: `shop-${jobId}`,
        port_image_version: '2026.01.02',
        port_image_source: 'p2v',
        port_image_contract: '0'.repeat(64),
        port_image_verified: 'yes',
        port_image_job: jobId,
      },
      minDisk: 2,
      minRam: 512,
    },
    request: GlanceRequest.parse({ cloud: CLOUD_NAME, ...request }),
    jobId,
    rawSha256: async () => sha256,
    signal: new AbortController().signal,
    onProgress: () => {},
    warn: (text) => warnings.push(text),
    log: silentLog,
    pollMs: 100,
    ...fields,
  };
}

/** A session by the clouds.yaml of a test project. */
export async function openSession(cloudsYaml: string, stallTimeoutMs?: number): Promise<CloudSession> {
  const config = await loadCloud(CLOUD_NAME, { OS_CLIENT_CONFIG_FILE: cloudsYaml });
  return CloudSession.open(config, { stallTimeoutMs });
}
