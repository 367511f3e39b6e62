/** `port-image doctor`. */
import { Command } from 'commander';
import { PortError } from '../../core/errors.ts';
import { formatBytes } from '../../core/sizes.ts';
import { printable } from '../../core/text.ts';
import { doctor } from '../../tools/doctor.ts';
import { out, outJson } from '../output.ts';

/** Defines the command. */
export function doctorCommand(): Command {
  return new Command('doctor')
    .description(
      'foreign programs with versions, KVM with the reason, free space, what is missing and how to get it',
    )
    .option('--json', 'print JSON')
    .addHelpText('after', '\nExample:\n  port-image doctor')
    .action(async (flags: { json?: boolean }) => {
      const found = await doctor();
      if (flags.json === true) outJson(found);
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
      }
      if (!found.ok) {
        throw new PortError('PROGRAM_MISSING', 'something required is missing', {
          hint: 'install what is listed above',
        });
      }
    });
}
