/** `data rm` and `data gc`. */
import type { Command } from 'commander';
import { DAY_MS, parseDuration } from '../../core/durations.ts';
import { PortError } from '../../core/errors.ts';
import { formatBytes } from '../../core/sizes.ts';
import { printable } from '../../core/text.ts';
import { findGarbage, removeGarbage, removeSet } from '../../pipeline/data/gc.ts';
import { jobsUsing, openJobs } from '../../pipeline/data/jobs-using.ts';
import { requireId } from '../../pipeline/data/sets.ts';
import { out, outJson, say } from '../output.ts';
import { withProgress } from '../progress.ts';
import type { Interruption } from '../signals.ts';
import { tableLines } from '../table.ts';
import { confirm, onStore, type StoreFlags, withStoreFlags } from './flags.ts';

const OLDER_THAN = { what: '--older-than', minMs: 0, maxMs: 3650 * DAY_MS };

interface RemoveFlags extends StoreFlags {
  yes?: boolean;
}

async function rm(ids: readonly string[], flags: RemoveFlags, interruption: Interruption): Promise<void> {
  const { signal } = interruption;
  await onStore(flags, interruption.signal, async (store) => {
    const unique = [...new Set(ids)];
    for (const id of unique) await requireId(store, id);
    const jobs = await openJobs();
    for (const id of unique) {
      for (const job of jobsUsing(jobs, store.url, id)) {
        if (job.running) {
          throw new PortError('JOB_LOCKED', `the job in ${job.dir} is running and may use ${id}`, {
            hint: 'wait for it or stop it first',
          });
        }
        say(`warning: the unfinished job in ${printable(job.dir)} may need ${id}`);
      }
    }
    await confirm(
      `Remove ${unique.join(', ')} from ${printable(store.url)}? Images that need this data cannot get it any more.`,
      flags.yes,
      signal,
    );
    const rows = [];
    for (const id of unique) {
      const removed = await removeSet(store, id, { signal });
      rows.push({ id, ...removed });
      if (flags.json !== true)
        out(`removed ${id}: ${removed.objects} objects, ${formatBytes(removed.bytes)}`);
    }
    if (flags.json === true) outJson(rows);
  });
}

interface GcFlags extends RemoveFlags {
  dryRun?: boolean;
  olderThan?: string;
}

async function gc(flags: GcFlags, interruption: Interruption): Promise<void> {
  const olderThanMs = flags.olderThan === undefined ? DAY_MS : parseDuration(flags.olderThan, OLDER_THAN);
  const removes = flags.yes === true && flags.dryRun !== true;
  await onStore(flags, interruption.signal, async (store) => {
    const options = {
      olderThanMs,
      nowMs: Date.now(),
      jobs: await openJobs(),
      signal: interruption.signal,
    };
    const plans = await withProgress((report) => {
      if (process.stderr.isTTY === true) report({ text: 'looking at the store' });
      return findGarbage(store, options);
    });
    const garbage = plans.flatMap((plan) => plan.garbage);
    const bytes = garbage.reduce((sum, g) => sum + g.bytes, 0);
    if (flags.json !== true) {
      const lines = tableLines(garbage, [
        { title: 'BYTES', value: (g) => formatBytes(g.bytes), right: true },
        { title: 'WHY', value: (g) => g.why },
        { title: 'OBJECT', value: (g) => g.key },
      ]);
      if (garbage.length > 0) for (const line of lines) out(line);
      for (const plan of plans)
        if (plan.kept !== undefined) say(`left alone: ${plan.id}: ${printable(plan.kept)}`);
    }
    const removed = { objects: 0, bytes: 0 };
    if (removes) {
      for (const plan of plans) {
        const done = await removeGarbage(store, plan, options);
        removed.objects += done.objects;
        removed.bytes += done.bytes;
      }
    }
    if (flags.json === true) {
      outJson({
        garbage,
        bytes,
        kept: plans.flatMap((p) => (p.kept === undefined ? [] : [{ id: p.id, why: p.kept }])),
        removed: removes ? removed : null,
      });
      return;
    }
    if (removes) out(`removed ${removed.objects} objects, ${formatBytes(removed.bytes)}`);
    else if (garbage.length === 0) out('no garbage');
    else out(`${garbage.length} objects, ${formatBytes(bytes)}; nothing removed, --yes removes them`);
  });
}

/** Adds the subcommands that remove. */
export function addRemoval(data: Command, interruption: Interruption): void {
  withStoreFlags(data.command('rm'))
    .description('remove data sets; images that need them cannot get their data any more')
    .argument('<id...>', 'data sets')
    .option('--yes', 'do not ask')
    .addHelpText('after', '\nExample:\n  port-image data rm shop01-srv-0123456789 --yes')
    .action((ids: string[], flags: RemoveFlags) => rm(ids, flags, interruption));
  withStoreFlags(data.command('gc'))
    .description('list what aborted runs left in a store, and remove it with --yes')
    .option('--yes', 'remove what is listed')
    .option('--dry-run', 'only list, also with --yes')
    .option('--older-than <duration>', 'leave alone what changed since: 30m, 24h, 7d (default: 24h)')
    .addHelpText('after', '\nExample:\n  port-image data gc --older-than 7d --yes')
    .action((flags: GcFlags) => gc(flags, interruption));
}
