import { randomBytes } from 'node:crypto';
import { expect, test } from 'vitest';
import { cutAtZeros, ZERO_BYTES } from '../../../drivers/openstack/sync/zeros.ts';

const KIB = 1024;

function joined(bytes: Buffer): Buffer {
  return Buffer.concat(
    cutAtZeros(bytes).map(({ start, end, isZero }) =>
      isZero ? Buffer.alloc(end - start) : bytes.subarray(start, end),
    ),
  );
}

test('pieces give the bytes again', () => {
  const bytes = Buffer.alloc(400 * KIB + 77);
  randomBytes(3 * KIB).copy(bytes, 64 * KIB);
  randomBytes(20 * KIB).copy(bytes, 128 * KIB + 3);
  bytes[bytes.length - 1] = 1;
  expect(joined(bytes).equals(bytes)).toBe(true);
  const sent = cutAtZeros(bytes).filter(({ isZero }) => !isZero);
  expect(sent.reduce((sum, { start, end }) => sum + end - start, 0)).toBeLessThan(30 * KIB);
});

test('not more runs than Swift reads fast, none longer than what is there', () => {
  const bytes = Buffer.alloc(3 * 1024 * KIB);
  for (let at = 0; at < bytes.length; at += 100 * KIB) bytes[at] = 1;
  expect(cutAtZeros(bytes).filter(({ isZero }) => isZero)).toHaveLength(4);
  const empty = Buffer.alloc(3 * ZERO_BYTES);
  for (const { start, end } of cutAtZeros(empty)) expect(end - start).toBeLessThanOrEqual(ZERO_BYTES);
  expect(joined(empty).equals(empty)).toBe(true);
});

test('bytes without zeros are one piece, no bytes none', () => {
  expect(cutAtZeros(Buffer.alloc(5000, 1))).toEqual([{ start: 0, end: 5000, isZero: false }]);
  expect(cutAtZeros(Buffer.alloc(0))).toEqual([]);
});
