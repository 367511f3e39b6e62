/** A run of its own, to be killed: makes one image. Arguments: JSON of options, disk file, its bytes, version, owner, name of the sync. */
import { TargetConfig } from '../../../core/sync/config.ts';
import { openGcpTargetWith } from '../../../drivers/gcp/sync/target.ts';
import { indexDisk } from '../../../tools/blocks/index-disk.ts';
import { createInput } from '../../support/sync-input.ts';

const [options = '{}', file = '', bytes = '0', version = '', owner = '', sync = ''] = process.argv.slice(2);
const config = TargetConfig.parse({ platform: 'gcp', options: JSON.parse(options) });
const target = await openGcpTargetWith('far', config, { sync }, { pollMs: 5, stuckMs: 60_000 });
const virtualBytes = Number(bytes);
const disk = { rawPath: file, virtualBytes, index: await indexDisk(file, { virtualBytes }) };
await target.create(createInput('/nonexistent', disk, version, { owner }));
