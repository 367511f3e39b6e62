/** `port-image inspect`. */
import * as fs from 'node:fs/promises';
import * as os from 'node:os';
import * as path from 'node:path';
import { Command } from 'commander';
import { Facts } from '../../core/facts.ts';
import { printable } from '../../core/text.ts';
import { runJob } from '../../pipeline/engine.ts';
import { createJob } from '../../pipeline/job.ts';
import { buildRequest } from '../../pipeline/request/build.ts';
import type { CaptureFlags } from '../../pipeline/request/capture.ts';
import { summarize } from '../../stages/inspect/summary.ts';
import { captureFlags } from '../capture-flags.ts';
import { drawRun, out, outJson } from '../output.ts';
import type { Interruption } from '../signals.ts';

const collect = (value: string, before: string[] | undefined): string[] => [...(before ?? []), value];

/** Defines the command. */
export function inspectCommand(interruption: Interruption): Command {
  const command = new Command('inspect')
    .description('tell what is on a disk: system, file systems, boot, network, services, application data')
    .argument('<source>', 'image, OVA, block device, ssh://host/dev/sda, https://…; never written to')
    .option('--with-disk <source>', 'one more disk of the same machine, repeatable', collect)
    .option('--format <format>', 'format of the source, when its content does not tell')
    .option('--root <device>', 'which system to look at, when the disk has several')
    .option('--json', 'print all facts as JSON');
  return captureFlags(command)
    .addHelpText(
      'after',
      '\nExamples:\n  port-image inspect shop01.raw\n  port-image inspect shop01.qcow2 --json > facts.json',
    )
    .action(
      async (
        source: string,
        flags: CaptureFlags & { withDisk?: string[]; format?: string; root?: string; json?: boolean },
      ) => {
        const dir = await fs.mkdtemp(
          path.join(
            process.env.TMPDIR ?? (os.tmpdir() === '/tmp' ? '/var/tmp' : os.tmpdir()),
            'port-image-inspect-',
          ),
        );
        const draw = drawRun({ quiet: false });
        try {
          const { request } = await buildRequest(source, {
            ...flags,
            to: 'qemu',
            job: dir,
            verify: false,
            compare: false,
          });
          const paths = await createJob(dir, request);
          await runJob(dir, { signal: interruption.signal, listener: draw, until: 'inspect' });
          const facts = Facts.parse(JSON.parse(await fs.readFile(paths.facts, 'utf8')));
          draw.end();
          if (flags.json === true) outJson(facts);
          else for (const line of summarize(facts)) out(printable(line));
        } finally {
          draw.end();
          await fs.rm(dir, { recursive: true, force: true });
        }
      },
    );
}
