/** `port-image capture`. */
import * as path from 'node:path';
import { Command } from 'commander';
import { PortError } from '../../core/errors.ts';
import { formatBytes, formatSeconds } from '../../core/sizes.ts';
import { sourceText } from '../../core/source.ts';
import { printable } from '../../core/text.ts';
import { type CaptureOutcome, captureInto } from '../../pipeline/capture.ts';
import { checkedFormat, type DiskFlags, diskUses } from '../../pipeline/request/build.ts';
import { type CaptureFlags, captureOptions, requireChecksumIsUsed } from '../../pipeline/request/capture.ts';
import { captureFlags } from '../capture-flags.ts';
import { drawRun, out, outJson } from '../output.ts';
import type { Interruption } from '../signals.ts';
import { tableLines } from '../table.ts';

interface Flags extends CaptureFlags, DiskFlags {
  job?: string;
  format?: string;
  final?: boolean;
  passes?: string;
  json?: boolean;
}

function passesOf(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const passes = Number(text);
  if (!Number.isInteger(passes) || passes < 1 || passes > 100) {
    throw new PortError('USAGE', `--passes: ${printable(text)} is no number from 1 to 100`);
  }
  return passes;
}

function printOutcome(outcome: CaptureOutcome): void {
  const { inventory } = outcome;
  if (inventory !== undefined) {
    out(`${printable(inventory.hostname)}: ${printable(inventory.os.name)}, ${inventory.firmware}`);
  }
  if (outcome.passes.length > 0) {
    const lines = tableLines(outcome.passes, [
      { title: 'pass', value: (p) => (p.final ? `${p.number} last` : String(p.number)) },
      { title: 'disk', value: (p) => p.disk, shrinks: true },
      { title: 'disk size', value: (p) => formatBytes(p.diskBytes), right: true, optional: true },
      { title: 'in use', value: (p) => formatBytes(p.allocatedBytes), right: true },
      { title: 'new', value: (p) => formatBytes(p.sentBytes), right: true },
      { title: 'on the wire', value: (p) => formatBytes(p.wireBytes), right: true },
      { title: 'time', value: (p) => formatSeconds(p.seconds), right: true },
      {
        title: 'stood still',
        value: (p) => (p.frozenMs === undefined ? '' : formatSeconds(p.frozenMs / 1000)),
        right: true,
      },
      { title: 'consistency', value: (p) => p.consistency, optional: true },
    ]);
    for (const line of lines) out(line);
  }
  for (const disk of outcome.disks) {
    out(`${disk.id.padEnd(10)}${printable(disk.path)}  ${disk.format}, ${formatBytes(disk.virtualBytes)}`);
  }
  out(`consistency: ${outcome.consistency}`);
  out(`job: ${outcome.job}`);
}

/** Defines the command. */
export function captureCommand(interruption: Interruption): Command {
  const command = new Command('capture')
    .description('copy the disks of a machine or server into a job folder, in passes, while it works')
    .argument(
      '<source>',
      'ssh://host/dev/sda, host:/dev/sda, nbd://…, https://…, glance://…, ebs://…, image or OVA',
    )
    .requiredOption('--job <dir>', 'job folder; run again into the same one, and only changes are sent')
    .option('--final', 'end with a pass while the source holds still, so that the copy is consistent')
    .option('--passes <n>', 'passes before the last one (default: as many as make it short)')
    .option(
      '--disk <id=use>',
      'what a disk is for: data, image or skip, repeatable',
      (value, all: string[]) => [...all, value],
      [],
    )
    .option('--format <format>', 'format of an image, when its content does not tell')
    .option('--json', 'print JSON');
  return captureFlags(command)
    .addHelpText(
      'after',
      `
Examples:
  port-image capture ssh://root@shop01/dev/sda --job ./shop01              # tonight, and every night
  port-image capture ssh://root@shop01/dev/sda --job ./shop01 --final --quiesce "systemctl stop shop"
  port-image convert ssh://root@shop01/dev/sda --job ./shop01 --to openstack --strip auto`,
    )
    .action(async (source: string, flags: Flags) => {
      const draw = drawRun({ quiet: false });
      draw({ event: 'stage-started', stage: 'capture', index: 1, total: 1 });
      try {
        const request = {
          source: sourceText(source),
          format: checkedFormat(flags.format),
          capture: captureOptions(flags, {}),
          ...diskUses(flags, {}),
        };
        requireChecksumIsUsed(request.capture.checksum, [request.source, ...request.moreSources]);
        const outcome = await captureInto(path.resolve(flags.job ?? ''), request, {
          signal: interruption.signal,
          listener: draw,
          final: flags.final === true,
          passes: passesOf(flags.passes),
        });
        draw.end();
        if (flags.json === true) outJson(outcome);
        else printOutcome(outcome);
      } finally {
        draw.end();
      }
    });
}
