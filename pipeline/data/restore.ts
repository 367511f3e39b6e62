/** Restoring a data set onto this machine, from a store or with nothing but a provision document. */
import * as path from 'node:path';
import type { Provision } from '../../core/contract.ts';
import { DATA_SET_ID, type Manifest } from '../../core/data-set.ts';
import { PortError } from '../../core/errors.ts';
import { exists } from '../../core/files.ts';
import { printable } from '../../core/text.ts';
import { HttpStore } from '../../drivers/stores/http.ts';
import { readManifest } from '../../drivers/stores/read-back.ts';
import { restoreDataSet } from '../../drivers/stores/restore.ts';
import type { Store } from '../../drivers/stores/store.ts';
import { countedStore } from './counted-store.ts';
import { requireManifest } from './sets.ts';

/** How to restore. */
export interface RestoreRequest {
  id: string;
  /** Must not exist or be empty. */
  dir: string;
  /** Digest of the manifest, as the image's contract has it. */
  manifestSha256?: string | undefined;
  signal?: AbortSignal | undefined;
  onProgress?: (progress: { doneBytes: number; totalBytes: number; text: string }) => void;
}

const SHA256 = /^(?:sha256:)?([0-9a-f]{64})$/;

async function restore(store: Store, manifest: Manifest, sha256: string, request: RestoreRequest) {
  const { id, dir, onProgress, signal } = request;
  const parent = path.dirname(path.resolve(dir));
  if (!(await exists(parent))) {
    throw new PortError('USAGE', `the folder ${printable(parent)} does not exist`);
  }
  const totalBytes = manifest.segments.reduce((sum, s) => sum + s.bytes, 0);
  let doneBytes = 0;
  const counted = countedStore(store, (key, bytes) => {
    if (!key.startsWith(`${id}/segments/`)) return;
    doneBytes += bytes;
    onProgress?.({ doneBytes, totalBytes, text: key });
  });
  return restoreDataSet(counted, id, dir, {
    manifestSha256: sha256,
    signal,
  });
}

/** Throws USAGE unless the text is a sha256, with or without its name before it. */
function digestOf(text: string | undefined): string | undefined {
  if (text === undefined) return undefined;
  const [, digest] = SHA256.exec(text.toLowerCase()) ?? [];
  if (digest === undefined) {
    throw new PortError('USAGE', `--manifest-sha256: ${printable(text).slice(0, 80)} is no sha256`);
  }
  return digest;
}

/** Restores from a store. Throws USAGE, STORE, STORE_MISMATCH, PROGRAM_FAILED. */
export async function restoreFromStore(store: Store, request: RestoreRequest): Promise<Manifest> {
  const found = await requireManifest(store, request.id, digestOf(request.manifestSha256));
  return restore(store, found.manifest, found.sha256, request);
}

/** Restores with a provision document alone: no login of ours, only what an instance would have. */
export async function restoreFromProvision(
  provision: Provision,
  request: RestoreRequest,
  options: { caFile?: string | undefined } = {},
): Promise<Manifest> {
  const { id } = request;
  if (!DATA_SET_ID.test(id) || !Object.hasOwn(provision.data, id)) {
    throw new PortError('USAGE', `the provision document does not name ${printable(id).slice(0, 80)}`, {
      hint: `it names: ${Object.keys(provision.data).join(', ') || 'no data set'}`,
    });
  }
  const store = await HttpStore.open(provision, options);
  try {
    const found = await readManifest(store, id, digestOf(request.manifestSha256));
    return await restore(store, found.manifest, found.sha256, request);
  } finally {
    await store.close();
  }
}
