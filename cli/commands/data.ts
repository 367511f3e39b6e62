/** `port-image data`: the data sets of a store, and who may read them. */
import { Command } from 'commander';
import { addAccess } from '../data/access.ts';
import { addReading } from '../data/read.ts';
import { addRemoval } from '../data/remove.ts';
import type { Interruption } from '../signals.ts';

const EXAMPLES = `
Examples:
  port-image data list --store swift:data --os-cloud mycloud --json
  port-image data mint shop01-srv-0123456789 --user-data user-data.yaml
  port-image data restore shop01-srv-0123456789 /srv/new --from-provision provision.json`;

/** Defines the command and its subcommands. */
export function dataCommand(interruption: Interruption): Command {
  const data = new Command('data')
    .description('data sets of a store: list, check, restore, hand out, take back, remove')
    .addHelpText('after', EXAMPLES)
    .exitOverride();
  addReading(data, interruption);
  addAccess(data, interruption);
  addRemoval(data, interruption);
  return data;
}
