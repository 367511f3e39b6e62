/** A run of its own, to be killed: makes one image. Arguments: clouds.yaml, sync, state folder, disk file, bytes, version, owner. */
import { TargetConfig } from '../../../core/sync/config.ts';
import { openOpenstackTarget } from '../../../drivers/openstack/sync/target.ts';
import { indexDisk } from '../../../tools/blocks/index-disk.ts';
import { CLOUD_NAME } from '../../support/cloud.ts';
import { createInput } from '../../support/sync-input.ts';

const [clouds = '', sync = '', stateDir = '', file = '', bytes = '0', version = '', owner = ''] =
  process.argv.slice(2);
process.env.OS_CLIENT_CONFIG_FILE = clouds;
const config = TargetConfig.parse({ platform: 'openstack', options: { cloud: CLOUD_NAME } });
const { signal } = new AbortController();
const facts = { sync, stateDir, owner, staleAfterMs: 60_000, signal };
const target = await openOpenstackTarget('there', config, facts);
const virtualBytes = Number(bytes);
const disk = { rawPath: file, virtualBytes, index: await indexDisk(file, { virtualBytes }) };
await target.create(createInput(stateDir, disk, version, { owner, stateDir }));
await target.close();
