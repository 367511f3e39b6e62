/** `port-image resume`. */
import { Command } from 'commander';
import { finishJob } from '../finish.ts';
import { findJob } from '../jobs.ts';
import type { Interruption } from '../signals.ts';

/** Defines the command. */
export function resumeCommand(interruption: Interruption): Command {
  return new Command('resume')
    .description('go on with a job where it stopped; what is done is not done again')
    .argument('<job>', 'job folder, or its name as in jobs list')
    .option('--json', 'end stdout with one JSON object')
    .addHelpText('after', '\nExamples:\n  port-image resume shop01\n  port-image resume ./shop01-job --json')
    .action(async (job: string, flags: { json?: boolean }) => {
      await finishJob(await findJob(job), { interruption, json: flags.json === true, dryRun: false });
    });
}
