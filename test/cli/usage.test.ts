import * as path from 'node:path';
import { expect, test } from 'vitest';
import { ROOT, runCli } from '../support/cli.ts';

test.each([
  ['no source', ['convert'], /source/],
  ['no platform', ['convert', 'x.raw'], /--to is missing/],
  ['unknown platform', ['convert', 'x.raw', '--to', 'mars'], /mars/],
  ['two sources', ['convert', 'x.raw', 'y.raw', '--to', 'qemu'], /one source at a time/],
  ['unknown format', ['convert', 'x.raw', '--to', 'qemu', '--format', 'exe'], /no such format/],
  ['bad NIC', ['convert', 'x.raw', '--to', 'qemu', '--network', 'keep', '--nic', 'eth0'], /not a NIC/],
  ['unknown store', ['convert', 'x.raw', '--to', 'qemu', '--store', 'ftp:x'], /not a data store/],
  ['no such file', ['convert', '/does/not/exist', '--to', 'qemu'], /does not exist/],
  ['unknown stage', ['stage', 'polish'], /no such stage/],
  ['stage without job', ['stage', 'verify'], /--job is missing/],
  ['unknown job', ['resume', '/does/not/exist'], /no job/],
  [
    'configuration that is none',
    ['convert', 'x.raw', '--to', 'qemu', '--config', path.join(ROOT, 'LICENSE')],
    /LICENSE/,
  ],
  ['unknown command', ['polish'], /unknown command/],
  [
    'number of bad places that is none',
    ['capture', 'x.raw', '--job', 'no-job', '--allow-bad', 'x'],
    /--allow-bad: x is no number/,
  ],
  ['too low a limit', ['capture', 'x.raw', '--job', 'no-job', '--limit', '1'], /--limit/],
  [
    'checksum of a file that is here',
    ['capture', 'x.raw', '--job', 'no-job', '--checksum', `sha256:${'0'.repeat(64)}`],
    /only for images that are downloaded/,
  ],
  [
    'checksum of a file that is here, in a conversion',
    ['convert', 'x.raw', '--to', 'qemu', '--checksum', `sha256:${'0'.repeat(64)}`],
    /only for images that are downloaded/,
  ],
  [
    'a signature in the address of a list of checksums',
    ['convert', 'http://127.0.0.1:1/x', '--to', 'qemu', '--checksum', 'http://127.0.0.1:1/SUMS?sig=x'],
    /must not have a query/,
  ],
])('%s: one clear line, exit status 2', async (_, args, message) => {
  const result = await runCli(args);
  expect(result.stderr).toMatch(message);
  expect(result.stderr).not.toMatch(/^\s+at /m);
  expect(result.exitCode).toBe(2);
  expect(result.stdout).toBe('');
});

test('a text file is no disk: exit status 4, and no job is left', async () => {
  const result = await runCli([
    'convert',
    path.join(ROOT, 'README.md'),
    '--to',
    'qemu',
    '--job',
    path.join(ROOT, 'no-job'),
  ]);
  expect(result.exitCode).toBe(4);
  expect(result.stderr).toContain('NOT_A_DISK');
  const again = await runCli(['jobs', 'show', path.join(ROOT, 'no-job')]);
  expect(again.stderr).toContain('JOB_UNKNOWN');
});

test('every command has help with an example', async () => {
  const { stdout } = await runCli(['--help']);
  const names = [...stdout.matchAll(/^ {2}([a-z]+)(?: |$)/gm)]
    .map((m) => m[1] ?? '')
    .filter((n) => n !== 'help' && n !== 'port');
  expect(names.length).toBeGreaterThan(8);
  for (const name of names) {
    const help = await runCli(name === 'jobs' ? ['jobs', 'list', '--help'] : [name, '--help']);
    expect(help.exitCode, name).toBe(0);
    expect(help.stdout, name).toMatch(/Examples?:\n {2}port-image/);
    expect(help.stdout, name).toContain('--json');
  }
  // A process for each, and a slow machine takes seconds for one.
}, 120_000);

test('completion is a shell script', async () => {
  const { stdout } = await runCli(['completion', 'bash']);
  const { execa } = await import('execa');
  await execa('bash', ['-n'], { input: stdout });
  expect(stdout).toContain('openstack');
});
