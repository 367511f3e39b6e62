import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { errorsPage } from '../../scripts/errors-page.ts';

test('docs/errors.md lists the codes of today', () => {
  expect(readFileSync('docs/errors.md', 'utf8')).toBe(errorsPage());
});
