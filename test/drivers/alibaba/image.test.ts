import fc from 'fast-check';
import { expect, test } from 'vitest';
import { ecsName } from '../../../drivers/alibaba/image.ts';

test('whatever a server is called, its image has a name ECS takes, with the version whole', () => {
  fc.assert(
    fc.property(fc.string(), fc.stringMatching(/^[0-9a-f.]{1,20}$/), (name, tail) => {
      const made = ecsName(`a${name}`, tail);
      expect(made).toMatch(/^[A-Za-z][A-Za-z0-9.:_-]{1,127}$/);
      expect(made).not.toMatch(/^(aliyun|acs:)/i);
      expect(made.endsWith(`-${tail}`)).toBe(true);
    }),
  );
  expect(ecsName('aliyun-shop', '')).toBe('x-aliyun-shop');
  expect(() => ecsName('2026', '')).toThrow(expect.objectContaining({ code: 'USAGE' }));
});
