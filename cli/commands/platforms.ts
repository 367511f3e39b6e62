/** `port-image platforms`. */
import { Command } from 'commander';
import { platforms } from '../../drivers/registry.ts';
import { out, outJson } from '../output.ts';

/** Defines the command. */
export function platformsCommand(): Command {
  return new Command('platforms')
    .description('print the table of platforms: format, drivers, agents, boot hardware')
    .option('--json', 'print JSON')
    .addHelpText('after', '\nExample:\n  port-image platforms --json')
    .action((flags: { json?: boolean }) => {
      if (flags.json === true) {
        outJson(platforms);
        return;
      }
      for (const p of platforms) {
        out(`${p.name}: ${p.title}`);
        out(`  image       ${p.image.format}, whole multiples of ${p.image.alignBytes} B`);
        out(`  storage     ${p.needs.storageModules.join(' ')}`);
        out(`  network     ${p.needs.networkModules.join(' ')}`);
        out(`  agents      ${p.needs.agents.join(' ')}`);
        out(`  kernel      ${p.needs.kernelArguments.join(' ')}`);
        out(`  datasources ${p.needs.datasources.join(' ')}`);
        out(
          `  boots on    ${p.boot.machine.bios}/${p.boot.machine.uefi}, ${typeof p.boot.disk === 'string' ? p.boot.disk : `${p.boot.disk.bios}/${p.boot.disk.uefi}`}, ${p.boot.nic}, ${p.boot.metadata}`,
        );
      }
    });
}
