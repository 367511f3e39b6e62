/** The few questions of EC2 an upload asks, each with its errors told by a code. */
import type * as Sdk from '@aws-sdk/client-ec2';
import { PortError } from '../../core/errors.ts';
import { pause } from '../../core/pause.ts';
import { printable } from '../../core/text.ts';
import { type AwsPlace, ec2Client } from './clients.ts';
import { awsError, awsErrorName } from './errors.ts';

/** Pauses and patience; tests shorten them. */
export interface AwsTiming {
  pollMs: number;
  /** How long a snapshot or an image may stay pending. */
  settleMs: number;
}

/** Snapshots of hundreds of GiB take their time to become usable. */
export const AWS_TIMING: AwsTiming = { pollMs: 5000, settleMs: 2 * 3600_000 };
/** EC2 answers from several copies of its state: an answer is believed when it came so many times in a row. */
const EQUAL_ANSWERS = 3;

/** EC2 in one region. Throws CLOUD, CLOUD_LOGIN, CLOUD_REFUSED, CLOUD_CONFLICT, INTERRUPTED. Close it. */
export class Ec2 {
  readonly #sdk: typeof Sdk;
  readonly #client: Sdk.EC2Client;
  readonly #signal: AbortSignal;
  readonly #timing: AwsTiming;

  private constructor(sdk: typeof Sdk, client: Sdk.EC2Client, signal: AbortSignal, timing: AwsTiming) {
    this.#sdk = sdk;
    this.#client = client;
    this.#signal = signal;
    this.#timing = timing;
  }

  /** Asks nothing yet. */
  static async open(place: AwsPlace, signal: AbortSignal, timing: AwsTiming): Promise<Ec2> {
    return new Ec2(await import('@aws-sdk/client-ec2'), await ec2Client(place), signal, timing);
  }

  close(): void {
    this.#client.destroy();
  }

