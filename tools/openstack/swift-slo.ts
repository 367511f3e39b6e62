/** Static large objects: manifests over parts in the same container, nested past the service's limit. */
import { createHash } from 'node:crypto';
import PQueue from 'p-queue';
import { PortError } from '../../core/errors.ts';
import { printable } from '../../core/text.ts';
import { withRetries } from './retry.ts';
import type { SwiftApi } from './swift.ts';
import { giveUp, healing, plainEtag } from './swift-object.ts';

/** A part of a large object. */
export interface Part {
  name: string;
  bytes: number;
  etag: string;
}

/** A manifest to write. */
export interface SloManifest extends Part {
  parts: Part[];
}

/** Swift follows manifests in manifests so deep (slo.py, DEFAULT_MAX_DEPTH). */
const MAX_DEPTH = 10;
const MANIFEST_TIMEOUT_MS = 600_000;
const LANES = 8;

/** Where the parts of an object are; nothing else is put there. */
export const partsFolder = (name: string): string => `${name}.parts/`;
/** True for a part or an inner manifest, which no listing of ours shows. */
export const isPartName = (name: string): boolean => name.includes('.parts/');

const digest = (parts: readonly Part[]) =>
  createHash('md5')
    .update(parts.map((p) => p.etag).join(''))
    .digest('hex');

/**
 * Manifests for these parts, inner ones first, the object itself last. Inner ones are named after their content, so writing
 * one twice changes nothing. Throws CLOUD_REFUSED when the service's limits cannot hold so many.
 */
export function planManifests(name: string, parts: readonly Part[], limit: number): SloManifest[] {
  const manifests: SloManifest[] = [];
  let level: Part[] = [...parts];
  for (let depth = 1; level.length > limit; depth += 1) {
    if (depth >= MAX_DEPTH || limit < 2) {
      throw new PortError('CLOUD_REFUSED', `${printable(name)} needs more parts than the store can join`);
    }
    const above: Part[] = [];
    for (let at = 0; at < level.length; at += limit) {
      const inner = level.slice(at, at + limit);
      const [only] = inner;
      if (inner.length === 1 && only !== undefined) {
        above.push(only);
        continue;
      }
      const etag = digest(inner);
      const bytes = inner.reduce((sum, p) => sum + p.bytes, 0);
      const number = String(above.length + 1).padStart(6, '0');
      const manifest = {
        name: `${partsFolder(name)}list-${depth}-${number}-${etag}`,
        bytes,
        etag,
        parts: inner,
      };
      manifests.push(manifest);
      above.push(manifest);
    }
    level = above;
  }
  const bytes = level.reduce((sum, p) => sum + p.bytes, 0);
  return [...manifests, { name, bytes, etag: digest(level), parts: level }];
}

/** Writes one manifest. Throws CLOUD, CLOUD_REFUSED, CLOUD_MISMATCH. */
export async function putManifest(
  api: SwiftApi,
  container: string,
  manifest: SloManifest,
  options: { contentType?: string | undefined; signal?: AbortSignal | undefined } = {},
): Promise<void> {
  const { signal, contentType = 'application/octet-stream' } = options;
  const body = JSON.stringify(
    manifest.parts.map((p) => ({ path: `/${container}/${p.name}`, etag: p.etag, size_bytes: p.bytes })),
  );
  const what = `manifest of ${printable(manifest.name)}`;
  await withRetries(
    async () => {
      try {
        const answer = await api.send(api.url(container, manifest.name, { 'multipart-manifest': 'put' }), {
          method: 'PUT',
          headers: { 'content-type': contentType, etag: manifest.etag },
          body,
          // The service asks for each part before it answers.
          answerTimeoutMs: MANIFEST_TIMEOUT_MS,
          what,
          retries: 0,
          signal,
        });
        const etag = plainEtag(answer.headers.etag);
        if (etag !== '' && etag !== manifest.etag) {
          throw new PortError('CLOUD_MISMATCH', `${what}: the parts are not the ones that were sent`);
        }
      } catch (error) {
        // 400 names parts that one server of the store does not see yet.
        throw healing(error, [400, 404, 409]);
      }
    },
    { signal },
  );
}

