import { expect, test } from 'vitest';
import type { SyncTask } from '../../../pipeline/sync/perform-types.ts';
import { waves } from '../../../pipeline/sync/waves.ts';
import { outcomeOf } from '../../support/sync-report.ts';

test('older versions of a series are done before newer ones, series beside each other', () => {
  const task = (target: string, series: string, version: string): SyncTask => ({
    action: { ...outcomeOf(target, series, 'done').action, version },
    wantedDigest: '',
    carryData: false,
  });
  const tasks = [
    task('b', 'web', '1.10'),
    task('b', 'db', '7'),
    task('b', 'web', '1.9'),
    task('c', 'web', '1.9'),
    task('b', 'web', '1.11'),
  ];
  expect(
    waves(tasks).map((wave) => wave.map(({ action }) => [action.target, action.series, action.version])),
  ).toEqual([
    [
      ['b', 'db', '7'],
      ['b', 'web', '1.9'],
      ['c', 'web', '1.9'],
    ],
    [['b', 'web', '1.10']],
    [['b', 'web', '1.11']],
  ]);
  expect(waves([])).toEqual([]);
});
