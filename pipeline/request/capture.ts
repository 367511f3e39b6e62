/** The options that say how a source is read: of `convert`, `inspect` and `capture`. */
import * as path from 'node:path';
import * as z from 'zod';
import { parseDuration } from '../../core/durations.ts';
import { PortError } from '../../core/errors.ts';
import { CaptureOptions } from '../../core/request.ts';
import { parseBytes } from '../../core/sizes.ts';
import { parseSource } from '../../core/source.ts';
import { printable } from '../../core/text.ts';

/** Options as a command line gives them. */
export interface CaptureFlags {
  freeze?: string;
  quiesce?: string;
  resumeCommand?: string;
  maxFreeze?: string;
  limit?: string;
  allowBad?: string;
  checksum?: string;
  maxSize?: string;
  sshConfig?: string;
  identity?: string;
}

/** The same in a configuration file. */
export const captureConfigFields = {
  freeze: z.enum(['auto', 'none']).optional(),
  quiesce: z.string().optional(),
  resumeCommand: z.string().optional(),
  maxFreeze: z.string().optional(),
  limit: z.string().optional(),
  allowBad: z.number().optional(),
  checksum: z.string().optional(),
  maxSize: z.string().optional(),
  sshConfig: z.string().optional(),
  identity: z.string().optional(),
};
type CaptureConfigFields = z.infer<z.ZodObject<typeof captureConfigFields>>;

function bytes(text: string | undefined, flag: string): number | undefined {
  if (text === undefined) return undefined;
  const value = parseBytes(text);
  if (value === undefined) {
    throw new PortError('USAGE', `${flag}: ${printable(text)} is no size`, { hint: 'such as 50M or 1.5G' });
  }
  return value;
}

/** Given as a number; NaN would be told in words of the schema. */
function count(value: string | number | undefined, flag: string): number | undefined {
  if (value === undefined) return undefined;
  if (/^\d{1,9}$/.test(String(value))) return Number(value);
  throw new PortError('USAGE', `${flag}: ${printable(String(value))} is no number`, {
    hint: 'a whole number from 0 on',
  });
}

/** The request is kept in the job, and job folders hold no secrets. */
function checksumKept(text: string | undefined): string | undefined {
  if (text === undefined || !/^https?:/i.test(text) || !text.includes('?')) return text;
  throw new PortError(
    'USAGE',
    '--checksum: the URL of a list must not have a query, which may be a signature',
    {
      hint: 'read the digest there and give it as --checksum sha256:HEX',
    },
  );
}

/** What a wrong value is called where the user gave it. */
const FLAG_OF: Readonly<Record<string, string>> = {
  freeze: '--freeze',
  quiesce: '--quiesce',
  resume: '--resume-command',
  limitBytesPerSecond: '--limit, in bytes per second',
  checksum: '--checksum',
};

const FREEZE_LIMITS = { what: '--max-freeze', minMs: 5_000, maxMs: 6 * 3_600_000 };

/** A checksum that nothing would compare is refused: who gives one believes that it was. Throws USAGE. */
export function requireChecksumIsUsed(checksum: string | undefined, sources: readonly string[]): void {
  const isFetched = (text: string) => ['http', 'glance'].includes(parseSource(text).kind);
  if (checksum === undefined || sources.some(isFetched)) return;
  throw new PortError('USAGE', '--checksum is only for images that are downloaded', {
    hint: 'compare a file by hand: sha256sum FILE',
  });
}

/** How the source is read, from flags and configuration file; flags win. Throws USAGE. */
export function captureOptions(flags: CaptureFlags, config: CaptureConfigFields): CaptureOptions {
  const allowBad = flags.allowBad ?? config.allowBad;
  const maxFreeze = flags.maxFreeze ?? config.maxFreeze;
  const file = (name: string | undefined) => (name === undefined ? undefined : path.resolve(name));
  const parsed = CaptureOptions.safeParse({
    freeze: flags.freeze ?? config.freeze,
    quiesce: flags.quiesce ?? config.quiesce,
    resume: flags.resumeCommand ?? config.resumeCommand,
    maxFreezeSeconds:
      maxFreeze === undefined ? undefined : Math.round(parseDuration(maxFreeze, FREEZE_LIMITS) / 1000),
    limitBytesPerSecond: bytes(flags.limit ?? config.limit, '--limit'),
    allowBad: count(allowBad, '--allow-bad'),
    checksum: checksumKept(flags.checksum ?? config.checksum),
    maxBytes: bytes(flags.maxSize ?? config.maxSize, '--max-size'),
    sshConfig: file(flags.sshConfig ?? config.sshConfig),
    sshIdentity: file(flags.identity ?? config.identity),
  });
  if (!parsed.success) {
    const issue = parsed.error.issues[0];
    const field = issue?.path.join('.') ?? '';
    throw new PortError('USAGE', `${FLAG_OF[field] ?? field}: ${issue?.message ?? 'wrong'}`, {
      hint: 'port-image convert --help',
    });
  }
  return parsed.data;
}
