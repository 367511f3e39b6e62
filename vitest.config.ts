import { defineConfig } from 'vitest/config';

const INTEGRATION = 'test/**/*.int.test.ts';
const MINUTE_MS = 60_000;

export default defineConfig({
  test: {
    projects: [
      {
        test: {
          name: 'unit',
          include: ['test/**/*.test.ts'],
          exclude: [INTEGRATION],
          testTimeout: 20_000,
          sequence: { groupOrder: 0 },
        },
      },
      {
        test: {
          name: 'integration',
          include: [INTEGRATION],
          // Each may boot a machine without KVM: one at a time, and a boot takes minutes.
          fileParallelism: false,
          testTimeout: 20 * MINUTE_MS,
          hookTimeout: 20 * MINUTE_MS,
          sequence: { groupOrder: 1 },
        },
      },
    ],
  },
});
