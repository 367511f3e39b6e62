/** A run of its own, to be killed: makes one image. Arguments: JSON of options, state folder, disk file, version, owner. */
import { TargetConfig } from '../../../core/sync/config.ts';
import { openAwsTargetWith } from '../../../drivers/aws/sync/target.ts';
import { indexDisk } from '../../../tools/blocks/index-disk.ts';
import { createInput } from '../../support/sync-input.ts';

const [options = '{}', stateDir = '', file = '', bytes = '0', version = '', owner = ''] =
  process.argv.slice(2);
const config = TargetConfig.parse({ platform: 'aws', options: JSON.parse(options) });
const target = await openAwsTargetWith(
  'west',
  config,
  { sync: 'nightly', stateDir },
  { pollMs: 10, settleMs: 20_000 },
);
const virtualBytes = Number(bytes);
const disk = { rawPath: file, virtualBytes, index: await indexDisk(file, { virtualBytes }) };
await target.create(createInput(stateDir, disk, version, { owner }));
