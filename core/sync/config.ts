/**
 * `sync.yaml`: what is kept the same where. Nothing in it is a secret: clouds are named as in clouds.yaml, AWS profiles and the
 * like by name, and what must stay secret (the URL of a webhook) is a reference to a variable or a file.
 */
import * as z from 'zod';
import { DAY_MS, HOUR_MS, MINUTE_MS, parseDuration } from '../durations.ts';

/** Names people give to a sync, its sources and its targets; part of file names and of marks in clouds. */
export const SYNC_NAME = /^[a-z0-9][a-z0-9._-]{0,39}$/;
const Name = z.string().regex(SYNC_NAME, 'letters a-z, digits, dot, dash and underscore, at most 40');

/** A pattern over names: `*` stands for any text, everything else for itself. */
const Pattern = z.string().min(1).max(200);

/** Text such as `90d` as milliseconds. */
const duration = (least: number, most: number) =>
  z.string().transform((text, ctx) => {
    try {
      return parseDuration(text, { what: 'a duration', minMs: least, maxMs: most });
    } catch (error) {
      ctx.addIssue({ code: 'custom', message: (error as Error).message });
      return z.NEVER;
    }
  });

/** A value that is kept elsewhere: `env:NAME` or `file:/absolute/path`. */
export const SecretReference = z
  .string()
  .regex(/^(env:[A-Za-z_][A-Za-z0-9_]*|file:\/.+)$/, 'a reference: env:NAME or file:/absolute/path');

const Versions = z
  .union([z.literal('all'), z.int().min(1).max(1000)])
  .default(1)
  .describe('how many of the newest versions of each image are carried along');

const GlanceSource = z.strictObject({
  glance: z.strictObject({
    cloud: z.string().describe('name in clouds.yaml, or envvars'),
    owner: z
      .enum(['project', 'any'])
      .default('project')
      .describe('images of this project, or all it may see'),
    names: z.array(Pattern).default(['*']),
    properties: z.record(z.string(), z.string()).default({}).describe('an image must have all of them'),
    visibility: z.enum(['private', 'shared', 'community', 'public']).optional(),
  }),
  versions: Versions,
  store: z.string().optional().describe('where the data sets of these images are, such as swift:data'),
});

const JobSource = z.strictObject({
  job: z.string().min(1).describe('folder of a finished conversion; its image is taken from out/'),
  versions: Versions,
  store: z.string().optional(),
});

const FolderSource = z.strictObject({
  folder: z.strictObject({
    path: z.string().min(1),
    names: z.array(Pattern).default(['*.qcow2', '*.raw']),
    firmware: z.enum(['bios', 'uefi']).default('bios').describe('where no description lies beside the image'),
    arch: z.string().default('x86_64'),
  }),
  versions: Versions,
  store: z.string().optional(),
});

const ServerSource = z.strictObject({
  servers: z
    .array(
      z.strictObject({
        name: Name,
        source: z.string().min(1).describe('as `port-image convert` takes it: ssh://root@shop01/dev/sda'),
        job: z
          .string()
          .min(1)
          .describe('its job folder; kept from night to night, so that only changes are read'),
        options: z
          .record(z.string(), z.unknown())
          .default({})
          .describe('options of `port-image convert`, by the names of its configuration file'),
      }),
    )
    .min(1),
  versions: Versions,
  store: z.string().optional(),
});

/** Where images come from. */
export const SourceConfig = z.union([GlanceSource, JobSource, FolderSource, ServerSource]);
/** Where images come from. */
export type SourceConfig = z.infer<typeof SourceConfig>;

/** Platforms a sync brings images to. */
export const TargetPlatform = z.enum(['openstack', 'aws', 'azure', 'gcp']);

/** Where images go. */
export const TargetConfig = z.strictObject({
  platform: TargetPlatform,
  options: z
    .record(z.string(), z.unknown())
    .default({})
    .describe('as `--set PLATFORM.OPTION=VALUE` of convert has them'),
  delta: z
    .enum(['auto', 'off'])
    .default('auto')
    .describe('off: whole images, and nothing is kept in the object store of the target'),
  store: z
    .string()
    .optional()
    .describe('where data sets go: swift:data, s3:BUCKET/PREFIX, azure:ACCOUNT/PREFIX, gs:BUCKET/PREFIX, …'),
  lanes: z.int().min(1).max(16).default(1).describe('images at a time'),
  verify: z
    .enum(['digest', 'boot'])
    .default('digest')
    .describe('boot: the image must also prove itself in a boot'),
});
/** Where images go. */
export type TargetConfig = z.infer<typeof TargetConfig>;

/** What becomes of the images that fit. */
export const RuleConfig = z.strictObject({
  match: z
    .strictObject({ source: Name.optional(), names: z.array(Pattern).default(['*']) })
    .default({ names: ['*'] }),
  targets: z.array(Name).optional().describe('all of them when absent'),
  name: z
    .string()
    .min(1)
    .max(200)
    .default('{name}')
    .describe('name in the target; {name}, {series}, {version} and {date} are filled in'),
  visibility: z.enum(['private', 'shared', 'community', 'public']).default('private'),
  members: z.array(z.string()).default([]).describe('projects or accounts the image is shared with'),
  protected: z.boolean().default(false),
  properties: z
    .strictObject({
      set: z.record(z.string(), z.string()).default({}),
      drop: z.array(Pattern).default([]),
    })
    .default({ set: {}, drop: [] }),
  data: z.enum(['carry', 'leave']).default('leave').describe('carry: the data sets of the image go along'),
});
/** What becomes of the images that fit. */
export type RuleConfig = z.infer<typeof RuleConfig>;

