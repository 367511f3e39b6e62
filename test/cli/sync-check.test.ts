import * as fs from 'node:fs/promises';
import * as os from 'node:os';
import * as path from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { runCli } from '../support/cli.ts';

let dir: string;
beforeAll(async () => {
  dir = await fs.mkdtemp(path.join(os.tmpdir(), 'sync-check-'));
  await fs.mkdir(path.join(dir, 'images'));
});
afterAll(async () => {
  await fs.rm(dir, { recursive: true, force: true });
});

const GOOD = `sync: nightly
sources:
  lab:
    folder: { path: images }
    store: file:DIR/store
targets:
  b: { platform: openstack, options: { cloud: nowhere } }
window: { from: '22:00', to: '06:00', timezone: Europe/Berlin }
schedule: { cron: '30 1 * * *', timezone: Europe/Berlin }
notify:
  - webhook: env:SYNC_CHECK_HOOK
  - command: [cat]
state: state
`;

async function check(text: string, ...flags: string[]) {
  const file = path.join(dir, 'sync.yaml');
  await fs.writeFile(file, text.replaceAll('DIR', dir));
  const env = {
    SYNC_CHECK_HOOK: '',
    OS_CLIENT_CONFIG_FILE: path.join(dir, 'clouds.yaml'),
    XDG_STATE_HOME: dir,
  };
  return runCli(['sync', 'check', 'sync.yaml', ...flags], { cwd: dir, env });
}

test('what was understood, with the times that come; nothing is touched', async () => {
  const result = await check(GOOD);
  expect(result.stderr).toBe('');
  expect(result.exitCode).toBe(0);
  expect(result.stdout).toMatch(
    /^sources {4}lab {2}folder images: \*\.qcow2, \*\.raw; newest version; data sets in file:/m,
  );
  expect(result.stdout).toMatch(
    /^window {5}22:00 to 06:00 \(Europe\/Berlin\): (open, closes|closed, opens) in \d+ h \d+ min$/m,
  );
  expect(result.stdout.match(/^ +\d{4}-\d\d-\d\d 01:30 GMT\+[12]$/gm)).toHaveLength(5);
  expect((await fs.readdir(dir)).sort()).toEqual(['images', 'sync.yaml']);
});

test('as JSON', async () => {
  const result = await check(GOOD, '--json');
  expect(result.json()).toMatchObject({
    schema: 'port-image/sync-check/1',
    file: path.join(dir, 'sync.yaml'),
    ok: true,
    config: { sync: 'nightly', state: path.join(dir, 'state'), retention: { keep: 2 } },
    next: { length: 5 },
  });
});

test('every problem on a line, and status 2', async () => {
  const wrong = GOOD.replace('folder: { path', 'folder: { pth').replace('cron:', 'corn:');
  const result = await check(wrong);
  expect(result.exitCode).toBe(2);
  expect(result.stdout.trimEnd().split('\n')).toEqual([
    'sync.yaml:4:5: sources.lab.folder.path: is missing',
    'sync.yaml:4:15: sources.lab.folder.pth: there is no such key; did you mean path?',
    'sync.yaml:9:1: schedule.cron: is missing',
    'sync.yaml:9:13: schedule.corn: there is no such key; did you mean cron?',
  ]);
  expect(result.stderr).toBe('port-image: 4 things are wrong in sync.yaml [CONFIG]');
  const json = await check(wrong, '--json');
  expect(json.exitCode).toBe(2);
  expect(json.json()).toMatchObject({
    ok: false,
    problems: { length: 4, 0: { line: 4, column: 5, path: 'sources.lab.folder.path' } },
  });
});

test('--online: each place on a line, and the status of the first that refused', async () => {
  const result = await check(GOOD, '--online');
  expect(result.exitCode).toBe(2);
  const places = result.stdout
    .slice(result.stdout.indexOf('\n\n', result.stdout.indexOf('state')) + 2)
    .split('\n');
  expect(
    places.filter((line) => !line.includes('hint:')).map((line) => line.replace(/ {2,}/g, '  ').trim()),
  ).toEqual([
    `ok  source lab  ${dir}/images: 0 files`,
    `ok  store of source lab  file:${dir}/store can be written to`,
    expect.stringMatching(/^failed {2}target b {2}.*clouds\.yaml.* \[CONFIG\]$/),
    'failed  notify[0]  the variable SYNC_CHECK_HOOK is not set [CONFIG]',
    expect.stringMatching(/^ok {2}notify\[1\] {2}\/.*\/cat$/),
  ]);
});

test('a file that is not there is one line', async () => {
  const result = await runCli(['sync', 'check', 'none.yaml'], { cwd: dir });
  expect(result.exitCode).toBe(2);
  expect(result.stderr).toBe(
    'port-image: none.yaml: there is no such file [CONFIG]\n  hint: port-image sync FILE; see docs/sync.md',
  );
});

test('a daemon without a schedule says what is missing', async () => {
  await check(GOOD.replace(/^schedule.*\n/m, ''));
  const result = await runCli(['sync', 'sync.yaml', '--daemon'], { cwd: dir });
  expect(result.exitCode).toBe(2);
  expect(result.stderr).toMatch(/has no schedule \[CONFIG\]\n {2}hint: add schedule: \{ cron:/);
});
