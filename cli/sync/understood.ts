/** What a sync file says, in words. */
import { DAY_MS, formatDuration } from '../../core/durations.ts';
import { formatBytes } from '../../core/sizes.ts';
import type { RuleConfig, SourceConfig, SyncConfig, TargetConfig } from '../../core/sync/config.ts';
import { localTime, nextTimes } from '../../pipeline/sync/daemon.ts';
import { closesInMs, isOpen, opensInMs } from '../../pipeline/sync/window.ts';

/** Times shown of a schedule. */
const TIMES = 5;

/** Times that come, as `check --json` has them. */
export function comingTimes({ schedule }: SyncConfig, now: Date): Date[] {
  return schedule === undefined ? [] : nextTimes(schedule, TIMES, now);
}

/** Lines for people, in the order of the file. */
export function understood(config: SyncConfig, facts: { path: string; state: string; now: Date }): string[] {
  const { retention, limits, window, schedule } = config;
  const lines: string[] = [`${config.sync}: ${facts.path}`, ''];
  const section = (title: string, rows: readonly string[]) => {
    for (const [at, row] of rows.entries()) lines.push(`${(at === 0 ? title : '').padEnd(11)}${row}`);
  };
  section('sources', named(config.sources, sourceText));
  section('targets', named(config.targets, targetText));
  section(
    'rules',
    config.rules.length === 0 ? ['none: everything goes everywhere as it is'] : config.rules.map(ruleText),
  );
  section('retention', [retentionText(retention)]);
  section('limits', [limitsText(limits)]);
  section('window', [window === undefined ? 'all day' : windowText(window, facts.now)]);
  section(
    'schedule',
    schedule === undefined
      ? ['none: a timer of the system begins each run']
      : [
          `${schedule.cron} (${schedule.timezone}); with --daemon it runs next at`,
          ...comingTimes(config, facts.now).map((time) => `  ${localTime(time, schedule.timezone)}`),
        ],
  );
  section(
    'notify',
    config.notify.length === 0
      ? ['nobody']
      : config.notify.map(
          ({ on, webhook, command }) =>
            `${on}: ${webhook === undefined ? `program ${command?.[0]}` : `webhook, its URL from ${webhook}`}`,
        ),
  );
  section('state', [facts.state]);
  return lines;
}

function named<T>(all: Readonly<Record<string, T>>, text: (one: T) => string): string[] {
  const width = Math.max(...Object.keys(all).map((name) => name.length));
  return Object.entries(all).map(([name, one]) => `${name.padEnd(width)}  ${text(one)}`);
}

function sourceText(source: SourceConfig): string {
  const versions =
    source.versions === 'all'
      ? 'all versions'
      : source.versions === 1
        ? 'newest version'
        : `newest ${source.versions} versions`;
  const store = source.store === undefined ? '' : `; data sets in ${source.store}`;
  return `${whatSource(source)}; ${versions}${store}`;
}

function whatSource(source: SourceConfig): string {
  if ('glance' in source) {
    const { cloud, names, owner, properties, visibility } = source.glance;
    const filters = [
      owner === 'any' ? 'of every project' : 'of its project',
      ...Object.entries(properties).map(([key, value]) => `${key}=${value}`),
      ...(visibility === undefined ? [] : [visibility]),
    ];
    return `Glance of ${cloud}: ${names.join(', ')} (${filters.join(', ')})`;
  }
  if ('job' in source) return `finished conversion ${source.job}`;
  if ('folder' in source) return `folder ${source.folder.path}: ${source.folder.names.join(', ')}`;
  const names = source.servers.map(({ name }) => name);
  return `${names.length} server${names.length === 1 ? '' : 's'} captured anew: ${names.slice(0, 8).join(', ')}${names.length > 8 ? ', …' : ''}`;
}

function targetText({ platform, options, delta, store, lanes, verify }: TargetConfig): string {
  const { cloud, region, location } = options;
  const place = [cloud, region, location].find((one) => typeof one === 'string');
  return [
    `${platform}${place === undefined ? '' : ` ${place}`}`,
    delta === 'auto' ? 'changed blocks only, where it can' : 'whole images',
    `${lanes} at a time`,
    verify === 'boot' ? 'booted before it is shown' : 'proved by digest',
    store === undefined ? 'no store for data sets' : `data sets to ${store}`,
  ].join('; ');
}

function ruleText({
  match,
  targets,
  name,
  visibility,
  members,
  protected: kept,
  properties,
  data,
}: RuleConfig): string {
  const sets = Object.keys(properties.set);
  return [
    `${match.names.join(', ')}${match.source === undefined ? '' : ` of ${match.source}`} to ${targets?.join(', ') ?? 'every target'}`,
    `named ${name}`,
    `${visibility}${members.length === 0 ? '' : ` with ${members.length}`}${kept ? ', protected' : ''}`,
    ...(sets.length === 0 ? [] : [`sets ${sets.join(', ')}`]),
    ...(properties.drop.length === 0 ? [] : [`drops ${properties.drop.join(', ')}`]),
    ...(data === 'carry' ? ['its data sets go along'] : []),
  ].join('; ');
}

function retentionText({ keep, maxAge, hideFor, pins }: SyncConfig['retention']): string {
  return [
    keep === 1
      ? 'the newest version of each image stays visible'
      : `${keep} versions of each image stay visible`,
    ...(maxAge === undefined ? [] : [`older than ${formatDuration(maxAge)} they go too`]),
    hideFor === 0 ? 'older ones are deleted' : `older ones are hidden for ${days(hideFor)}, then deleted`,
    ...(pins.length === 0 ? [] : [`never: ${pins.join(', ')}`]),
  ].join('; ');
}

function days(ms: number): string {
  return ms % DAY_MS === 0 ? `${ms / DAY_MS} days` : formatDuration(ms);
}

function limitsText({
  images,
  attempts,
  downloadBytesPerSecond,
  uploadBytesPerSecond,
}: SyncConfig['limits']): string {
  return [
    `${images} image${images === 1 ? '' : 's'} read at a time`,
    `${attempts} attempt${attempts === 1 ? '' : 's'}`,
    ...(downloadBytesPerSecond === undefined ? [] : [`down ${formatBytes(downloadBytesPerSecond)}/s`]),
    ...(uploadBytesPerSecond === undefined ? [] : [`up ${formatBytes(uploadBytesPerSecond)}/s`]),
  ].join('; ');
}

function windowText(window: NonNullable<SyncConfig['window']>, now: Date): string {
  const minutes = (ms: number) =>
    `${Math.floor(ms / 3_600_000)} h ${Math.round((ms % 3_600_000) / 60_000)} min`;
  const state = isOpen(window, now)
    ? `open, closes in ${minutes(closesInMs(window, now))}`
    : `closed, opens in ${minutes(opensInMs(window, now))}`;
  return `${window.from} to ${window.to} (${window.timezone}): ${state}`;
}
