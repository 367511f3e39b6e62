import { execFileSync } from 'node:child_process';
import * as fs from 'node:fs/promises';
import * as os from 'node:os';
import * as path from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { makeBytecode } from '../../../families/debian/packages-bytecode.ts';
import { arHeader } from '../../../tools/dpkg.ts';
import { requires } from '../../support/requires.ts';

const signal = new AbortController().signal;
const MODULES = 'usr/lib/python3/dist-packages';
let dir = '';
beforeEach(async () => {
  dir = await fs.mkdtemp(path.join(os.tmpdir(), 'bytecode-'));
});
afterEach(() => fs.rm(dir, { recursive: true, force: true }));

/** A package with exactly these members and no folders, as only somebody with bad intentions makes them. */
async function deb(name: string, members: string[], fill: (modules: string) => Promise<void>) {
  const root = path.join(dir, name);
  await fs.mkdir(path.join(root, MODULES), { recursive: true });
  await fill(path.join(root, MODULES));
  const tar = execFileSync('tar', [
    '-c',
    '--no-recursion',
    '-C',
    root,
    ...members.map((m) => `./${MODULES}/${m}`),
  ]);
  const file = path.join(dir, `${name}_1_all.deb`);
  const parts = [
    Buffer.from(`!<arch>\n${arHeader('debian-binary', 4)}2.0\n${arHeader('control.tar', tar.length)}`),
    tar,
    Buffer.from(arHeader('data.tar', tar.length)),
    tar,
  ];
  await fs.writeFile(file, Buffer.concat(parts));
  return file;
}

test.skipIf(requires('dpkg-deb', 'tar', 'python3'))(
  'modules are compiled; links of one package lead no other one out of the tree',
  async () => {
    const outside = path.join(dir, 'outside');
    await fs.mkdir(outside);
    const debs = [
      await deb('one', ['way.py', 'good.py'], async (modules) => {
        await fs.symlink(outside, path.join(modules, 'way.py'));
        await fs.writeFile(path.join(modules, 'good.py'), 'x = 1\n');
      }),
      await deb('two', ['way.py/out.py'], async (modules) => {
        await fs.mkdir(path.join(modules, 'way.py'));
        await fs.writeFile(path.join(modules, 'way.py/out.py'), 'x = 2\n');
      }),
    ];
    const version = ['-I', '-c', 'import sys; print("%d.%d" % sys.version_info[:2])'];
    const python = execFileSync('python3', version, { encoding: 'utf8' }).trim();
    const target = path.join(dir, 'bytecode.tar');
    expect(await makeBytecode(debs, python, path.join(dir, 'tree'), target, signal)).toBe(true);
    expect(await fs.readdir(outside)).toEqual([]);
    const names = execFileSync('tar', ['-tf', target], { encoding: 'utf8' });
    expect(names).toContain(`${MODULES}/__pycache__/good.cpython-${python.replace('.', '')}.pyc`);
  },
);