  async #ask<T>(what: string, request: (options: { abortSignal: AbortSignal }) => Promise<T>): Promise<T> {
    try {
      return await request({ abortSignal: this.#signal });
    } catch (error) {
      throw awsError(error, what, this.#signal);
    }
  }

  /** Any further request. */
  request<T>(
    what: string,
    send: (sdk: typeof Sdk, client: Sdk.EC2Client, options: { abortSignal: AbortSignal }) => Promise<T>,
  ): Promise<T> {
    return this.#ask(what, (options) => send(this.#sdk, this.#client, options));
  }

  /** Own images that carry a tag. */
  async images(tag: string, value: string): Promise<Sdk.Image[]> {
    const { Images = [] } = await this.#ask('EC2 lists images', (options) =>
      this.#client.send(
        new this.#sdk.DescribeImagesCommand({
          Owners: ['self'],
          Filters: [{ Name: `tag:${tag}`, Values: [escapeFilter(value)] }],
        }),
        options,
      ),
    );
    return Images;
  }

  /** The own image of this name, whoever made it. */
  async imageNamed(name: string): Promise<Sdk.Image | undefined> {
    const { Images = [] } = await this.#ask('EC2 looks for the image', (options) =>
      this.#client.send(
        new this.#sdk.DescribeImagesCommand({
          Owners: ['self'],
          Filters: [{ Name: 'name', Values: [escapeFilter(name)] }],
        }),
        options,
      ),
    );
    return Images.find((image) => image.Name === name);
  }

  /** Own snapshots that carry a tag. */
  async snapshots(tag: string, value: string): Promise<Sdk.Snapshot[]> {
    const { Snapshots = [] } = await this.#ask('EC2 lists snapshots', (options) =>
      this.#client.send(
        new this.#sdk.DescribeSnapshotsCommand({
          OwnerIds: ['self'],
          Filters: [{ Name: `tag:${tag}`, Values: [escapeFilter(value)] }],
        }),
        options,
      ),
    );
    return Snapshots;
  }

  /** Asks whether an image might be registered, without doing it. */
  async mayRegister(name: string): Promise<void> {
    try {
      await this.#client.send(new this.#sdk.RegisterImageCommand({ Name: name, DryRun: true }), {
        abortSignal: this.#signal,
      });
    } catch (error) {
      // Everything else is about what the request leaves out.
      const told = awsError(error, 'EC2 is asked for the right to register images', this.#signal);
      if (told.code === 'CLOUD_LOGIN' || /Unauthorized|AccessDenied/.test(awsErrorName(error))) throw told;
      if (told.code === 'INTERRUPTED' || told.temporary) throw told;
    }
  }

  /** Waits until a snapshot can be used. */
  async snapshotReady(id: string, onProgress: (text: string) => void): Promise<void> {
    await this.#settle(`snapshot ${id}`, onProgress, async () => {
      const { Snapshots = [] } = await this.#client.send(
        new this.#sdk.DescribeSnapshotsCommand({ SnapshotIds: [id] }),
        { abortSignal: this.#signal },
      );
      const [snapshot] = Snapshots;
      return { state: snapshot?.State ?? 'unknown', why: snapshot?.StateMessage, done: 'completed' };
    });
  }

  /** Waits until an image can be started. */
  async imageReady(id: string, onProgress: (text: string) => void): Promise<void> {
    await this.#settle(`image ${id}`, onProgress, async () => {
      const { Images = [] } = await this.#client.send(
        new this.#sdk.DescribeImagesCommand({ ImageIds: [id] }),
        { abortSignal: this.#signal },
      );
      const [image] = Images;
      return { state: image?.State ?? 'unknown', why: image?.StateReason?.Message, done: 'available' };
    });
  }

  async #settle(
    what: string,
    onProgress: (text: string) => void,
    look: () => Promise<{ state: string; why: string | undefined; done: string }>,
  ): Promise<void> {
    const until = performance.now() + this.#timing.settleMs;
    let equal = 0;
    for (;;) {
      const { state, why, done } = await look().catch((error: unknown) => {
        // What was made a moment ago may not be known everywhere yet.
        if (/NotFound/.test(awsErrorName(error))) return { state: 'unknown', why: undefined, done: '' };
        throw awsError(error, `EC2 is asked for ${what}`, this.#signal);
      });
      equal = state === done ? equal + 1 : 0;
      if (equal >= EQUAL_ANSWERS) return;
      if (/^(error|failed|invalid|recoverable|deregistered)$/.test(state)) {
        throw new PortError('CLOUD', `${what} became ${state}: ${printable(why ?? 'no reason given')}`);
      }
      if (performance.now() > until) {
        throw new PortError('CLOUD', `${what} is still ${state}`, {
          hint: 'look at it in the console; resuming the job waits again',
          temporary: true,
        });
      }
      onProgress(`waiting for ${what}: ${state}`);
      await pause(equal > 0 ? Math.min(1000, this.#timing.pollMs) : this.#timing.pollMs, this.#signal);
    }
  }

  /** Registers an image. Gives its id. */
  async register(request: Sdk.RegisterImageCommandInput): Promise<string> {
    const { ImageId } = await this.#ask('EC2 registers the image', (options) =>
      this.#client.send(new this.#sdk.RegisterImageCommand(request), options),
    );
    if (ImageId === undefined) throw new PortError('CLOUD', 'EC2 registered an image without an id');
    return ImageId;
  }

  /** Sets tags; what was made a moment ago may not be known yet, so it is tried again. */
  async tag(ids: readonly string[], tags: Readonly<Record<string, string>>): Promise<void> {
    const request = {
      Resources: [...ids],
      Tags: Object.entries(tags).map(([Key, Value]) => ({ Key, Value })),
    };
    for (let tried = 1; ; tried++) {
      try {
        await this.#client.send(new this.#sdk.CreateTagsCommand(request), { abortSignal: this.#signal });
        return;
      } catch (error) {
        if (tried < 5 && /NotFound/.test(awsErrorName(error))) await pause(this.#timing.pollMs, this.#signal);
        else throw awsError(error, 'EC2 sets tags', this.#signal);
      }
    }
  }

  /** Copies an image into this region. Gives the id of the copy. */
  async copy(name: string, image: string, from: string, token: string): Promise<string> {
    const { ImageId } = await this.#ask(`EC2 copies ${image}`, (options) =>
      this.#client.send(
        new this.#sdk.CopyImageCommand({
          Name: name,
          SourceImageId: image,
          SourceRegion: from,
          ClientToken: token,
          CopyImageTags: true,
        }),
        options,
      ),
    );
    if (ImageId === undefined) throw new PortError('CLOUD', 'EC2 copied an image without an id');
    return ImageId;
  }

  /** Lets accounts start an image. */
  async share(image: string, accounts: readonly string[]): Promise<void> {
    await this.#ask(`EC2 shares ${image}`, (options) =>
      this.#client.send(
        new this.#sdk.ModifyImageAttributeCommand({
          ImageId: image,
          Attribute: 'launchPermission',
          LaunchPermission: { Add: accounts.map((UserId) => ({ UserId })) },
        }),
        options,
      ),
    );
  }

  /** Removes an image and the snapshots it was made of. */
  async remove(image: Sdk.Image): Promise<void> {
    await this.#ask(`EC2 removes ${image.ImageId}`, (options) =>
      this.#client.send(new this.#sdk.DeregisterImageCommand({ ImageId: image.ImageId }), options),
    );
    for (const { Ebs } of image.BlockDeviceMappings ?? []) {
      if (Ebs?.SnapshotId !== undefined) await this.removeSnapshot(Ebs.SnapshotId);
    }
  }

  /** Removes a snapshot; one that is gone is fine. */
  async removeSnapshot(id: string): Promise<void> {
    try {
      await this.#client.send(new this.#sdk.DeleteSnapshotCommand({ SnapshotId: id }), {
        abortSignal: this.#signal,
      });
    } catch (error) {
      if (!/NotFound/.test(awsErrorName(error))) throw awsError(error, `EC2 removes ${id}`, this.#signal);
    }
  }
}

/** Filters take `*` and `?` as wild cards (API_DescribeImages). */
export function escapeFilter(value: string): string {
  return value.replace(/[*?\\]/g, '\\$&');
}
