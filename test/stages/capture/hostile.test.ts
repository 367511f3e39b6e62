import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { mkdir, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import * as path from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { PortError } from '../../../core/errors.ts';
import { makeSamples, samples } from '../../../fixtures/hostile/make.ts';
import { gate } from '../../../stages/capture/gate.ts';
import { requires } from '../../support/requires.ts';

const missing = requires('qemu-img', 'prlimit', 'mkfifo');

describe.skipIf(missing)('hostile and broken sources', () => {
  const dir = mkdtempSync(path.join(tmpdir(), 'port-image-hostile-'));
  const scratch = path.join(dir, 'scratch dir');

  beforeAll(async () => {
    await makeSamples(dir);
    await mkdir(scratch);
  }, 180_000);
  afterAll(() => rmSync(dir, { recursive: true, force: true }));

  test.each(samples.map((s) => [s.name, s.code ?? 'accepted', s] as const))(
    '%j: %s',
    async (name, _, sample) => {
      const file = path.join(dir, name);
      const before = existsSync(file) ? await stat(file) : undefined;
      const started = performance.now();
      const error = await gate(file, { tmp: scratch, format: sample.format }).then(
        () => undefined,
        (e: unknown) => e,
      );
      expect(performance.now() - started).toBeLessThan(10_000);
      if (sample.code === undefined) {
        expect(error).toBeUndefined();
      } else {
        expect(error).toBeInstanceOf(PortError);
        const { code, message, hint } = error as PortError;
        expect(code, message).toBe(sample.code);
        expect(`${message} ${hint}`).toMatch(/^[^\p{Cc}]+$/u);
      }
      expect(readdirSync(scratch)).toEqual([]);
      if (before?.isFile()) expect((await stat(file)).mtimeMs).toBe(before.mtimeMs);
    },
  );

  test('the reference is named, unread', async () => {
    const error = await gate(path.join(dir, 'qcow2-backing.qcow2'), { tmp: scratch }).catch(
      (e: unknown) => e,
    );
    expect((error as PortError).message).toContain('/etc/passwd');
    const escaped = await gate(path.join(dir, 'qcow2-backing-escape.qcow2'), { tmp: scratch }).catch(
      (e: unknown) => e,
    );
    expect((escaped as PortError).message).toContain('\\x1b]0;owned');
  });

  test('the expectation file lists every sample', () => {
    const expected = JSON.parse(readFileSync(path.join(dir, 'expected.json'), 'utf8')) as { name: string }[];
    expect(expected.map((e) => e.name)).toEqual(samples.map((s) => s.name));
  });
});
