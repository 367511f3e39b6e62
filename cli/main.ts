#!/usr/bin/env -S MALLOC_ARENA_MAX=1 node --max-semi-space-size=1
/** The command line: one file per command in `commands/`. */
import { Command, CommanderError } from 'commander';
import { PROGRAM_VERSION } from '../core/version.ts';
import { captureCommand } from './commands/capture.ts';
import { completionCommand } from './commands/completion.ts';
import { contractCommand } from './commands/contract.ts';
import { convertCommand } from './commands/convert.ts';
import { dataCommand } from './commands/data.ts';
import { doctorCommand } from './commands/doctor.ts';
import { inspectCommand } from './commands/inspect.ts';
import { jobsCommand } from './commands/jobs.ts';
import { platformsCommand } from './commands/platforms.ts';
import { queueCommand } from './commands/queue.ts';
import { resumeCommand } from './commands/resume.ts';
import { stageCommand } from './commands/stage.ts';
import { submitCommand } from './commands/submit.ts';
import { syncCommand } from './commands/sync.ts';
import { verifyCommand } from './commands/verify.ts';
import { workerCommand } from './commands/worker.ts';
import { report } from './output.ts';
import { onInterrupt } from './signals.ts';

process.umask(0o077);
const interruption = onInterrupt();
// A reader that went away (`| head`, a closed terminal) must not end a run in the middle.
for (const stream of [process.stdout, process.stderr]) stream.on('error', () => {});

const program = new Command('port-image')
  .description(
    "Turns a real server's disk into a slim, bootable, verified cloud image; its data travels beside it.",
  )
  .version(PROGRAM_VERSION)
  .showHelpAfterError('(run with --help for usage)')
  .addHelpText(
    'after',
    `
Examples:
  port-image inspect /images/shop01.raw
  port-image convert /images/shop01.raw --to openstack --strip auto
  port-image doctor

Exit status: 0 done, 1 bug, 2 usage or configuration, 3 unsafe source, 4 damaged or unsupported source,
5 this machine, 6 remote, 7 verification failed, 130/143 interrupted.`,
  );

for (const command of [
  convertCommand(interruption),
  captureCommand(interruption),
  inspectCommand(interruption),
  stageCommand(interruption),
  resumeCommand(interruption),
  verifyCommand(interruption),
  syncCommand(interruption),
  workerCommand(interruption),
  submitCommand(interruption),
  queueCommand(),
  contractCommand(interruption),
  dataCommand(interruption),
  jobsCommand(),
  doctorCommand(interruption),
  platformsCommand(),
  completionCommand(() => program),
]) {
  program.addCommand(command);
}
for (const command of program.commands) command.exitOverride();
program.exitOverride();

try {
  await program.parseAsync();
} catch (error) {
  if (error instanceof CommanderError) {
    // --help and --version end with 0; wrong usage with 2 as documented
    process.exitCode = error.exitCode === 0 ? 0 : 2;
  } else {
    process.exitCode = report(error, interruption.name());
  }
}
// children were stopped and files closed by then; a stray timer must not keep the shell waiting
process.exit();
