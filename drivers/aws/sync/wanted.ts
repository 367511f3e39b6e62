/** What is asked of an image, in the words of EC2. Throws before anything is made. */
import type { RegisterImageCommandInput } from '@aws-sdk/client-ec2';
import { PortError } from '../../../core/errors.ts';
import type { ImageIdentity, SyncImage, WantedImage } from '../../../core/sync/types.ts';
import { printable } from '../../../core/text.ts';
import type { Audience } from '../../../tools/aws/ec2-published.ts';
import type { AwsOptions } from '../options.ts';
import { amiName, PROPERTY_TAG, TAG_CHARS } from './marks.ts';

/** Architectures by the names of the kernel, of Debian and of Glance (API_RegisterImage Architecture). */
const ARCHITECTURES: Readonly<Record<string, 'x86_64' | 'arm64'>> = {
  amd64: 'x86_64',
  x86_64: 'x86_64',
  arm64: 'arm64',
  aarch64: 'arm64',
};
const ROOT_DEVICE = '/dev/sda1';
const ACCOUNT = /^\d{12}$/;
/** EC2 has 50 tags for a resource; the rest are ours and the user's. */
const MOST_PROPERTIES = 24;

/** Who may start it. Throws CONFIG for what EC2 does not have. */
export function audienceOf({ visibility, members }: WantedImage, options: AwsOptions): Audience {
  if (visibility === 'community')
    throw new PortError('CONFIG', 'EC2 has no community images', {
      hint: 'take private, shared or public in the rule for this target',
    });
  const wrong = members.find((member) => !ACCOUNT.test(member));
  if (wrong !== undefined)
    throw new PortError('CONFIG', `not the number of an AWS account: ${printable(wrong).slice(0, 100)}`, {
      hint: 'members of an AWS target are account numbers of 12 digits; give it a rule of its own',
    });
  return {
    everybody: visibility === 'public',
    accounts: [...new Set([...members, ...options.shareWith])].sort(),
  };
}

/** Tags that show what was asked for. */
export function wantedTags(
  { name, properties }: WantedImage,
  options: AwsOptions,
  warn: (text: string) => void,
): Record<string, string> {
  const tags: Record<string, string> = { ...options.tags };
  const fits = Object.entries(properties).filter(
    ([key, value]) => PROPERTY_TAG.length + key.length <= TAG_CHARS.key && value.length <= TAG_CHARS.value,
  );
  for (const [key, value] of fits.slice(0, MOST_PROPERTIES)) tags[`${PROPERTY_TAG}${key}`] = value;
  const left = Object.keys(properties).length - Math.min(fits.length, MOST_PROPERTIES);
  if (left > 0) warn(`${left} properties of ${printable(name)} do not fit into tags of EC2 and are left out`);
  return { ...tags, Name: name.slice(0, TAG_CHARS.value) };
}

/** The image over a snapshot. Throws CLOUD_REFUSED, CONFIG. */
export function registration(
  sync: string,
  image: SyncImage,
  identity: ImageIdentity,
  options: AwsOptions,
): Omit<RegisterImageCommandInput, 'BlockDeviceMappings' | 'TagSpecifications'> {
  const known = Object.hasOwn(ARCHITECTURES, image.arch) ? ARCHITECTURES[image.arch] : undefined;
  if (known === undefined)
    throw new PortError('CLOUD_REFUSED', `EC2 has no machines for ${printable(image.arch)}`);
  if (options.tpm && image.firmware !== 'uefi')
    throw new PortError('CONFIG', 'aws.tpm needs images that start by UEFI, this one starts by BIOS');
  return {
    Name: amiName(sync, identity),
    Description: printable(`${identity.series} ${identity.version}, by port-image sync`).slice(0, 255),
    Architecture: known,
    VirtualizationType: 'hvm',
    RootDeviceName: ROOT_DEVICE,
    EnaSupport: true,
    SriovNetSupport: 'simple',
    BootMode: image.firmware === 'uefi' ? 'uefi' : 'legacy-bios',
    ImdsSupport: 'v2.0',
    ...(options.tpm ? { TpmSupport: 'v2.0' as const } : {}),
  };
}

/** Its only disk. */
export function mappingOf(snapshot: string): RegisterImageCommandInput['BlockDeviceMappings'] {
  return [
    {
      DeviceName: ROOT_DEVICE,
      Ebs: { SnapshotId: snapshot, VolumeType: 'gp3', DeleteOnTermination: true },
    },
  ];
}
