import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import * as fs from 'node:fs/promises';
import { tmpdir } from 'node:os';
import * as path from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { PortError } from '../../../core/errors.ts';
import { makeSamples } from '../../../fixtures/hostile/make.ts';
import { packedSamples } from '../../../fixtures/hostile/packed.ts';
import { packedKind, planPacked, unpack } from '../../../tools/packed/index.ts';

/** Exit statuses of refusals: hostile, damaged or unsupported, and a question to the user. */
const STATUS = [2, 3, 4];

describe('hostile and broken packages', () => {
  const dir = mkdtempSync(path.join(tmpdir(), 'port-image-hostile-packed-'));
  const out = path.join(dir, 'out dir');
  beforeAll(async () => {
    await makeSamples(dir, packedSamples);
    await fs.mkdir(out);
  });
  afterAll(() => rmSync(dir, { recursive: true, force: true }));

  test.each(packedSamples.map((s) => [s.name, s.code ?? 'accepted', s] as const))(
    '%s: %s',
    async (name, _, sample) => {
      const file = path.join(dir, name);
      const before = await fs.stat(file);
      const started = performance.now();
      const attempt = async () => {
        const kind = await packedKind(file);
        if (kind === undefined) throw new Error('not seen as a package');
        return unpack(await planPacked(file, kind), out);
      };
      const error: unknown = await attempt().then(
        () => undefined,
        (e: unknown) => e,
      );
      expect(performance.now() - started).toBeLessThan(10_000);
      const left = readdirSync(out);
      for (const name of left) await fs.rm(path.join(out, name));
      if (sample.code === undefined) {
        expect(error).toBeUndefined();
        expect(left.sort()).toEqual(['disk0', 'disk0.json']);
      } else {
        expect(error).toBeInstanceOf(PortError);
        const { code, message, hint, exitStatus } = error as PortError;
        expect(code, message).toBe(sample.code);
        expect(STATUS).toContain(exitStatus);
        expect(left).toEqual([]);
        expect(`${message} ${hint}`).toMatch(/^[^\p{Cc}]+$/u);
      }
      expect((await fs.stat(file)).mtimeMs).toBe(before.mtimeMs);
    },
  );
});
