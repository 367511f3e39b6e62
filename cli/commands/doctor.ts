/** `port-image doctor`. */
import { Command } from 'commander';
import { PortError } from '../../core/errors.ts';
import { formatBytes } from '../../core/sizes.ts';
import { printable } from '../../core/text.ts';
import { checkCloud } from '../../pipeline/cloud-check.ts';
import { doctor } from '../../tools/doctor.ts';
import { out, outJson } from '../output.ts';
import type { Interruption } from '../signals.ts';

/** Defines the command. */
export function doctorCommand(interruption: Interruption): Command {
  return new Command('doctor')
    .description(
      'foreign programs with versions, KVM with the reason, free space, what is missing and how to get it',
    )
    .option('--os-cloud <name>', 'ask this OpenStack cloud too: login, Glance, Swift, signed URLs')
    .option('--json', 'print JSON')
    .addHelpText('after', '\nExamples:\n  port-image doctor\n  port-image doctor --os-cloud mycloud')
    .action(async (flags: { osCloud?: string; json?: boolean }) => {
      const found = await doctor();
      const cloud =
        flags.osCloud === undefined ? undefined : await checkCloud(flags.osCloud, interruption.signal);
      if (flags.json === true) outJson(cloud === undefined ? found : { ...found, cloud });
      else {
        out(
          `${found.node.ok ? 'ok     ' : 'MISSING'} node ${found.node.version}${found.node.ok ? '' : '  (needs 22.19 or newer)'}`,
        );
        for (const item of found.items) {
          if (item.path !== undefined)
            out(`ok      ${item.name.padEnd(26)} ${printable(item.version ?? '').padEnd(16)} ${item.path}`);
          else {
            out(
              `${item.required ? 'MISSING' : 'absent '} ${item.name.padEnd(26)} without it: ${item.disables}`,
            );
            out(`${' '.repeat(35)}install: ${item.install}`);
          }
        }
        out(`${found.kvm.usable ? 'ok     ' : 'slow   '} KVM: ${printable(found.kvm.reason)}`);
        for (const place of found.space) out(`        ${formatBytes(place.freeBytes)} free in ${place.path}`);
        for (const { name, ok, detail, hint } of cloud ?? []) {
          out(`${ok ? 'ok     ' : 'FAILED '} ${name.padEnd(26)} ${detail}`);
          if (hint !== undefined) out(`${' '.repeat(35)}${hint}`);
        }
      }
      if (!found.ok) {
        throw new PortError('PROGRAM_MISSING', 'something required is missing', {
          hint: 'install what is listed above',
        });
      }
      if (cloud?.some((f) => !f.ok)) {
        throw new PortError(
          'CLOUD_REFUSED',
          `cloud ${printable(flags.osCloud ?? '')} lacks what is listed above`,
        );
      }
    });
}
