import { mkdir, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import * as path from 'node:path';
import { execa } from 'execa';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { ROOT, runCli } from './support/cli.ts';
import { requires } from './support/requires.ts';

const missing = requires('npm');
let folder: string;
let files: string[] = [];
let bin: string;

beforeAll(async () => {
  if (missing !== undefined) return;
  folder = await mkdtemp(path.join(tmpdir(), 'port-image-pack-'));
  const packed = await execa('npm', ['pack', '--json', '--pack-destination', folder], { cwd: ROOT });
  const [report] = JSON.parse(packed.stdout) as { filename: string; files: { path: string }[] }[];
  if (report === undefined) throw new Error(`npm pack said nothing: ${packed.stdout}`);
  files = report.files.map((f) => f.path);

  const home = path.join(folder, 'empty');
  await mkdir(home);
  await writeFile(path.join(home, 'package.json'), '{"private":true}\n');
  await execa(
    'npm',
    ['install', '--prefer-offline', '--no-audit', '--no-fund', path.join(folder, report.filename)],
    {
      cwd: home,
    },
  );
  bin = path.join(home, 'node_modules/.bin/port-image');
});

afterAll(async () => {
  if (folder !== undefined) await rm(folder, { recursive: true, force: true });
});

test.skipIf(missing)('the packed package runs from an empty folder', async () => {
  const { version } = JSON.parse(await readFile(path.join(ROOT, 'package.json'), 'utf8')) as {
    version: string;
  };
  const result = await runCli(['--version'], { bin, cwd: folder });
  expect(result.stderr).toBe('');
  expect(result.stdout.trim()).toContain(version);
  expect(result.exitCode).toBe(0);
  expect((await runCli(['convert', '--help'], { bin, cwd: folder })).exitCode).toBe(0);
});

test.skipIf(missing)(
  'it holds compiled code, the guest programs and the licence, and no sources',
  async () => {
    expect(files).toContain('dist/cli/main.js');
    expect(files).toContain('LICENSE');
    expect(files.filter((f) => f.endsWith('.ts') || /^(test|fixtures|scripts)\//.test(f))).toEqual([]);
  },
);

test.skipIf(missing)('what the program reads beside its code is in the package', async () => {
  const sources = await execa('grep', ['-rhoE', `assetPath\\('[^']+'\\)`, 'dist'], {
    cwd: ROOT,
    reject: false,
  });
  const named = [...sources.stdout.matchAll(/assetPath\('([^']+)'\)/g)].map((m) => m[1] ?? '');
  const installed = path.join(folder, 'empty/node_modules/port-image');
  for (const name of named) await expect(stat(path.join(installed, name))).resolves.toBeDefined();
});
