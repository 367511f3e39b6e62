/** Metadata disks as clouds write them: Nova's config drive and a NoCloud seed, as ISO files made by xorriso. */
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import * as path from 'node:path';
import { run } from '../core/command.ts';

/** What an instance is told. Objects become JSON. */
export interface InstanceMetadata {
  instanceId: string;
  hostname: string;
  /** OpenStack network_data.json. */
  networkData: object;
  /** Vendor data by name, such as `port_image` (the provision document). */
  vendorData: Record<string, unknown>;
  userData: string;
}

/**
 * Versions Nova writes (openstack/nova:nova/api/metadata/base.py), each with the release that brought a file:
 * vendor_data.json 2013-10-17, network_data.json 2015-10-15, vendor_data2.json 2016-10-06.
 */
export const NOVA_VERSIONS = [
  '2012-08-10',
  '2013-04-04',
  '2013-10-17',
  '2015-10-15',
  '2016-06-30',
  '2016-10-06',
  '2017-02-22',
  '2018-08-27',
  '2020-10-14',
  '2025-04-04',
  'latest',
] as const;

/** Files of a config drive by path. */
export function configDriveFiles(meta: InstanceMetadata): Map<string, string> {
  const files = new Map<string, string>();
  const ec2 = {
    'ami-id': 'ami-00000001',
    'ami-launch-index': 0,
    'instance-id': 'i-00000001',
    hostname: meta.hostname,
    'local-hostname': meta.hostname,
  };
  for (const version of ['2009-04-04', 'latest']) {
    files.set(`ec2/${version}/meta-data.json`, JSON.stringify(ec2));
    files.set(`ec2/${version}/user-data`, meta.userData);
  }
  const metaData = {
    uuid: meta.instanceId,
    hostname: meta.hostname,
    name: meta.hostname,
    launch_index: 0,
    availability_zone: 'nova',
  };
  for (const version of NOVA_VERSIONS) {
    const dir = `openstack/${version}`;
    files.set(`${dir}/meta_data.json`, JSON.stringify(metaData));
    files.set(`${dir}/user_data`, meta.userData);
    // 'latest' sorts behind every date.
    if (version >= '2013-10-17') files.set(`${dir}/vendor_data.json`, '{}');
    if (version >= '2015-10-15') files.set(`${dir}/network_data.json`, JSON.stringify(meta.networkData));
    if (version >= '2016-10-06') {
      files.set(`${dir}/vendor_data2.json`, JSON.stringify({ static: {}, ...meta.vendorData }));
    }
  }
  return files;
}

/** Files of a NoCloud seed by path. The provision document travels in the metadata, beside the instance id. */
export function noCloudFiles(meta: InstanceMetadata): Map<string, string> {
  return new Map([
    // JSON is YAML, which is what these files are read as.
    [
      'meta-data',
      `${JSON.stringify({ 'instance-id': meta.instanceId, 'local-hostname': meta.hostname, ...meta.vendorData })}\n`,
    ],
    ['user-data', meta.userData],
    // Also as a file of its own, for instances that look before cloud-init has run.
    ...Object.entries(meta.vendorData).map(
      ([name, value]) => [`${name.replaceAll('_', '-')}.json`, JSON.stringify(value)] as [string, string],
    ),
  ]);
}

/** Writes the ISO of a config drive (label config-2) or NoCloud seed (label cidata). */
export async function writeMetadataIso(
  target: string,
  kind: 'config-drive' | 'nocloud',
  meta: InstanceMetadata,
  signal?: AbortSignal,
): Promise<void> {
  const files = kind === 'config-drive' ? configDriveFiles(meta) : noCloudFiles(meta);
  await writeIso(target, kind === 'config-drive' ? 'config-2' : 'cidata', files, signal);
}

async function writeIso(
  target: string,
  label: string,
  files: ReadonlyMap<string, string>,
  signal: AbortSignal | undefined,
): Promise<void> {
  const tree = await mkdtemp(path.join(tmpdir(), 'port-image-seed-'));
  try {
    for (const [name, content] of files) {
      const file = path.join(tree, name);
      await mkdir(path.dirname(file), { recursive: true });
      await writeFile(file, content);
    }
    // Nova's own mkisofs options (openstack/nova:nova/virt/configdrive.py).
    const names = ['-ldots', '-allow-lowercase', '-allow-multidot', '-l', '-J', '-r'];
    const args = ['-as', 'mkisofs', '-o', target, ...names, '-publisher', 'OpenStack Compute', '-quiet'];
    await run('xorriso', [...args, '-V', label, tree], { signal, timeoutMs: 60_000 });
  } finally {
    await rm(tree, { recursive: true, force: true });
  }
}
