/** What an image is called in ECS and what ImportImage is told of it (API 2014-05-26). */
import { PortError } from '../../core/errors.ts';
import type { Facts } from '../../core/facts.ts';
import { GIB } from '../../core/sizes.ts';
import { printable } from '../../core/text.ts';
import type { Artifact } from '../../core/types.ts';

const NAME_CHARS = 128;

/** `Platform` by the id of os-release (values of ImportImageRequest.Platform). */
const PLATFORMS: Readonly<Record<string, string>> = {
  debian: 'Debian',
  ubuntu: 'Ubuntu',
  centos: 'CentOS',
  rhel: 'RedHat',
  redhat: 'RedHat',
  fedora: 'Fedora',
  rocky: 'Rocky Linux',
  almalinux: 'AlmaLinux',
  sles: 'SUSE',
  opensuse: 'OpenSUSE',
  'opensuse-leap': 'OpenSUSE',
  gentoo: 'Gentoo',
};

/** A name of 2 to 128 characters that begins with a letter, `tail` kept whole. Throws USAGE when no letter is left. */
export function ecsName(name: string, tail: string): string {
  const end = tail === '' ? '' : `-${tail}`;
  const start = name
    .replace(/[^A-Za-z0-9.:_-]+/g, '-')
    .replace(/^[^A-Za-z]+/, '')
    .replace(/^(?=aliyun|acs:)/i, 'x-')
    .slice(0, NAME_CHARS - end.length);
  if (start === '') {
    throw new PortError('USAGE', `no name for ECS can be made of ${printable(name)}`, {
      hint: 'a letter is needed: --name',
    });
  }
  return `${start}${end}`.padEnd(2, '-');
}

/** The name of the guest's architecture. Throws CLOUD_REFUSED for one ECS has not. */
export function ecsArchitecture(arch: string): string {
  if (arch === 'x86_64' || arch === 'amd64') return 'x86_64';
  if (arch === 'aarch64' || arch === 'arm64') return 'arm64';
  if (/^i[3-6]86$/.test(arch)) return 'i386';
  throw new PortError('CLOUD_REFUSED', `ECS has no machines of ${printable(arch)}`);
}

/** `ImdsSupport=v2` would lock out older cloud-init; NVMe is claimed when every kernel of the boot menu has it. */
function nvme(facts: Pick<Facts, 'kernels'>): string {
  const kernels = facts.kernels.filter((k) => k.inBootMenu);
  const has = kernels.every((k) => k.initramfsModules.includes('nvme') || k.builtin.includes('nvme'));
  return kernels.length > 0 && has ? 'supported' : 'unsupported';
}

/** Parameters of ImportImage; the first of `files` is that of the system disk. */
export function importParameters(input: {
  facts: Pick<Facts, 'os' | 'firmware' | 'kernels'>;
  name: string;
  description: string;
  bucket: string;
  roleName: string;
  files: readonly { key: string; artifact: Pick<Artifact, 'virtualBytes'> }[];
  tags: Readonly<Record<string, string>>;
}): Record<string, string> {
  const { facts, files } = input;
  const parameters: Record<string, string> = {
    ImageName: input.name,
    Description: input.description,
    Architecture: ecsArchitecture(facts.os.arch),
    BootMode: facts.firmware === 'uefi' ? 'UEFI' : 'BIOS',
    OSType: 'linux',
    Platform: PLATFORMS[facts.os.distro] ?? 'Others Linux',
    LicenseType: 'Auto',
    RoleName: input.roleName,
    'Features.NvmeSupport': nvme(facts),
  };
  for (const [i, { key, artifact }] of files.entries()) {
    const disk = `DiskDeviceMapping.${i + 1}`;
    parameters[`${disk}.Format`] = 'QCOW2';
    parameters[`${disk}.OSSBucket`] = input.bucket;
    parameters[`${disk}.OSSObject`] = key;
    parameters[`${disk}.DiskImageSize`] = String(Math.ceil(artifact.virtualBytes / GIB));
  }
  for (const [i, [name, value]] of Object.entries(input.tags).entries()) {
    parameters[`Tag.${i + 1}.Key`] = name;
    parameters[`Tag.${i + 1}.Value`] = value;
  }
  return parameters;
}
