/** Swift: one proxy, one server each for accounts, containers and objects, one device. */

import { createHash } from 'node:crypto';
import { existsSync, lstatSync, mkdirSync, readlinkSync, rmSync, statfsSync, symlinkSync } from 'node:fs';
import * as os from 'node:os';
import { authtoken, PYTHON, SERVICE_PY } from './keystone.ts';
import { runStep, type Service, succeeds } from './processes.ts';
import { type Cloud, HOST, ini, readJson, userName } from './settings.ts';

const PIPELINE =
  'catch_errors gatekeeper healthcheck proxy-logging listing_formats container_sync bulk tempurl formpost ' +
  'authtoken s3api s3token keystoneauth staticweb copy container-quotas account-quotas slo dlo ' +
  'versioned_writes symlink proxy-logging proxy-server';

/** Every digest that TempURL knows; sha1 is off by default but old clients sign with it. */
const DIGESTS = 'sha1 sha256 sha512';
/** More than the sum of a test run: with less memory than this the objects go to a disk. */
const TMPFS_BYTES = 8 * 2 ** 30;

/** The four services, their configuration written. */
export function swift(cloud: Cloud): Service[] {
  const swiftConf = cloud.write(
    'swift/swift.conf',
    ini({
      'swift-hash': { swift_hash_path_suffix: cloud.secrets.swiftHash, swift_hash_path_prefix: 'port-image' },
      'swift-constraints': { max_file_size: cloud.settings.maxObjectMib * 2 ** 20 },
    }),
  );
  const backends = (['object', 'container', 'account'] as const).map((kind) => {
    const config = cloud.write(
      `swift/${kind}-server.conf`,
      ini({
        DEFAULT: {
          ...common(cloud, `swift-${kind}`),
          devices: cloud.path('swift', 'devices'),
          mount_check: false,
          disable_fallocate: true,
          fallocate_reserve: 0,
        },
        'pipeline:main': { pipeline: `healthcheck ${kind}-server` },
        'filter:healthcheck': { use: 'egg:swift#healthcheck' },
        [`app:${kind}-server`]: { use: `egg:swift#${kind}`, recon_cache_path: cloud.mkdir('swift', 'recon') },
      }),
    );
    return service(cloud, `swift-${kind}`, `${kind}-server`, [swiftConf, config]);
  });
  const config = cloud.write('swift/proxy-server.conf', proxyConfig(cloud));
  return [...backends, service(cloud, 'swift-proxy', 'proxy-server', [swiftConf, config])];
}

function service(
  cloud: Cloud,
  name: 'swift-object' | 'swift-container' | 'swift-account' | 'swift-proxy',
  app: string,
  configs: string[],
): Service {
  const url = cloud.url(name);
  const args = [SERVICE_PY, 'swift', cloud.path('swift'), cloud.path('swift', `${app}.conf`), app];
  return { name, url, healthUrl: `${url}/healthcheck`, command: PYTHON, args, configs };
}

function common(cloud: Cloud, name: 'swift-object' | 'swift-container' | 'swift-account' | 'swift-proxy') {
  return {
    bind_ip: HOST,
    bind_port: cloud.port(name),
    workers: 0, // no fork: the recorded process is the server
    user: userName(),
    swift_dir: cloud.path('swift'),
  };
}

function proxyConfig(cloud: Cloud): string {
  const plain = (name: string) => ({ use: `egg:swift#${name}` });
  const auth = authtoken(cloud, 'swift', 'object-store');
  const { token_cache_time: _, service_type: __, www_authenticate_uri: ___, ...login } = auth;
  return ini({
    DEFAULT: common(cloud, 'swift-proxy'),
    'pipeline:main': { pipeline: PIPELINE },
    'app:proxy-server': {
      ...plain('proxy'),
      account_autocreate: true,
      // Else one full disk shuts the only device out: everything is 503 for a minute.
      error_suppression_interval: 0,
    },
    'filter:catch_errors': plain('catch_errors'),
    'filter:gatekeeper': plain('gatekeeper'),
    'filter:healthcheck': plain('healthcheck'),
    'filter:proxy-logging': plain('proxy_logging'),
    'filter:listing_formats': plain('listing_formats'),
    'filter:container_sync': plain('container_sync'),
    'filter:bulk': plain('bulk'),
    'filter:tempurl': { ...plain('tempurl'), allowed_digests: DIGESTS },
    'filter:formpost': { ...plain('formpost'), allowed_digests: DIGESTS },
    'filter:authtoken': {
      'paste.filter_factory': 'keystonemiddleware.auth_token:filter_factory',
      delay_auth_decision: true,
      ...auth,
    },
    'filter:s3api': { ...plain('s3api'), max_upload_part_num: cloud.settings.maxSegments },
    // Needs its own login: Keystone refuses anonymous /s3tokens.
    'filter:s3token': { ...plain('s3token'), auth_uri: `${cloud.url('keystone')}/v3`, ...login },
    'filter:keystoneauth': { ...plain('keystoneauth'), operator_roles: 'admin, member, swiftoperator' },
    'filter:staticweb': plain('staticweb'),
    'filter:copy': plain('copy'),
    'filter:container-quotas': plain('container_quotas'),
    'filter:account-quotas': plain('account_quotas'),
    'filter:slo': { ...plain('slo'), max_manifest_segments: cloud.settings.maxSegments },
    'filter:dlo': plain('dlo'),
    'filter:versioned_writes': {
      ...plain('versioned_writes'),
      allow_versioned_writes: true,
      allow_object_versioning: true,
    },
    'filter:symlink': plain('symlink'),
  });
}

