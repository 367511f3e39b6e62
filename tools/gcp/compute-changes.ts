/** Changes of images that are there, and who uses them. */
import { randomUUID } from 'node:crypto';
import * as z from 'zod';
import type { ComputeApi, GceImage } from './compute.ts';

/**
 * Family and description in one change; what is absent stays. Nothing else of an image can be patched (compute v1 discovery
 * document, images.patch).
 */
export async function patchImage(
  compute: ComputeApi,
  name: string,
  data: { family?: string; description?: string },
  signal: AbortSignal,
): Promise<void> {
  const query = { requestId: randomUUID() };
  const path = `/global/images/${name}`;
  await compute.change(`change of image ${name}`, { method: 'PATCH', path, query, data }, signal);
}

/** Replaces all labels. Refused (412) when somebody changed them since the image was asked for. */
export async function setLabels(
  compute: ComputeApi,
  { name, labelFingerprint }: Pick<GceImage, 'name' | 'labelFingerprint'>,
  labels: Readonly<Record<string, string>>,
  signal: AbortSignal,
): Promise<void> {
  const data = { labels, labelFingerprint };
  const path = `/global/images/${name}/setLabels`;
  await compute.change(`labels of image ${name}`, { method: 'POST', path, data }, signal);
}

/**
 * Deprecated: it can be used, tools warn, and its family does not show it. `undefined` takes that back, by the empty body the
 * document names.
 */
export async function setDeprecation(
  compute: ComputeApi,
  name: string,
  data: { state: 'DEPRECATED'; replacement?: string } | undefined,
  signal: AbortSignal,
): Promise<void> {
  const query = { requestId: randomUUID() };
  const path = `/global/images/${name}/deprecate`;
  const request = { method: 'POST', path, query, data: data ?? {} } as const;
  await compute.change(`deprecation of image ${name}`, request, signal);
}

/** Names of disks that were made of an image, of the whole project. */
export async function disksOf(
  compute: ComputeApi,
  { name, id }: Pick<GceImage, 'name' | 'id'>,
  signal: AbortSignal,
): Promise<string[]> {
  const Scope = z.object({ disks: z.array(z.object({ name: z.string() })).default([]) });
  const List = z.object({
    items: z.record(z.string(), Scope).default({}),
    nextPageToken: z.string().optional(),
  });
  const names: string[] = [];
  let pageToken: string | undefined;
  do {
    const page = await compute.ask(
      List,
      `disks of image ${name}`,
      {
        method: 'GET',
        path: '/aggregated/disks',
        query: {
          filter: `sourceImageId="${id}"`,
          maxResults: '500',
          ...(pageToken === undefined ? {} : { pageToken }),
        },
      },
      signal,
    );
    names.push(...Object.values(page.items).flatMap(({ disks }) => disks.map((disk) => disk.name)));
    pageToken = page.nextPageToken;
  } while (pageToken !== undefined && pageToken !== '');
  return names;
}
