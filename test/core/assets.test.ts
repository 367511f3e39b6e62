import { existsSync } from 'node:fs';
import { expect, test } from 'vitest';
import { assetPath } from '../../core/assets.ts';

test('finds a shipped file in the checkout', () => {
  expect(existsSync(assetPath('LICENSE'))).toBe(true);
});

test('names what is missing', () => {
  expect(() => assetPath('guest/no-such-file')).toThrow(/guest\/no-such-file/);
});
