/** `port-image jobs`. */
import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import { Command } from 'commander';
import { PortError } from '../../core/errors.ts';
import { printable } from '../../core/text.ts';
import { jobsHome, openJob } from '../../pipeline/job.ts';
import { Journal, parseJournal } from '../../pipeline/journal.ts';
import { lockFolder } from '../../pipeline/lock.ts';
import { changesOf, summarize } from '../../pipeline/summary.ts';
import { findJob } from '../jobs.ts';
import { out, outJson } from '../output.ts';
import { printSummary } from '../summary.ts';

async function entriesOf(file: string) {
  return parseJournal(await fs.readFile(file, 'utf8').catch(() => ''));
}

/** Defines the command and its subcommands. */
export function jobsCommand(): Command {
  const jobs = new Command('jobs').description('list, show or remove jobs').exitOverride();
  jobs
    .command('list')
    .description('jobs below the default folder (or --in DIR)')
    .option('--in <dir>', 'another folder with jobs')
    .option('--json', 'print JSON')
    .addHelpText('after', '\nExample:\n  port-image jobs list')
    .exitOverride()
    .action(async (flags: { in?: string; json?: boolean }) => {
      const home = path.resolve(flags.in ?? jobsHome());
      const names = await fs.readdir(home).catch(() => []);
      const rows = [];
      for (const name of names.sort()) {
        const job = await openJob(path.join(home, name)).catch(() => undefined);
        if (job === undefined) continue;
        const entries = await entriesOf(job.paths.journal).catch(() => []);
        const summary = await summarize(job.paths, job.request, entries);
        const failed = entries.findLast((e) => e.event === 'stage-failed' || e.event === 'stage-done');
        rows.push({
          name,
          source: job.request.source,
          to: job.request.to,
          state: summary.ok
            ? 'done'
            : failed?.event === 'stage-failed'
              ? `failed in ${failed.stage}`
              : 'unfinished',
          lastStage: summary.stages.at(-1)?.name ?? null,
          dir: job.paths.dir,
        });
      }
      if (flags.json === true) outJson(rows);
      else if (rows.length === 0) out(`no jobs in ${printable(home)}`);
      else
        for (const row of rows)
          out(
            `${row.name.padEnd(28)} ${row.state.padEnd(24)} ${row.to.join(',').padEnd(16)} ${printable(row.source)}`,
          );
    });
  jobs
    .command('show')
    .description('what a job did')
    .argument('<job>', 'job folder or name')
    .option('--changes', 'also print every change')
    .option('--json', 'print JSON')
    .addHelpText('after', '\nExample:\n  port-image jobs show shop01 --changes')
    .exitOverride()
    .action(async (job: string, flags: { json?: boolean; changes?: boolean }) => {
      const { paths, request } = await openJob(await findJob(job));
      const entries = await entriesOf(paths.journal);
      const summary = await summarize(paths, request, entries);
      const changes = flags.changes === true ? changesOf(entries) : undefined;
      if (flags.json === true) outJson(changes === undefined ? summary : { ...summary, changeList: changes });
      else {
        printSummary(summary);
        for (const change of changes ?? [])
          out(
            `  ${change.stage.padEnd(14)}${change.action.padEnd(8)} ${printable(change.path)}  (${printable(change.why)})`,
          );
      }
    });
  jobs
    .command('rm')
    .description('remove a job folder with everything in it; a data store inside only with --with-data')
    .argument('<job>', 'job folder or name')
    .option('--with-data', 'also remove the data store inside the job folder')
    .option('--json', 'print JSON')
    .addHelpText('after', '\nExample:\n  port-image jobs rm shop01')
    .exitOverride()
    .action(async (job: string, flags: { json?: boolean; withData?: boolean }) => {
      const { paths } = await openJob(await findJob(job));
      const stored = await fs.readdir(path.join(paths.dir, 'store')).catch(() => []);
      if (stored.length > 0 && flags.withData !== true) {
        throw new PortError('USAGE', `${printable(paths.dir)} holds the data sets its images need`, {
          hint: 'move its store folder first, or add --with-data to remove them too',
        });
      }
      const unlock = await lockFolder(paths.dir);
      try {
        await (await Journal.open(paths.journal)).close(); // refuses a folder that is no job of ours
        await fs.rm(paths.dir, { recursive: true });
      } finally {
        await unlock();
      }
      if (flags.json === true) outJson({ removed: paths.dir });
      else out(`removed ${paths.dir}`);
    });
  return jobs;
}
