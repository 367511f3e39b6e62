import { defineConfig } from 'vitest/config';

const INTEGRATION = 'test/**/*.int.test.ts';
/** Whole conversions with their boots: about half of the time all integration tests take. */
const CONVERSIONS = [
  'test/convert.int.test.ts',
  'test/live.int.test.ts',
  'test/pipeline/sync/sources/servers.int.test.ts',
];
const MINUTE_MS = 60_000;

/** One file at a time: each may boot a machine without KVM, and a boot takes minutes. */
const ONE_AT_A_TIME = {
  fileParallelism: false,
  testTimeout: 20 * MINUTE_MS,
  hookTimeout: 20 * MINUTE_MS,
};

// scripts/test runs `conversions` and `services` beside each other: no test of one may rely on being alone.
export default defineConfig({
  test: {
    projects: [
      {
        test: {
          name: 'unit',
          include: ['test/**/*.test.ts'],
          exclude: [INTEGRATION],
          // Only what hangs reaches it, not what is slow on a busy machine.
          testTimeout: MINUTE_MS,
          // Most of them wait for programs they started, even on two processors.
          maxWorkers: 3,
          sequence: { groupOrder: 0 },
        },
      },
      {
        test: {
          name: 'conversions',
          include: CONVERSIONS,
          ...ONE_AT_A_TIME,
          sequence: { groupOrder: 1 },
        },
      },
      {
        test: {
          name: 'services',
          include: [INTEGRATION],
          exclude: CONVERSIONS,
          ...ONE_AT_A_TIME,
          sequence: { groupOrder: 2 },
        },
      },
    ],
  },
});
