/** `npm run simulate`, small: the real planner and the real queue, and the figures fit what was asked for. */
import * as path from 'node:path';
import { execa } from 'execa';
import { describe, expect, test } from 'vitest';
import { findPostgres } from '../support/postgres.ts';

const bin = await findPostgres();
const SCRIPT = path.resolve(import.meta.dirname, '../../scripts/simulate.ts');

async function simulate(...args: string[]): Promise<Record<string, unknown>> {
  const { stdout } = await execa(process.execPath, [SCRIPT, '--json', ...args]);
  return JSON.parse(stdout) as Record<string, unknown>;
}

describe.skipIf(bin === undefined)('simulate (postgresql-15)', () => {
  const SMALL = ['--images', '40', '--clouds', '3', '--workers', '4', '--scale', '100000'];

  test('first night: every image to every cloud, once', async () => {
    const figures = await simulate(...SMALL, '--night', 'first');
    expect(figures).toMatchObject({ planned: { create: 120 }, queued: 120 });
    expect(figures.jobsPerSecond).toBeGreaterThan(1);
    expect(figures.sentMib).toBeGreaterThan(0);
  });

  test('unchanged night: nothing is queued, nothing is sent, few calls', async () => {
    const figures = await simulate(...SMALL, '--night', 'unchanged');
    expect(figures).toMatchObject({ planned: { skip: 120 }, queued: 0, sentMib: 0 });
    expect(figures.callsPerImageAndTarget).toBeLessThan(3);
  });

  test('one percent changed: that is queued', async () => {
    const figures = await simulate(...SMALL, '--night', 'one-percent');
    expect(figures).toMatchObject({ planned: { create: 3, skip: 117 }, queued: 3 });
  });

  test('a wrong number is one line', async () => {
    const { exitCode, stderr } = await execa(process.execPath, [SCRIPT, '--images', 'many'], {
      reject: false,
    });
    expect(exitCode).toBe(2);
    expect(stderr).toBe('simulate: --images is a whole number from 1 to 100000');
  });
});
