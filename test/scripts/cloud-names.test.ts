import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { portsFor } from '../../scripts/cloud.d/names.ts';

let cache = '';
beforeEach(() => {
  cache = mkdtempSync(path.join(os.tmpdir(), 'port-image-names-'));
});
afterEach(() => rmSync(cache, { recursive: true, force: true }));

function remember(folder: string, settings: object): void {
  mkdirSync(path.join(cache, folder));
  writeFileSync(path.join(cache, folder, 'settings.json'), JSON.stringify(settings));
}

test('a letter has its own range, small or capital, and leaves it when another cloud has it', () => {
  expect(portsFor(cache, 'A')).toBe(15_500);
  expect(portsFor(cache, 'b')).toBe(15_520);
  remember('cloud-a', { portsBase: 15_500 });
  expect(portsFor(cache, 'A')).toBeGreaterThanOrEqual(16_020);
  expect(portsFor(cache, 'a')).toBe(15_500);
});

test('a word gets the same range each time, and two words never one', () => {
  const first = portsFor(cache, 'nightly');
  expect(portsFor(cache, 'nightly')).toBe(first);
  remember('cloud-other', { portsBase: first });
  const second = portsFor(cache, 'nightly');
  expect(second).not.toBe(first);
  for (const base of [first, second]) {
    expect(base).toBeGreaterThanOrEqual(16_020);
    expect(base + 13).toBeLessThan(32_768);
  }
});

test('no range left is told', () => {
  for (let at = 0; at < 223; at++) remember(`cloud-${at}x`, { portsBase: 16_020 + at * 20 });
  expect(() => portsFor(cache, 'one-more')).toThrow(/no range of ports is left/);
});
