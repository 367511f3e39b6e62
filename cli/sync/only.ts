/** `--only` of the commands that run a sync. */
import { Option } from 'commander';

/** Names of sources, targets and images; may come several times, or hold several by commas. */
export function onlyOption(): Option {
  return new Option(
    '--only <name>',
    'only this source, target or image; repeatable, a target and an image must both fit',
  ).argParser((value: string, before: string[] | undefined) => [...(before ?? []), ...value.split(',')]);
}
