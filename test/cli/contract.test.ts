import * as fs from 'node:fs/promises';
import { tmpdir } from 'node:os';
import * as path from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { Contract } from '../../core/contract.ts';
import { jsonExamples } from '../../scripts/lib/doc-examples.ts';
import { runCli } from '../support/cli.ts';

let dir: string;
let contract: Contract;
let provision: { data: Record<string, { url: string; expires?: string }> };
const file = (name: string): string => path.join(dir, name);
const put = (name: string, value: unknown) =>
  fs.writeFile(file(name), typeof value === 'string' ? value : JSON.stringify(value));

beforeAll(async () => {
  dir = await fs.mkdtemp(path.join(tmpdir(), 'contract-cli-'));
  contract = jsonExamples('docs/contract.md', 'contract')[0] as Contract;
  provision = jsonExamples('docs/contract.md', 'provision')[0] as typeof provision;
  await put('contract.json', contract);
  await put('provision.json', { port_image: provision });
});
afterAll(() => fs.rm(dir, { recursive: true, force: true }));

test('match: yes is one line and exit status 0, without an appliance', async () => {
  const result = await runCli([
    ...['contract', 'match', file('contract.json'), '--target', 'openstack'],
    ...['--provision', file('provision.json')],
  ]);
  expect(result.stderr).toBe('');
  expect(result.stdout).toMatch(/^yes: .* can run on openstack$/m);
  expect(result.exitCode).toBe(0);
});

test('match: each unmet need is named, exit status 7; with --json stdout is one object', async () => {
  await put('other.json', {
    ...contract,
    facts: { ...contract.facts, arch: 'aarch64', drivers: ['sd_mod'] },
    critical: ['data', 'warp\u001b[2J'],
  });
  const args = ['contract', 'match', file('other.json'), '--target', 'qemu'];
  const result = await runCli(args);
  expect(result.exitCode).toBe(7);
  expect(result.stdout).toMatch(/^no: /);
  expect(result.stdout).toMatch(/architecture +the image is for aarch64/);
  expect(result.stdout).toMatch(/storage-driver .*virtio_blk/);
  expect(result.stdout + result.stderr).not.toContain('\u001b');
  expect(result.stderr).toMatch(/architecture, storage-driver.*\[VERIFY_FAILED\]\n {2}hint: /);
  const json = await runCli([...args, '--json']);
  expect(json.exitCode).toBe(7);
  expect(json.json()).toMatchObject({
    target: 'qemu',
    matches: false,
    unmet: expect.arrayContaining([
      { need: 'architecture', detail: expect.any(String), hint: expect.any(String) },
    ]),
  });
});

test('match: an expired document, named without its URL', async () => {
  const [id = ''] = Object.keys(provision.data);
  const data = { ...provision.data, [id]: { url: 'https://h/?sig=secret', expires: '2001-01-01T00:00:00Z' } };
  await put('expired.json', { version: 1, data });
  const result = await runCli([
    ...['contract', 'match', file('contract.json'), '--target', 'openstack'],
    ...['--provision', file('expired.json')],
  ]);
  expect(result.exitCode).toBe(7);
  expect(result.stdout).toMatch(/expired +the URL of .* expired at 2001-01-01/);
  expect(result.stdout + result.stderr).not.toContain('secret');
});

test.each([
  ['no target', () => ['match', file('contract.json')], 2, /--target|no platform named/],
  ['two targets', () => ['match', file('contract.json'), '--target', 'all'], 2, /name one platform/],
  ['unknown target', () => ['match', file('contract.json'), '--target', 'mars'], 2, /mars/],
  ['no such file', () => ['match', file('none.json'), '--target', 'qemu'], 2, /none\.json does not exist/],
  [
    'no provision document',
    () => ['match', file('contract.json'), '--target', 'qemu', '--provision', file('contract.json')],
    2,
    /no provision document: version is wrong \[CONFIG\]/,
  ],
  ['other JSON', () => ['match', 'package.json', '--target', 'qemu'], 4, /\[NO_CONTRACT\]/],
  ['text instead of an image', () => ['verify', 'README.md'], 4, /\[NOT_A_DISK\]/],
  ['unknown format', () => ['verify', 'README.md', '--format', 'exe'], 2, /no such format/],
  ['no subcommand', () => ['polish'], 2, /unknown command|polish/],
])('%s: one clear line', async (_, args, status, message) => {
  const result = await runCli(['contract', ...args()]);
  expect(result.stderr).toMatch(message);
  expect(result.stderr).not.toMatch(/^\s+at /m);
  expect(result.exitCode).toBe(status);
  expect(result.stdout).toBe('');
});
