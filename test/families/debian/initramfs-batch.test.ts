import { execFileSync } from 'node:child_process';
import { expect, test } from 'vitest';
import { BATCH, canBatch, shellFunction } from '../../../families/debian/initramfs-batch.ts';

test('the batch is valid shell', () => {
  execFileSync('sh', ['-n'], { input: BATCH });
  expect(BATCH).toContain('--set-version="$');
});
test('only known functions are replaced', () => {
  expect(canBatch('manual_add_modules()\n{\n\techo\n}\ncopy_file()\n{\n\techo\n}\n')).toBe(false);
  expect(canBatch('')).toBe(false);
  expect(shellFunction('a()\n{\n\tx\n}\nb() {\n}\n', 'a')).toBe('a()\n{\n\tx\n}\n');
});
