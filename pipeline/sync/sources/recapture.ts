/** One server, captured and converted again into its job folder, when it is not what it was. */
import { createHash } from 'node:crypto';
import { exists } from '../../../core/files.ts';
import type { Request } from '../../../core/request.ts';
import { parseSource } from '../../../core/source.ts';
import { dateWord } from '../../../core/sync/dates.ts';
import type { SyncContext, SyncImage } from '../../../core/sync/types.ts';
import { captureInto } from '../../capture.ts';
import { requireClouds } from '../../cloud-check.ts';
import { runJob } from '../../engine.ts';
import type { Listener } from '../../events.ts';
import { createJob, jobPaths } from '../../job.ts';
import { fileState } from './file-digest.ts';
import { jobImages } from './job-images.ts';
import { keepImages, readKept } from './kept-images.ts';

/**
 * Brings the kept images of a server up to date. Returns false when it is what it was, and nothing was converted. Throws what a
 * conversion throws: the images kept before stay.
 */
export async function recapture(
  name: string,
  dir: string,
  request: Request,
  ctx: SyncContext,
): Promise<boolean> {
  const { signal } = ctx;
  const kept = await readKept(dir);
  if (!(await exists(jobPaths(dir).request))) await requireClouds(request, signal);
  await createJob(dir, request);
  const before = await madeFromFiles(request);
  if (before !== undefined && kept?.madeFrom === before) return false;
  const listener = listenerFor(name, ctx);
  const { passes } = await captureInto(dir, request, { signal, listener, final: true });
  // Of a copied disk the last pass knows the digest of all its blocks.
  const blocks = new Map(passes.map((pass) => [pass.disk, pass.treeSha256]));
  const known = [...blocks].map(([id, tree]) => `${id} ${tree}`);
  const madeFrom = before ?? digestOf(request, known.length > 0 ? known : [new Date().toISOString()]);
  if (kept?.madeFrom === madeFrom) {
    ctx.log.info('server is unchanged', { server: name });
    return false;
  }
  await runJob(dir, { signal, listener });
  await keepImages(dir, { madeFrom, images: (await jobImages(dir)).map(serverImage) });
  return true;
}

/** Its version is the moment it was made: a server may be converted twice a day, and a contract's version is the day. */
export function serverImage(image: SyncImage): SyncImage {
  return { ...image, version: dateWord(new Date(image.createdAt)) };
}

/** What images of files used in place are made from; undefined when something must be asked or fetched to know. */
export async function madeFromFiles(request: Request): Promise<string | undefined> {
  const states: string[] = [];
  for (const text of [request.source, ...request.moreSources]) {
    const source = parseSource(text);
    if (source.kind !== 'path') return undefined;
    // A block device or a link tells nothing by its own times.
    const state = await fileState(source.path).catch(() => undefined);
    if (state === undefined || !state.settled) return undefined;
    states.push(state.key);
  }
  return digestOf(request, states);
}

function digestOf(request: Request, state: readonly string[]): string {
  return createHash('sha256')
    .update(JSON.stringify([request, [...state].sort()]))
    .digest('hex');
}

/** What a run of a job tells, as what a run of a sync tells. */
function listenerFor(name: string, ctx: SyncContext): Listener {
  return (event) => {
    switch (event.event) {
      case 'progress':
        ctx.progress({ ...event.progress, text: `${name}, ${event.stage}: ${event.progress.text ?? ''}` });
        break;
      case 'stage-started':
        ctx.progress({ text: `${name}, ${event.stage}` });
        break;
      case 'warning':
        ctx.warn(`${name}: ${event.text}`);
        break;
      case 'note':
        ctx.log.info('note', { server: name, text: event.text });
        break;
      default:
        break;
    }
  };
}
