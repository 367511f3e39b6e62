/** The files of Nova's config drive and of a NoCloud seed, in their exact layout; metadata-disk.ts writes the disk. */
import { randomBytes } from 'node:crypto';

/** What an instance is told. Objects become JSON. */
export interface InstanceMetadata {
  instanceId: string;
  hostname: string;
  /** OpenStack network_data.json. */
  networkData: object;
  /** Dynamic vendor data by name, such as `port_image` (the provision document): vendor_data2.json. */
  vendorData: Record<string, unknown>;
  /** The cloud's own vendor data, the same for every instance: vendor_data.json, and `static` in vendor_data2.json. */
  staticVendorData?: Record<string, unknown>;
  /** Without it there are no user_data files. */
  userData?: string;
  /** Properties of the server, at most 255 characters each: `openstack server create --property NAME=VALUE`. */
  meta?: Readonly<Record<string, string>>;
  /** The key pair of the server. */
  publicKey?: { name: string; type: 'ssh' | 'x509'; data: string };
  /** Injected files (personality), found below openstack/content/. */
  files?: readonly { path: string; content: string }[];
  projectId?: string;
  availabilityZone?: string;
  /** Name of the flavour. */
  instanceType?: string;
}

/**
 * Versions Nova writes (openstack/nova:nova/api/metadata/base.py OPENSTACK_VERSIONS). What came with which:
 * random_seed 2013-04-04, vendor_data.json 2013-10-17, network_data.json and project_id 2015-10-15, devices
 * 2016-06-30, vendor_data2.json 2016-10-06, dedicated_cpus 2020-10-14.
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

/** All others are in the default of Nova's `config_drive_skip_versions`. */
const EC2_VERSIONS = ['2009-04-04', 'latest'] as const;

/** EC2 ids of the first image and instance of a cloud. */
const EC2_IDS = { ami: 'ami-00000001', instance: 'i-00000001' } as const;

const AVAILABILITY_ZONE = 'nova';

/** Files of a config drive by path. */
export function configDriveFiles(meta: InstanceMetadata): Map<string, string> {
  const files = new Map<string, string>();
  const put = (name: string, content: object) => files.set(name, JSON.stringify(content));
  for (const version of EC2_VERSIONS) {
    if (meta.userData !== undefined) files.set(`ec2/${version}/user-data`, meta.userData);
    put(`ec2/${version}/meta-data.json`, ec2MetaData(meta));
  }
  const randomSeed = randomBytes(512).toString('base64');
  const fixed = meta.staticVendorData ?? {};
  for (const version of NOVA_VERSIONS) {
    const dir = `openstack/${version}`;
    // 'latest' sorts behind every date.
    put(`${dir}/meta_data.json`, metaData(meta, version, randomSeed));
    if (meta.userData !== undefined) files.set(`${dir}/user_data`, meta.userData);
    if (version >= '2013-10-17') put(`${dir}/vendor_data.json`, fixed);
    if (version >= '2015-10-15') put(`${dir}/network_data.json`, meta.networkData);
    if (version >= '2016-10-06') put(`${dir}/vendor_data2.json`, { static: fixed, ...meta.vendorData });
  }
  meta.files?.forEach((file, n) => {
    files.set(`openstack/${contentPath(n)}`, file.content);
  });
  return files;
}

const contentPath = (n: number) => `content/${String(n).padStart(4, '0')}`;

function metaData(meta: InstanceMetadata, version: string, randomSeed: string): object {
  const { publicKey: key, files = [] } = meta;
  return {
    uuid: meta.instanceId,
    ...(meta.meta === undefined || Object.keys(meta.meta).length === 0 ? {} : { meta: meta.meta }),
    ...(files.length === 0
      ? {}
      : { files: files.map((f, n) => ({ path: f.path, content_path: `/${contentPath(n)}` })) }),
    ...(key === undefined
      ? {}
      : {
          public_keys: { [key.name]: key.data },
          keys: [{ name: key.name, type: key.type, data: key.data }],
        }),
    hostname: meta.hostname,
    name: meta.hostname,
    launch_index: 0,
    availability_zone: meta.availabilityZone ?? AVAILABILITY_ZONE,
    ...(version < '2013-04-04' ? {} : { random_seed: randomSeed }),
    ...(version < '2015-10-15' ? {} : { project_id: meta.projectId ?? '0'.repeat(32) }),
    ...(version < '2016-06-30' ? {} : { devices: [] }),
    ...(version < '2020-10-14' ? {} : { dedicated_cpus: [] }),
  };
}

function ec2MetaData(meta: InstanceMetadata): object {
  const { publicKey: key } = meta;
  return {
    'ami-id': EC2_IDS.ami,
    'ami-launch-index': 0,
    // Nova's own word (openstack/nova:nova/api/metadata/base.py).
    'ami-manifest-path': 'FIXME',
    'instance-id': EC2_IDS.instance,
    hostname: meta.hostname,
    'local-ipv4': '',
    'reservation-id': 'r-00000001',
    'security-groups': ['default'],
    ...(key === undefined ? {} : { 'public-keys': { '0': { 'openssh-key': key.data } } }),
    'local-hostname': meta.hostname,
    'public-hostname': meta.hostname,
    'public-ipv4': '',
    'instance-type': meta.instanceType ?? 'm1.small',
    'block-device-mapping': { ami: 'vda', root: '/dev/vda' },
    placement: { 'availability-zone': meta.availabilityZone ?? AVAILABILITY_ZONE },
    'instance-action': 'none',
  };
}

/** Files of a NoCloud seed by path. The provision document travels in the metadata, beside the instance id. */
export function noCloudFiles(meta: InstanceMetadata): Map<string, string> {
  return new Map([
    // JSON is YAML, which is what these files are read as.
    [
      'meta-data',
      `${JSON.stringify({ 'instance-id': meta.instanceId, 'local-hostname': meta.hostname, ...meta.vendorData })}\n`,
    ],
    ['user-data', meta.userData ?? ''],
    // Also as a file of its own, for instances that look before cloud-init has run.
    ...Object.entries(meta.vendorData).map(
      ([name, value]) => [`${name.replaceAll('_', '-')}.json`, JSON.stringify(value)] as [string, string],
    ),
  ]);
}

/** Most characters of one value of instance metadata (Nova's schema). */
const META_VALUE = 255;

/** Instance metadata that points to a provision document by its URL, cut into values Nova accepts. */
export function pointerMeta(url: string): Record<string, string> {
  const meta: Record<string, string> = {};
  for (let n = 0; n * META_VALUE < url.length; n++) {
    meta[n === 0 ? 'port_image' : `port_image_${n + 1}`] = url.slice(n * META_VALUE, (n + 1) * META_VALUE);
  }
  return meta;
}
