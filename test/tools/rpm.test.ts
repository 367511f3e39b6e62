/** RPM files and versions. Real packages are read in test/families/rpm.int.test.ts. */
import * as fs from 'node:fs/promises';
import * as os from 'node:os';
import * as path from 'node:path';
import * as fc from 'fast-check';
import { expect, test } from 'vitest';
import { parseNotProvided } from '../../tools/rpm-database.ts';
import { readRpmFile } from '../../tools/rpm-file.ts';
import { compareRpmVersions } from '../../tools/rpm-version.ts';

test("versions in rpm's own order (rpm: tests/rpmvercmp.at)", () => {
  const pairs: [string, string, number][] = [
    ['1.0', '1.0', 0],
    ['1.0', '2.0', -1],
    ['2.0.1a', '2.0.1', 1],
    ['5.5p1', '5.5p10', -1],
    ['10xyz', '10.1xyz', -1],
    ['xyz10', 'xyz10.1', -1],
    ['xyz.4', '8', -1],
    ['1.0~rc1', '1.0', -1],
    ['1.0~rc1', '1.0~rc2', -1],
    ['1.0^', '1.0', 1],
    ['1.0^git1', '1.01', -1],
    ['1.0^git1~pre', '1.0^git1', -1],
    ['1_0', '1.0', 0],
    ['1:0.1-1', '2.0-1', 1],
    ['1.2-9', '1.2-10', -1],
    ['010', '10', 0],
  ];
  for (const [a, b, wanted] of pairs) {
    expect([a, b, Math.sign(compareRpmVersions(a, b))]).toEqual([a, b, wanted]);
    expect(Math.sign(compareRpmVersions(b, a))).toBe(wanted === 0 ? 0 : -wanted);
  }
});

test('what rpm says it does not have', () => {
  const output =
    'no package provides cloud-init\nerror: file /usr/bin/curl: No such file or directory\nfile /usr/bin/x is not owned by any package\n';
  const names = ['cloud-init', 'bash', '/usr/bin/curl', '/usr/bin/x', '/usr/bin/curl2'];
  expect([...parseNotProvided(output, names)]).toEqual(['cloud-init', '/usr/bin/curl', '/usr/bin/x']);
});

test('a file that is no package, is cut, or lies about its sizes is refused, whatever it holds', async () => {
  const dir = await fs.mkdtemp(path.join(os.tmpdir(), 'rpm-'));
  const file = path.join(dir, 'x.rpm');
  const lead = Buffer.alloc(96);
  lead.writeUInt32BE(0xedabeedb, 0);
  const intro = (entries: number, bytes: number) => {
    const b = Buffer.alloc(16);
    b.writeUInt32BE(0x8eade801, 0);
    b.writeUInt32BE(entries, 8);
    b.writeUInt32BE(bytes, 12);
    return b;
  };
  try {
    const small = fc.nat({ max: 40 });
    await fc.assert(
      fc.asyncProperty(
        fc.uint8Array({ maxLength: 400 }),
        small,
        small,
        fc.boolean(),
        async (rest, n, m, headers) => {
          const parts = headers ? [lead, intro(0, 0), intro(n, m), rest] : [lead, rest];
          await fs.writeFile(file, Buffer.concat(parts));
          await expect(readRpmFile(file)).rejects.toMatchObject({ code: 'PACKAGES' });
        },
      ),
      { numRuns: 60 },
    );
    await fs.writeFile(file, Buffer.concat([lead, intro(0xffffffff, 0xffffffff)]));
    await expect(readRpmFile(file)).rejects.toMatchObject({ code: 'PACKAGES' });
  } finally {
    await fs.rm(dir, { recursive: true });
  }
});
