/** Options of targets: `--set aws.region=eu-central-1`, or `targets:` of a configuration file. */
import { PortError } from '../../core/errors.ts';
import type { Request } from '../../core/request.ts';
import { printable } from '../../core/text.ts';
import { targetOptions } from '../../drivers/uploaders.ts';

/** Options by platform as they were given, unchecked. */
export type GivenTargets = Record<string, Record<string, unknown>>;

/** `PLATFORM.OPTION=VALUE`, or `PLATFORM.GROUP.OPTION=VALUE`; true and false are taken as such, the rest stays text for the schema. */
export function parseSet(text: string): { platform: string; path: string[]; value: unknown } {
  const [, platform, options = '', word] = /^([a-z]+)\.([A-Za-z][\w.-]*)=(.*)$/s.exec(text) ?? [];
  const path = options.split('.');
  const isSafe = path.every((p) => p !== '' && !['__proto__', 'constructor', 'prototype'].includes(p));
  if (platform === undefined || word === undefined || !isSafe) {
    throw new PortError('USAGE', `not an option of a target: ${printable(text)}`, {
      hint: 'write --set PLATFORM.OPTION=VALUE, for example --set aws.region=eu-central-1',
    });
  }
  return { platform, path, value: word === 'true' || word === 'false' ? word === 'true' : word };
}

function setAt(options: Record<string, unknown>, [key = '', ...rest]: string[], value: unknown): void {
  if (rest.length === 0) {
    options[key] = value;
    return;
  }
  const inner = options[key];
  const group = typeof inner === 'object' && inner !== null ? (inner as Record<string, unknown>) : {};
  options[key] = group;
  setAt(group, rest, value);
}

/** What flags and configuration ask for, checked by each driver. A target that is not in `--to` is an error. */
export function targetsOf(
  to: readonly string[],
  sets: readonly string[],
  config: GivenTargets,
  wanted: boolean,
): Request['targets'] {
  const given: GivenTargets = structuredClone(config);
  for (const { platform, path, value } of sets.map(parseSet)) {
    given[platform] ??= {};
    setAt(given[platform], path, value);
  }
  const targets: Request['targets'] = {};
  for (const [platform, options] of Object.entries(given)) {
    const checked = targetOptions(platform, options);
    if (!to.includes(platform)) {
      throw new PortError('USAGE', `options for ${printable(platform)}, which is not in --to`, {
        hint: `add ${platform} to --to, or leave the options out`,
      });
    }
    if (wanted) targets[platform] = checked;
  }
  return targets;
}
