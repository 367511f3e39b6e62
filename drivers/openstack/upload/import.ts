/** Imports of this upload: started once, waited for; glance-direct brings in what is staged. */
import type { GlanceApi } from '../../../tools/openstack/glance.ts';
import { type ImportSource, startImport, waitForImport } from '../../../tools/openstack/glance-import.ts';
import type { GlanceImage } from '../../../tools/openstack/glance-types.ts';
import { HttpError } from '../../../tools/openstack/http.ts';
import { withRetries } from '../../../tools/openstack/retry.ts';
import type { UploadInput } from './types.ts';

/** Stores that must have the image in the end; empty: whichever is the cloud's default. */
async function wantedStores(glance: GlanceApi, input: UploadInput): Promise<string[]> {
  const { stores } = input.request;
  if (stores !== 'all') return [...stores];
  const known = (await glance.stores({ signal: input.signal })) ?? [];
  return known.filter((s) => !s['read-only']).map((s) => s.id);
}

/** Waits until every wanted store has the image. Throws as waitForImport. */
export async function awaitImport(glance: GlanceApi, id: string, input: UploadInput): Promise<GlanceImage> {
  return waitForImport(glance, id, {
    signal: input.signal,
    stores: await wantedStores(glance, input),
    stallMs: input.importStallMs ?? 15 * 60_000,
    pollMs: input.pollMs ?? 2000,
    onState: (text) => input.onProgress({ text }),
  });
}

/** Starts an import exactly once, also when the answer to the request is lost. */
export async function startImportOnce(
  glance: GlanceApi,
  id: string,
  source: ImportSource,
  input: UploadInput,
): Promise<void> {
  const { signal } = input;
  let attempts = 0;
  await withRetries(
    async () => {
      if (attempts++ > 0 && (await hasBegun(glance, id, signal))) return;
      try {
        await startImport(glance, id, source, input.request.stores, { signal });
      } catch (error) {
        if (error instanceof HttpError && error.status === 409 && (await hasBegun(glance, id, signal)))
          return;
        throw error;
      }
    },
    { signal },
  );
}

async function hasBegun(glance: GlanceApi, id: string, signal: AbortSignal): Promise<boolean> {
  const image = await glance.show(id, { signal });
  if (image === undefined) return false;
  if (image.status === 'importing' || image.status === 'active') return true;
  return (await glance.tasks(id, { signal })).length > 0;
}

/** Imports what is staged and waits for it. */
export async function importStaged(glance: GlanceApi, input: UploadInput, id: string): Promise<GlanceImage> {
  await startImportOnce(glance, id, { method: 'glance-direct' }, input);
  return awaitImport(glance, id, input);
}