/** Writes the object over its parts. Returns its etag and the names that belong to it. */
export async function joinParts(
  api: SwiftApi,
  container: string,
  name: string,
  parts: readonly Part[],
  options: { contentType?: string | undefined; signal?: AbortSignal | undefined } = {},
): Promise<{ etag: string; bytes: number; names: Set<string>; kept: boolean }> {
  const { slo } = await api.info(options.signal);
  if (slo === undefined) {
    throw new PortError('CLOUD_REFUSED', `${printable(name)} is too large for one object`, {
      hint: 'the store cannot join parts (no slo in its /info)',
    });
  }
  const manifests = planManifests(name, parts, slo.maxManifestSegments);
  const names = new Set([...parts, ...manifests.slice(0, -1)].map((p) => p.name));
  const top = manifests.at(-1);
  if (top === undefined) throw new PortError('BUG', 'no manifest planned');
  const there = await api.headObject(container, name, options.signal);
  const kept = there?.isLarge === true && there.etag === top.etag && there.bytes === top.bytes;
  // Kept: the service would not give this size and digest for other parts.
  if (!kept) for (const manifest of manifests) await putManifest(api, container, manifest, options);
  return { etag: top.etag, bytes: top.bytes, names, kept };
}

/** Names a large object is made of, inner manifests too; empty for a plain or a missing one. */
export async function namesOf(
  api: SwiftApi,
  container: string,
  name: string,
  signal?: AbortSignal,
): Promise<Set<string>> {
  const names = new Set<string>();
  const open = [name];
  for (let next = open.pop(); next !== undefined; next = open.pop()) {
    const answer = await api.session.request(api.url(container, next, { 'multipart-manifest': 'get' }), {
      method: 'GET',
      okStatus: [200, 404],
      what: `manifest of ${printable(next)}`,
      signal,
    });
    if (answer.status === 404 || answer.headers['x-static-large-object']?.toLowerCase() !== 'true') {
      giveUp(answer);
      continue;
    }
    for (const part of (await answer.json()) as { name?: string; sub_slo?: boolean }[]) {
      const path = String(part.name ?? '');
      if (!path.startsWith(`/${container}/`)) continue;
      const inner = path.slice(container.length + 2);
      names.add(inner);
      if (part.sub_slo === true) open.push(inner);
    }
  }
  return names;
}

/** Removes plain objects, a few at a time. */
export async function removeAll(
  api: SwiftApi,
  container: string,
  names: Iterable<string>,
  signal?: AbortSignal,
): Promise<number> {
  const queue = new PQueue({ concurrency: LANES });
  const all = [...names];
  await queue.addAll(all.map((name) => () => api.removePlain(container, name, signal)));
  return all.length;
}

/** Removes an object, then its parts: nobody can read half of it. */
export async function removeLarge(
  api: SwiftApi,
  container: string,
  name: string,
  signal?: AbortSignal,
): Promise<void> {
  const parts: string[] = [];
  for await (const part of api.listObjects(container, partsFolder(name), signal)) parts.push(part.name);
  await api.removePlain(container, name, signal);
  await removeAll(api, container, parts, signal);
}

/** Removes parts below a prefix that no object of the container uses. Only while nobody writes there. */
export async function sweepParts(
  api: SwiftApi,
  container: string,
  prefix: string,
  signal?: AbortSignal,
): Promise<number> {
  const byOwner = new Map<string, string[]>();
  for await (const { name } of api.listObjects(container, prefix, signal)) {
    if (!isPartName(name)) continue;
    const owner = name.slice(0, name.indexOf('.parts/'));
    byOwner.set(owner, [...(byOwner.get(owner) ?? []), name]);
  }
  let removed = 0;
  for (const [owner, parts] of byOwner) {
    const used = await namesOf(api, container, owner, signal);
    removed += await removeAll(
      api,
      container,
      parts.filter((p) => !used.has(p)),
      signal,
    );
  }
  return removed;
}
