import * as fs from 'node:fs/promises';
import * as os from 'node:os';
import * as path from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { runCli } from '../support/cli.ts';

const SECRET = 'temp_url_sig=c0ffee';
let dir: string;
beforeAll(async () => {
  dir = await fs.mkdtemp(path.join(os.tmpdir(), 'cli-verify-'));
});
afterAll(async () => {
  await fs.rm(dir, { recursive: true });
});

const url = (host: string) => `https://${host}/v1/AUTH_x/set/?${SECRET}`;

test.each([
  ['no JSON', `{"url":"${url('s')}"`, 'is not JSON'],
  [
    'another version',
    JSON.stringify({ version: 9, data: { a: { url: url('s') } } }),
    'is no provision document (at version)',
  ],
  [
    'no URL',
    JSON.stringify({ version: 1, data: { a: { url: `file:///x?${SECRET}` } } }),
    'is no provision document (at data.a.url)',
  ],
  [
    'two stores',
    JSON.stringify({ port_image: { version: 1, data: { a: { url: url('s') }, b: { url: url('t') } } } }),
    'must name one store, it names 2',
  ],
  ['nothing named', JSON.stringify({ version: 1, data: {} }), 'must name one store, it names 0'],
])('a document with %s is refused in one line that quotes nothing of it', async (_what, text, told) => {
  const file = path.join(dir, 'doc.json');
  await fs.writeFile(file, text);
  const result = await runCli(['verify', 'no-such.qcow2', '--platform', 'openstack', '--provision', file]);
  expect([result.exitCode, result.stdout]).toEqual([2, '']);
  expect(result.stderr).toContain(told);
  expect(result.stderr).not.toMatch(/c0ffee|\n\s+at /);
});

test('--ca goes with --provision, and both must be files', async () => {
  const lone = await runCli(['verify', 'x', '--platform', 'openstack', '--ca', 'x']);
  expect([lone.exitCode, lone.stderr]).toEqual([2, expect.stringContaining('--ca goes with --provision')]);
  const folder = await runCli(['verify', 'x', '--platform', 'openstack', '--provision', dir]);
  expect([folder.exitCode, folder.stderr]).toEqual([2, expect.stringContaining('no file of at most 1 MiB')]);
  const none = await runCli([
    'verify',
    'x',
    '--platform',
    'openstack',
    '--provision',
    path.join(dir, 'none'),
  ]);
  expect([none.exitCode, none.stderr]).toEqual([2, expect.stringContaining('cannot be read')]);
});
