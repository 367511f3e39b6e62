/** Questions and orders about who sees an image: launch permissions, deprecation, protection, use. */
import type { Image, LaunchPermission } from '@aws-sdk/client-ec2';
import { isoDate } from '../../core/sync/dates.ts';
import { type Ec2, escapeFilter } from './ec2.ts';
import { awsErrorName } from './errors.ts';

/** Who may start an image besides its account. */
export interface Audience {
  everybody: boolean;
  /** Numbers of accounts. */
  accounts: readonly string[];
}

/** EC2 takes no date of the past, and rounds to minutes (API_EnableImageDeprecation). */
const AHEAD_MS = 2 * 60_000;
/** Instances that are gone, or as good as. */
const GONE = new Set(['terminated', 'shutting-down']);

const permissionsOf = ({ everybody, accounts }: Audience): LaunchPermission[] => [
  ...(everybody ? [{ Group: 'all' as const }] : []),
  ...accounts.map((UserId) => ({ UserId })),
];
const keyOf = ({ Group, UserId }: LaunchPermission): string => UserId ?? `group ${Group}`;

/** An own image by its id; undefined when it is gone. */
export async function imageById(ec2: Ec2, id: string): Promise<Image | undefined> {
  try {
    const { Images = [] } = await ec2.request(`EC2 looks for ${id}`, (sdk, client, options) =>
      client.send(new sdk.DescribeImagesCommand({ Owners: ['self'], ImageIds: [id] }), options),
    );
    return Images[0];
  } catch (error) {
    if (/NotFound|Unavailable/.test(awsErrorName(error))) return undefined;
    throw error;
  }
}

/** Lets exactly these start an image. `isNew`: nobody may yet, so nothing is asked. */
export async function setAudience(ec2: Ec2, image: string, wanted: Audience, isNew: boolean): Promise<void> {
  const { LaunchPermissions: now = [] } = isNew
    ? { LaunchPermissions: [] }
    : await ec2.request(`EC2 tells who may start ${image}`, (sdk, client, options) =>
        client.send(
          new sdk.DescribeImageAttributeCommand({ ImageId: image, Attribute: 'launchPermission' }),
          options,
        ),
      );
  const asked = permissionsOf(wanted);
  const has = (list: readonly LaunchPermission[], one: LaunchPermission) =>
    list.some((p) => keyOf(p) === keyOf(one));
  const Add = asked.filter((p) => !has(now, p));
  // organisations and the like were given by somebody else
  const Remove = now.filter((p) => (p.UserId ?? p.Group) !== undefined && !has(asked, p));
  if (Add.length + Remove.length === 0) return;
  await ec2.request(`EC2 changes who may start ${image}`, (sdk, client, options) =>
    client.send(
      new sdk.ModifyImageAttributeCommand({
        ImageId: image,
        Attribute: 'launchPermission',
        LaunchPermission: {
          ...(Add.length === 0 ? {} : { Add }),
          ...(Remove.length === 0 ? {} : { Remove }),
        },
      }),
      options,
    ),
  );
}

/** Whether EC2 refuses to deregister it. */
export function isProtected({
  DeregistrationProtection = '',
}: Pick<Image, 'DeregistrationProtection'>): boolean {
  return DeregistrationProtection.startsWith('enabled');
}

/** Makes EC2 refuse to deregister it, or no more. */
export async function protect(ec2: Ec2, image: string, on: boolean): Promise<void> {
  await ec2.request(`EC2 ${on ? 'protects' : 'no longer protects'} ${image}`, (sdk, client, options) =>
    on
      ? client.send(
          new sdk.EnableImageDeregistrationProtectionCommand({ ImageId: image, WithCooldown: false }),
          options,
        )
      : client.send(new sdk.DisableImageDeregistrationProtectionCommand({ ImageId: image }), options),
  );
}

/** From now on only its owner, and who knows its id, finds it. */
export async function deprecate(ec2: Ec2, image: string): Promise<void> {
  const at = isoDate(new Date(Date.now() + AHEAD_MS));
  await ec2.request(`EC2 deprecates ${image}`, (sdk, client, options) =>
    client.send(
      new sdk.EnableImageDeprecationCommand({ ImageId: image, DeprecateAt: new Date(at) }),
      options,
    ),
  );
}

/** The opposite. */
export async function undeprecate(ec2: Ec2, image: string): Promise<void> {
  await ec2.request(`EC2 shows ${image} again`, (sdk, client, options) =>
    client.send(new sdk.DisableImageDeprecationCommand({ ImageId: image }), options),
  );
}

/** Instances that were started from it and are still there. */
export async function instancesOf(ec2: Ec2, image: string): Promise<string[]> {
  const { Reservations = [] } = await ec2.request(`EC2 lists instances of ${image}`, (sdk, client, options) =>
    client.send(
      new sdk.DescribeInstancesCommand({ Filters: [{ Name: 'image-id', Values: [image] }] }),
      options,
    ),
  );
  return Reservations.flatMap(({ Instances = [] }) =>
    Instances.flatMap(({ InstanceId, State }) =>
      InstanceId === undefined || GONE.has(State?.Name ?? '') ? [] : [InstanceId],
    ),
  );
}

/** Removes tags. */
export async function untag(ec2: Ec2, ids: readonly string[], keys: readonly string[]): Promise<void> {
  if (keys.length === 0) return;
  await ec2.request('EC2 removes tags', (sdk, client, options) =>
    client.send(
      new sdk.DeleteTagsCommand({ Resources: [...ids], Tags: keys.map((Key) => ({ Key })) }),
      options,
    ),
  );
}

/** Own snapshots that carry all of these tags. */
export async function snapshotsWith(ec2: Ec2, tags: Readonly<Record<string, string>>) {
  const { Snapshots = [] } = await ec2.request('EC2 lists snapshots', (sdk, client, options) =>
    client.send(
      new sdk.DescribeSnapshotsCommand({
        OwnerIds: ['self'],
        Filters: Object.entries(tags).map(([key, value]) => ({
          Name: `tag:${key}`,
          Values: [escapeFilter(value)],
        })),
      }),
      options,
    ),
  );
  return Snapshots;
}
