/** Imports: started here, done by Glance on its own, which tells by the image and its tasks how it goes. */
import { PortError } from '../../core/errors.ts';
import { pause } from '../../core/pause.ts';
import { printable } from '../../core/text.ts';
import type { CallOptions, GlanceApi } from './glance.ts';
import type { GlanceImage, GlanceTask, ImportStores } from './glance-types.ts';
import { errorText, withoutSignatures } from './http.ts';

/** What to import: the staged content, or a URL that Glance reads itself. */
export type ImportSource = { method: 'glance-direct' } | { method: 'web-download'; url: URL };

/** Starts an import. The URL is a secret. Throws as CloudSession.request. */
export async function startImport(
  glance: GlanceApi,
  id: string,
  source: ImportSource,
  stores: ImportStores,
  options: CallOptions = {},
): Promise<void> {
  const body = {
    method:
      source.method === 'glance-direct'
        ? { name: 'glance-direct' }
        : { name: 'web-download', uri: source.url.href },
    ...(stores === 'all' ? { all_stores: true } : stores.length > 0 ? { stores } : {}),
    ...(stores.length > 0 ? { all_stores_must_succeed: true } : {}),
  };
  const answer = await glance.send(`images/${id}/import`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(body),
    what: `import of image ${id}`,
    ...options,
  });
  await answer.drain();
}

/** How long and for what to wait. */
export interface ImportWait {
  signal?: AbortSignal | undefined;
  /** Stores that must have it in the end. */
  stores: readonly string[];
  /** Without any change for so long it has failed. */
  stallMs: number;
  pollMs: number;
  onState?: (text: string) => void;
}

/** Names in a property with commas. */
export function namesIn(value: unknown): string[] {
  return typeof value === 'string' ? value.split(',').filter((v) => v !== '') : [];
}

/** States in which an image waits for content: after an import has begun they mean that it failed. */
const WAITING = new Set(['queued', 'uploading']);

/** States of a task that is not over. */
const BUSY = new Set(['pending', 'processing']);

/**
 * Returns the image when every store has it. A failed import is no error of Glance's: the image falls back to `queued`,
 * names the stores that failed, and its task holds the reason. Throws CLOUD with it; CLOUD when nothing moves any more.
 */
export async function waitForImport(glance: GlanceApi, id: string, wait: ImportWait): Promise<GlanceImage> {
  const { signal } = wait;
  let seen = '';
  let changedMs = performance.now();
  let began = false;
  for (;;) {
    signal?.throwIfAborted();
    const image = await glance.show(id, { signal });
    if (image === undefined) throw new PortError('CLOUD', `image ${id} vanished during its import`);
    const left = namesIn(image.os_glance_importing_to_stores);
    const tasks = await glance.tasks(id, { signal });
    const failure = failureOf(image, tasks, began);
    if (failure !== undefined) throw failure;
    const stores = namesIn(image.stores);
    const isThere = wait.stores.every((store) => stores.includes(store));
    // An active image may still be written by its task: with the properties it had before, over ours.
    const isBusy = tasks.some((t) => BUSY.has(t.status)) || image.os_glance_import_task !== undefined;
    if (image.status === 'active' && left.length === 0 && isThere && !isBusy) return image;
    began ||= !WAITING.has(image.status);
    const task = newest(tasks);
    wait.onState?.(`importing: ${image.status}${task?.message ? `, ${clean(task.message)}` : ''}`);
    const now = JSON.stringify([image.status, left, stores, image.size, task?.message, task?.status]);
    if (now !== seen) {
      seen = now;
      changedMs = performance.now();
    } else if (performance.now() - changedMs > wait.stallMs) {
      throw new PortError(
        'CLOUD',
        `the import of image ${id} stands still in state ${printable(image.status)}`,
        {
          hint: 'ask the operator for the log of glance-api, or use --upload-method put',
        },
      );
    }
    await pause(wait.pollMs, signal);
  }
}

function newest(tasks: readonly GlanceTask[]): GlanceTask | undefined {
  return [...tasks].sort((a, b) => b.created_at.localeCompare(a.created_at))[0];
}

function clean(message: string): string {
  return errorText(withoutSignatures(message));
}

function failureOf(image: GlanceImage, tasks: readonly GlanceTask[], began: boolean): PortError | undefined {
  const failedStores = namesIn(image.os_glance_failed_import);
  const task = newest(tasks);
  const failed =
    failedStores.length > 0 ||
    task?.status === 'failure' ||
    (began && WAITING.has(image.status)) ||
    ['killed', 'deactivated', 'deleted', 'pending_delete'].includes(image.status);
  if (!failed) return undefined;
  const where = failedStores.length > 0 ? ` into ${printable(failedStores.join(', '))}` : '';
  const why = task?.message ? `: ${clean(task.message)}` : `, it is ${printable(image.status)} again`;
  return new PortError('CLOUD', `Glance could not import image ${image.id}${where}${why}`, {
    hint: 'the operator finds the reason in the log of glance-api; --upload-method put needs no import',
  });
}
