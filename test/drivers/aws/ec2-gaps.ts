/** What EC2 and EBS do by their documentation and moto 5.2 does not: tokens, names, tags at registration, deprecation, protection. */

/** An answer of the gate itself. */
export interface GateAnswer {
  status: number;
  headers: Record<string, string>;
  body: string;
}

const xml = (status: number, body: string): GateAnswer => ({
  status,
  headers: { 'content-type': 'text/xml' },
  body,
});
const error = (code: string, message: string): GateAnswer =>
  xml(
    400,
    `<Response><Errors><Error><Code>${code}</Code><Message>${message}</Message></Error></Errors><RequestID>1</RequestID></Response>`,
  );
const done = (action: string): GateAnswer =>
  xml(
    200,
    `<${action}Response xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"><requestId>1</requestId><return>true</return></${action}Response>`,
  );
const idIn = (text: string, tag: string): string | undefined =>
  new RegExp(`<${tag}>([^<]+)</${tag}>`).exec(text)?.[1];

/** State of the gaps. */
export class Ec2Gaps {
  /** When images become deprecated, by id. */
  readonly deprecated = new Map<string, string>();
  readonly protected = new Set<string>();
  /** Ids of images by name. */
  readonly #names = new Map<string, string>();
  /** StartSnapshot by client token: what was asked, and what was answered. */
  readonly #tokens = new Map<string, { asked: string; told: Promise<string> }>();
  /** Snapshots begun by EBS direct, and whether they were completed. */
  readonly #begun = new Map<string, boolean>();
  /** Names that are being registered. */
  readonly #registering = new Set<string>();

  /** What is answered without asking moto. */
  before(asked: URLSearchParams): GateAnswer | undefined {
    const action = asked.get('Action') ?? '';
    const id = asked.get('ImageId') ?? '';
    const name = asked.get('Name') ?? '';
    switch (action) {
      case 'EnableImageDeprecation':
        if (Date.parse(asked.get('DeprecateAt') ?? '') < Date.now())
          return error('InvalidParameter', 'DeprecateAt is in the past');
        this.deprecated.set(id, asked.get('DeprecateAt') ?? '');
        return done(action);
      case 'DisableImageDeprecation':
        this.deprecated.delete(id);
        return done(action);
      case 'EnableImageDeregistrationProtection':
        this.protected.add(id);
        return done(action);
      case 'DisableImageDeregistrationProtection':
        this.protected.delete(id);
        return done(action);
      case 'DeregisterImage':
        if (this.protected.has(id)) return error('OperationNotPermitted', `${id} is protected`);
        for (const [known, ami] of this.#names) if (ami === id) this.#names.delete(known);
        return undefined;
      case 'RegisterImage':
        if (asked.get('DryRun') === 'true') return undefined;
        if (this.#names.has(name) || this.#registering.has(name))
          return error('InvalidAMIName.Duplicate', `AMI name ${name} is already in use`);
        this.#registering.add(name);
        return undefined;
      default:
        return undefined;
    }
  }

  /** EC2's answer, completed; may ask moto for more. */
  async after(
    asked: URLSearchParams,
    told: string,
    more: (request: URLSearchParams) => Promise<unknown>,
  ): Promise<string> {
    const action = asked.get('Action');
    if (action === 'RegisterImage' && asked.get('DryRun') !== 'true') {
      const name = asked.get('Name') ?? '';
      const id = idIn(told, 'imageId');
      this.#registering.delete(name);
      if (id !== undefined) {
        this.#names.set(name, id);
        const tags = new URLSearchParams({ Action: 'CreateTags', Version: '2016-11-15', 'ResourceId.1': id });
        for (const [key, value] of asked) {
          const [, tag] = /^TagSpecification\.1\.(Tag\.\d+\.(?:Key|Value))$/.exec(key) ?? [];
          if (tag !== undefined) tags.set(tag, value);
        }
        if (tags.has('Tag.1.Key')) await more(tags);
      }
    }
    if (action === 'DescribeSnapshots') {
      return told
        .split(/(?=<snapshotId>)/)
        .map((part) =>
          this.#begun.get(idIn(part, 'snapshotId') ?? '') === false
            ? part.replace('<status>completed</status>', '<status>pending</status>')
            : part,
        )
        .join('');
    }
    if (action === 'DescribeImages') {
      return told
        .split(/(?=<imageId>)/)
        .map((part) =>
          this.protected.has(idIn(part, 'imageId') ?? '')
            ? part.replace(
                '</imageId>',
                '</imageId><deregistrationProtection>enabled-without-cooldown</deregistrationProtection>',
              )
            : part,
        )
        .join('');
    }
    return told;
  }

  /** StartSnapshot: the same token and request give the same answer, another request under it is refused. */
  async start(body: string, ask: () => Promise<string>): Promise<GateAnswer> {
    const { ClientToken = '', ...input } = JSON.parse(body) as Partial<Record<string, string>>;
    const json = { 'content-type': 'application/json' };
    // API_StartSnapshot, Encrypted; a key of its own beside an encrypted parent likewise.
    if (input.ParentSnapshotId !== undefined && (input.Encrypted ?? input.KmsKeyArn) !== undefined) {
      return {
        status: 400,
        headers: { ...json, 'x-amzn-errortype': 'ValidationException' },
        body: JSON.stringify({ Message: 'ParentSnapshotId and Encrypted in the same request' }),
      };
    }
    const known = this.#tokens.get(ClientToken);
    if (known !== undefined && known.asked !== body) {
      return {
        status: 409,
        headers: { ...json, 'x-amzn-errortype': 'ConflictException' },
        body: JSON.stringify({ Message: 'the client token is of another request' }),
      };
    }
    const told = known?.told ?? ask();
    if (ClientToken !== '') this.#tokens.set(ClientToken, { asked: body, told });
    const answer = await told;
    const { SnapshotId } = JSON.parse(answer) as { SnapshotId: string };
    if (!this.#begun.has(SnapshotId)) this.#begun.set(SnapshotId, false);
    return { status: 201, headers: json, body: answer };
  }

  /** CompleteSnapshot. */
  completed(snapshot: string): void {
    this.#begun.set(snapshot, true);
  }
}