/** Rings and the device's folder. */
export async function initSwift(cloud: Cloud): Promise<void> {
  const ports = (['swift-object', 'swift-container', 'swift-account'] as const).map(
    (n) => `${cloud.port(n)}`,
  );
  const made = cloud.path('swift', 'rings.json');
  if (readJson<string[]>(made)?.join() !== ports.join()) {
    await runStep(cloud, 'Swift rings', PYTHON, [SERVICE_PY, 'rings', cloud.path('swift'), HOST, ...ports]);
    cloud.write('swift/rings.json', JSON.stringify(ports));
  }
  attachDevices(cloud);
  mkdirSync(cloud.path('swift', 'devices', 'd1'), { recursive: true, mode: 0o700 });
}

/**
 * Where objects live. ext4 holds under 4 KB of metadata for a file, less than Swift allows for an object, so memory
 * or a loop-mounted XFS come first.
 */
function attachDevices(cloud: Cloud): void {
  const devices = cloud.path('swift', 'devices');
  const asked = cloud.settings.devices;
  const memory = memoryFolder(cloud);
  if (isLink(devices)) {
    // After a reboot the target is gone.
    mkdirSync(readlinkSync(devices), { recursive: true, mode: 0o700 });
    return;
  }
  if (existsSync(cloud.path('swift', 'devices.xfs'))) {
    if (!succeeds('mountpoint', '-q', devices)) mountXfs(cloud);
    return;
  }
  if (existsSync(devices)) return;
  if (asked === 'tmpfs' || (asked === 'auto' && memoryFits())) {
    mkdirSync(memory, { recursive: true, mode: 0o700 });
    symlinkSync(memory, devices);
    return;
  }
  mkdirSync(devices, { mode: 0o700 });
  if (asked === 'folder') return;
  if (mountXfs(cloud)) return;
  rmSync(cloud.path('swift', 'devices.xfs'), { force: true });
  if (asked === 'xfs')
    throw new Error('--devices xfs: cannot mount an XFS image here (needs root, loop devices, xfsprogs)');
}

function mountXfs(cloud: Cloud): boolean {
  const image = cloud.path('swift', 'devices.xfs');
  if (process.getuid?.() !== 0) return false;
  if (
    !existsSync(image) &&
    !(succeeds('truncate', '-s', '64G', image) && succeeds('mkfs.xfs', '-q', '-f', image))
  )
    return false;
  return succeeds('mount', '-t', 'xfs', '-o', 'loop,noatime', image, cloud.path('swift', 'devices'));
}

/** Takes the device away; what it holds is kept unless it was memory and `forget` is set. */
export function detachDevices(cloud: Cloud, forget: boolean): void {
  const devices = cloud.path('swift', 'devices');
  if (isLink(devices)) {
    if (forget) rmSync(readlinkSync(devices), { recursive: true, force: true });
  } else if (succeeds('mountpoint', '-q', devices)) {
    if (!succeeds('umount', devices)) throw new Error(`cannot unmount ${devices}`);
  }
}

const isLink = (file: string): boolean =>
  lstatSync(file, { throwIfNoEntry: false })?.isSymbolicLink() ?? false;

function memoryFolder(cloud: Cloud): string {
  const id = createHash('sha256').update(cloud.dir).digest('hex').slice(0, 12);
  return `/dev/shm/port-image-cloud-${userName()}-${id}`;
}

/** Whether /dev/shm keeps user attributes (kernel 6.6) and there is memory for what tests store. */
function memoryFits(): boolean {
  if (!existsSync('/dev/shm')) return false;
  const probe = `/dev/shm/.port-image-probe-${process.pid}`;
  try {
    mkdirSync(probe);
    const { bavail, bsize } = statfsSync('/dev/shm');
    return (
      Math.min(bavail * bsize, os.freemem()) >= TMPFS_BYTES &&
      succeeds(PYTHON, '-c', `import os; os.setxattr(${JSON.stringify(probe)}, "user.probe", b"x" * 16384)`)
    );
  } catch {
    return false;
  } finally {
    rmSync(probe, { recursive: true, force: true });
  }
}
