import * as fc from 'fast-check';
import { expect, test } from 'vitest';
import { platforms, platformsNamed } from '../../../drivers/registry.ts';
import { mergeDatasources, renderConfig } from '../../../stages/cloud-init/config.ts';

const listOf = (names: readonly string[]) =>
  mergeDatasources(platformsNamed(names).map((p) => p.needs.datasources));

/** tools/ds-identify, read_datasource_list and main: one entry, or one and None, is taken without looking. */
const skipsDetection = (list: readonly string[]) =>
  list.length === 1 || (list.length === 2 && list[1] === 'None');

test('one cloud of one datasource is taken as it is, several are looked for', () => {
  expect(listOf(['azure'])).toEqual(['Azure']);
  for (const name of ['azure', 'aws', 'gcp', 'alibaba'])
    expect(skipsDetection(listOf([name])), name).toBe(true);
  expect(listOf(['azure', 'aws'])).toEqual(['Azure', 'Ec2', 'None']);
  expect(skipsDetection(listOf(['azure', 'aws']))).toBe(false);
  expect(skipsDetection(listOf(['openstack']))).toBe(false);
});

test('any choice: no datasource is lost, each is there once, None is last, one line', () => {
  fc.assert(
    fc.property(
      fc.subarray(
        platforms.map((p) => p.name),
        { minLength: 1 },
      ),
      (names) => {
        const list = listOf(names);
        expect(new Set(list)).toEqual(new Set(platformsNamed(names).flatMap((p) => p.needs.datasources)));
        expect(new Set(list).size).toBe(list.length);
        if (list.includes('None')) expect(list.at(-1)).toBe('None');
        const config = renderConfig({
          datasources: list,
          generalize: false,
          hostKeyTypes: [],
          defaultUserExists: false,
        });
        expect(config).toContain(`\ndatasource_list: [ ${list.join(', ')} ]\n`);
      },
    ),
  );
});
