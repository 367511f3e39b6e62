import * as fc from 'fast-check';
import { expect, test } from 'vitest';
import { grubEnvValue, setGrubEnv } from '../../tools/grub-env.ts';

const block = (body: string) => `# GRUB Environment Block\n${body}`.padEnd(1024, '#');

test('a value is changed, the rest and the size stay', () => {
  const text = block(
    '# WARNING: Do not edit\nsaved_entry=abc-5.14\nkernelopts=root=UUID=1 ro quiet \nboot_success=0\n',
  );
  expect(grubEnvValue(text, 'kernelopts')).toBe('root=UUID=1 ro quiet ');
  const after = setGrubEnv(text, 'kernelopts', 'root=UUID=1 ro console=ttyS0');
  expect(after).toBe(
    block(
      '# WARNING: Do not edit\nsaved_entry=abc-5.14\nkernelopts=root=UUID=1 ro console=ttyS0\nboot_success=0\n',
    ),
  );
  expect(setGrubEnv(after ?? '', 'kernelopts', 'root=UUID=1 ro console=ttyS0')).toBe(after);
});

test('no block, no room: said, not written', () => {
  expect(setGrubEnv('kernelopts=x\n', 'kernelopts', 'y')).toBeUndefined();
  expect(setGrubEnv(block(''), 'kernelopts', 'x'.repeat(1100))).toBeUndefined();
  expect(setGrubEnv(block(''), 'kernelopts', 'a\nb')).toBeUndefined();
  expect(grubEnvValue(block('a=1\n'), 'b')).toBeUndefined();
});

test('any value comes back, exactly 1024 bytes, other variables untouched', () => {
  const value = fc.string({ maxLength: 200 }).filter((s) => !/[\n]/.test(s));
  fc.assert(
    fc.property(value, value, fc.boolean(), (other, mine, present) => {
      let text = setGrubEnv(block(''), 'saved_entry', other) ?? '';
      if (present) text = setGrubEnv(text, 'kernelopts', 'old') ?? '';
      const after = setGrubEnv(text, 'kernelopts', mine) ?? '';
      expect(Buffer.byteLength(after)).toBe(1024);
      expect(grubEnvValue(after, 'kernelopts')).toBe(mine);
      expect(grubEnvValue(after, 'saved_entry')).toBe(other);
      expect(setGrubEnv(after, 'kernelopts', mine)).toBe(after);
    }),
  );
});
