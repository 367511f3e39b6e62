/** Options of a target of a sync: those of `convert`, without what a sync decides itself. */
import { isDeepStrictEqual } from 'node:util';
import type * as z from 'zod';
import { PortError } from '../core/errors.ts';
import type { TargetConfig } from '../core/sync/config.ts';
import { printable } from '../core/text.ts';

const BY_RULE = 'a rule says it';
const BY_RETENTION = 'retention says what becomes of versions';
const UNSIGNED = 'images of a sync are not signed';

/** What is not for a sync, and what decides it instead. */
const NOT_FOR_SYNC: Readonly<Record<TargetConfig['platform'], Readonly<Record<string, string>>>> = {
  openstack: {
    visibility: BY_RULE,
    members: BY_RULE,
    protected: BY_RULE,
    onExists: BY_RETENTION,
    signKey: UNSIGNED,
    signCertificate: UNSIGNED,
  },
  aws: {
    copyTo: 'make each region a target of its own',
    parent: 'the version before is the parent',
    onExists: BY_RETENTION,
  },
  azure: {
    version: 'it follows from the version of the image',
    onExists: BY_RETENTION,
  },
  gcp: {
    family: 'each series is a family of its own',
    keepObject: 'archives go when the image is made',
    onExists: BY_RETENTION,
  },
};

/** Options that are set and not for a sync, each with what decides it instead; one that says what it would be anyway does no harm. */
export function notForSync(
  platform: TargetConfig['platform'],
  options: Readonly<Record<string, unknown>>,
  Options: z.ZodObject,
): [string, string][] {
  return Object.entries(NOT_FOR_SYNC[platform]).filter(([key]) => {
    if (options[key] === undefined) return false;
    const Option = Options.shape[key] as z.ZodType | undefined;
    return !isDeepStrictEqual(options[key], Option?.safeParse(undefined).data);
  });
}

/** Options of a target, defaults filled in. Throws CONFIG. */
export function targetOptionsOf<T extends z.ZodObject>(
  name: string,
  { platform, options }: TargetConfig,
  Options: T,
): z.infer<T> {
  const wrong = (what: string, hint: string) =>
    new PortError('CONFIG', `target ${printable(name)}: ${what}`, { hint });
  for (const [key, instead] of notForSync(platform, options, Options))
    throw wrong(`${key} is not for a sync`, `leave it out: ${instead}`);
  const parsed = Options.safeParse(options);
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  throw wrong(
    printable(`${issue?.path.join('.') ?? ''}: ${issue?.message ?? 'wrong'}`),
    `options are those of docs/platforms/${platform}.md, without the \`${platform}.\``,
  );
}