/** What becomes of older versions in the targets. */
export const RetentionConfig = z.strictObject({
  keep: z.int().min(1).max(1000).default(2).describe('complete versions of an image that stay visible'),
  maxAge: duration(HOUR_MS, 3650 * DAY_MS)
    .optional()
    .describe('older versions go even when `keep` would have them; the newest one never'),
  hideFor: duration(0, 3650 * DAY_MS)
    .default(7 * DAY_MS)
    .describe('how long a version stays hidden (deprecated) before it is deleted'),
  pins: z.array(Pattern).default([]).describe('SERIES or SERIES@VERSION that is never retired'),
});
/** What becomes of older versions in the targets. */
export type RetentionConfig = z.infer<typeof RetentionConfig>;

const NotifyConfig = z.strictObject({
  on: z.enum(['failure', 'change', 'always']).default('failure'),
  webhook: SecretReference.optional().describe('where to find its URL; the report is sent as JSON by POST'),
  command: z
    .array(z.string())
    .min(1)
    .optional()
    .describe('program and arguments; the report is on its stdin'),
});
/** Who is told how a run ended. */
export type NotifyConfig = z.infer<typeof NotifyConfig>;

const TimeZone = z.string().refine((zone) => {
  try {
    return Intl.DateTimeFormat('en', { timeZone: zone }) !== undefined;
  } catch {
    return false;
  }
}, 'not a time zone, such as Europe/Berlin');

/** The whole file. */
export const SyncConfig = z
  .strictObject({
    sync: Name.describe('name of this sync; marks what it makes in clouds, so it must not change'),
    sources: z.record(Name, SourceConfig),
    targets: z.record(Name, TargetConfig),
    rules: z
      .array(RuleConfig)
      .default([])
      .describe('for each image and target the first that fits counts; without rules all goes everywhere'),
    retention: RetentionConfig.prefault({}),
    limits: z
      .strictObject({
        images: z.int().min(1).max(64).default(2).describe('images read at a time'),
        attempts: z
          .int()
          .min(1)
          .max(10)
          .default(3)
          .describe('per image and target, for failures that can heal'),
        downloadBytesPerSecond: z.int().min(1).optional(),
        uploadBytesPerSecond: z.int().min(1).optional(),
      })
      .prefault({}),
    window: z
      .strictObject({
        from: z.string().regex(/^([01]\d|2[0-3]):[0-5]\d$/, 'a time of day, such as 22:00'),
        to: z.string().regex(/^([01]\d|2[0-3]):[0-5]\d$/, 'a time of day, such as 06:00'),
        timezone: TimeZone.default('UTC'),
      })
      .optional()
      .describe('no image is begun outside of it; what is not begun is done the next night'),
    schedule: z
      .strictObject({ cron: z.string().min(9), timezone: TimeZone.default('UTC') })
      .optional()
      .describe('for --daemon; a timer of the system is better'),
    notify: z.array(NotifyConfig).default([]),
    state: z.string().optional().describe('folder for ledger, reports and copies under way'),
    staleAfter: duration(MINUTE_MS, 7 * DAY_MS)
      .default(15 * MINUTE_MS)
      .describe('another run that gave no sign of life in a target for so long is taken for dead'),
  })
  .superRefine((config, ctx) => {
    if (Object.keys(config.sources).length === 0)
      ctx.addIssue({ code: 'custom', path: ['sources'], message: 'at least one source' });
    if (Object.keys(config.targets).length === 0)
      ctx.addIssue({ code: 'custom', path: ['targets'], message: 'at least one target' });
    for (const [index, rule] of config.rules.entries()) {
      const { source } = rule.match;
      if (source !== undefined && !Object.hasOwn(config.sources, source))
        ctx.addIssue({
          code: 'custom',
          path: ['rules', index, 'match', 'source'],
          message: `no source ${source}`,
        });
      for (const [at, target] of (rule.targets ?? []).entries())
        if (!Object.hasOwn(config.targets, target))
          ctx.addIssue({
            code: 'custom',
            path: ['rules', index, 'targets', at],
            message: `no target ${target}`,
          });
      if (rule.members.length > 0 && rule.visibility !== 'shared')
        ctx.addIssue({
          code: 'custom',
          path: ['rules', index, 'members'],
          message: 'members need visibility: shared',
        });
    }
    for (const [index, { webhook, command }] of config.notify.entries())
      if ((webhook === undefined) === (command === undefined))
        ctx.addIssue({ code: 'custom', path: ['notify', index], message: 'a webhook or a command' });
  });
/** The whole file, defaults filled in. */
export type SyncConfig = z.infer<typeof SyncConfig>;
