/** `port-image stage`. */
import { Command } from 'commander';
import { PortError } from '../../core/errors.ts';
import { STAGE_NAMES } from '../../core/stage.ts';
import { printable } from '../../core/text.ts';
import { stages } from '../../stages/registry.ts';
import { finishJob } from '../finish.ts';
import { findJob } from '../jobs.ts';
import { out, outJson } from '../output.ts';
import type { Interruption } from '../signals.ts';

/** Defines the command. */
export function stageCommand(interruption: Interruption): Command {
  return new Command('stage')
    .description('run one stage of a kept job again, with what it needs before it')
    .argument('[name]', 'stage; see --list')
    .option('--job <dir>', 'job folder, or its name as in jobs list')
    .option('--list', 'print the stages in their order')
    .option('--json', 'print JSON')
    .addHelpText('after', '\nExamples:\n  port-image stage --list\n  port-image stage verify --job shop01')
    .action(async (name: string | undefined, flags: { job?: string; list?: boolean; json?: boolean }) => {
      if (flags.list === true) {
        const rows = stages.map(({ name, summary, needs, inGuest }) => ({ name, summary, needs, inGuest }));
        if (flags.json === true) outJson(rows);
        else
          for (const row of rows)
            out(`${row.name.padEnd(15)}${row.inGuest ? 'guest  ' : '       '}${row.summary}`);
        return;
      }
      const stage = STAGE_NAMES.find((s) => s === name);
      if (stage === undefined) {
        throw new PortError(
          'USAGE',
          name === undefined ? 'which stage?' : `no such stage: ${printable(name)}`,
          {
            hint: 'port-image stage --list',
          },
        );
      }
      if (flags.job === undefined)
        throw new PortError('USAGE', '--job is missing', { hint: 'name the job folder' });
      await finishJob(await findJob(flags.job), {
        interruption,
        json: flags.json === true,
        dryRun: false,
        until: stage,
        repeat: [stage],
      });
    });
}
