/** Options of targets: `--set aws.region=eu-central-1`, or `targets:` of a configuration file. */
import { PortError } from '../core/errors.ts';
import type { Request } from '../core/request.ts';
import { printable } from '../core/text.ts';
import { targetOptions } from '../drivers/uploaders.ts';

/** Options by platform as they were given, unchecked. */
export type GivenTargets = Record<string, Record<string, unknown>>;

/** `PLATFORM.OPTION=VALUE`; true, false and whole numbers are taken as such, `a,b` stays text for the schema. */
export function parseSet(text: string): { platform: string; option: string; value: unknown } {
  const [, platform, option, word] = /^([a-z]+)\.([A-Za-z][A-Za-z0-9]*)=(.*)$/s.exec(text) ?? [];
  if (platform === undefined || option === undefined || word === undefined) {
    throw new PortError('USAGE', `not an option of a target: ${printable(text)}`, {
      hint: 'write --set PLATFORM.OPTION=VALUE, for example --set aws.region=eu-central-1',
    });
  }
  if (word === 'true' || word === 'false') return { platform, option, value: word === 'true' };
  return { platform, option, value: word };
}

/** What flags and configuration ask for, checked by each driver. A target that is not in `--to` is an error. */
export function targetsOf(
  to: readonly string[],
  sets: readonly string[],
  config: GivenTargets,
  wanted: boolean,
): Request['targets'] {
  const given: GivenTargets = structuredClone(config);
  for (const { platform, option, value } of sets.map(parseSet)) {
    given[platform] = { ...given[platform], [option]: value };
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
