import { execFile } from 'node:child_process';
import * as fs from 'node:fs/promises';
import * as os from 'node:os';
import * as path from 'node:path';
import { promisify } from 'node:util';
import * as fc from 'fast-check';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { stringify } from 'yaml';
import { DAY_MS } from '../../../core/durations.ts';
import { nearest } from '../../../pipeline/sync/file/issues.ts';
import { loadSync, parseSync, SyncFileError } from '../../../pipeline/sync/load.ts';

const GOOD = `sync: nightly
sources:
  a:
    glance: { cloud: A }
targets:
  b:
    platform: openstack
    options: { cloud: B }
`;

let dir: string;
beforeAll(async () => {
  dir = await fs.mkdtemp(path.join(os.tmpdir(), 'sync-load-'));
});
afterAll(async () => {
  await fs.rm(dir, { recursive: true, force: true });
});

/** Lines of what is wrong, without the name of the file. */
function wrong(text: string): string[] {
  try {
    parseSync(text, 's.yaml');
  } catch (error) {
    if (!(error instanceof SyncFileError)) throw error;
    expect(error.code).toBe('CONFIG');
    expect(error.message).not.toContain('\n');
    return error.lines.map((line) => line.replace(/^s\.yaml:/, ''));
  }
  return [];
}

test('a small file, its defaults filled in, its path absolute, its text kept', () => {
  const file = parseSync(GOOD, 'conf/s.yaml');
  expect(file.path).toBe(path.resolve('conf/s.yaml'));
  expect(file.text).toBe(GOOD);
  expect(file.config.targets.b).toMatchObject({ lanes: 1, delta: 'auto', verify: 'digest' });
  expect(file.config.retention).toEqual({ keep: 2, hideFor: 7 * DAY_MS, pins: [] });
});

test('JSON is YAML', () => {
  expect(
    parseSync(
      JSON.stringify({
        sync: 'x',
        sources: { a: { job: 'j' } },
        targets: { b: { platform: 'openstack', options: { cloud: 'B' } } },
      }),
      's',
    ).config.sync,
  ).toBe('x');
});

test('everything wrong is told at once, by line and column, with the name that was meant', () => {
  const text = `sync: nightly
sources:
  a:
    glance: { cloud: A, onwer: any }
    versions: 0
  B!: { job: /x }
targets:
  b:
    platform: openstack
    options: { clod: B, method: web-downlod }
    lanes: 99
    store: s4:x
  c: { platfrom: aws, options: { region: 5 } }
rules:
  - match: { source: nope }
    targets: [b, zz]
    name: "{nam}-x"
    members: [p]
    properties: { set: { os_version: 22.04, port_image_x: y } }
retention: { keep: 0, maxAge: 5x, kep: 1 }
window: { from: "25:00", to: "06:00", timezone: Mars/X }
schedule: { cron: "99 1 * * *" }
notify:
  - on: sometimes
    command: [x]
  - {}
state: 5
`;
  expect(wrong(text)).toEqual([
    '4:25: sources.a.glance.onwer: there is no such key; did you mean owner?',
    '5:5: sources.a.versions: must be at least 1',
    '6:3: sources.B!: not a name here: letters a-z, digits, dot, dash and underscore, at most 40',
    '10:5: targets.b.options.cloud: is missing',
    '10:16: targets.b.options.clod: there is no such key; did you mean cloud?',
    '10:25: targets.b.options.method: must be one of auto, put, import, web-download; did you mean web-download?',
    '11:5: targets.b.lanes: must be at most 16',
    '12:5: targets.b.store: not a data store: s4:x; kinds of store: file:…, azure:…, s3:…, gs:…, swift:…',
    '13:3: targets.c.platform: is missing; must be one of openstack, aws, azure, gcp',
    '13:8: targets.c.platfrom: there is no such key; did you mean platform?',
    '15:14: rules[0].match.source: no source nope',
    '16:18: rules[0].targets[1]: no target zz',
    '17:5: rules[0].name: {nam} is none of {name} {series} {version} {date}',
    '18:5: rules[0].members: members need visibility: shared',
    '19:26: rules[0].properties.set.os_version: must be text: put it in quotes',
    '19:45: rules[0].properties.set.port_image_x: this property is not yours to set',
    '20:14: retention.keep: must be at least 1',
    '20:23: retention.maxAge: a duration: 5x is no duration',
    '20:35: retention.kep: there is no such key; did you mean keep?',
    '21:11: window.from: a time of day, such as 22:00',
    '21:39: window.timezone: not a time zone, such as Europe/Berlin',
    "22:13: schedule.cron: not a cron pattern: Invalid value for minute: 99; such as '30 1 * * *'",
    '24:5: notify[0].on: must be one of failure, change, always',
    '26:5: notify[1]: a webhook or a command',
    '27:1: state: must be text: put it in quotes',
  ]);
});

test('the error itself is one line, with the first and how to see the rest', () => {
  let error: unknown;
  try {
    parseSync('sync: X\nsources: {}\n', 's.yaml');
  } catch (thrown) {
    error = thrown;
  }
  expect(error).toMatchObject({
    code: 'CONFIG',
    message: expect.stringMatching(/^s\.yaml:1:1: .* \(and \d more\)$/),
    hint: 'port-image sync check s.yaml',
  });
});

test.each([
  ['sync: a\nsync: b\n', '2:1: sync stands here twice'],
  ['sync: a\nsources:\n\ta: 1\n', '3:1: a tab; YAML is indented with spaces'],
  ['sync: [a\n', /something is missing here/],
  ['sync: a\n---\nsync: b\n', '2:1: a second document begins here; a sync is one file'],
  ['sync: &x a\nstate: *x\n', /anchors and aliases/],
  ['sync: !!js/function "x"\n', /tags \(!…\) are not read here/],
  ['- a\n', /not a sync file/],
  ['', /not a sync file/],
  ['just text', /not a sync file/],
  ['? {a: b}\n: c\n', /a key is a word/],
  ['['.repeat(200_000), /^1:\d+: nested too deeply$/],
  ['a: '.repeat(20), /./],
])('text that is no YAML of ours: %#', (text, expected) => {
  const lines = wrong(text);
  expect(lines.length).toBeGreaterThan(0);
  if (typeof expected === 'string') expect(lines).toContain(expected);
  else expect(lines.join('\n')).toMatch(expected);
});

test('a key that stands twice does not hide what else is wrong', () => {
  expect(wrong(`${GOOD}state: a\nstate: b\nlimits: { imgaes: 2 }\n`)).toEqual([
    '10:1: state stands here twice',
    '11:11: limits.imgaes: there is no such key; did you mean images?',
  ]);
});

test('aliases do not unfold', () => {
  const levels = Array.from(
    { length: 30 },
    (_, at) => `k${at}: &a${at} [${at === 0 ? 'x' : `*a${at - 1}, *a${at - 1}`}]`,
  );
  const before = performance.now();
  expect(wrong(levels.join('\n')).join()).toMatch(/anchors and aliases/);
  expect(performance.now() - before).toBeLessThan(2000);
});

test.each([
  ['    password: hunter2', 'targets.b.options.password'],
  ['    auth_token: abcdefgh', 'targets.b.options.auth_token'],
  ['    secretAccessKey: wJalrXUtnFEMI', 'targets.b.options.secretAccessKey'],
  ['    endpoint: https://user:hunter2@h/', 'targets.b.options.endpoint'],
  ['    note: "Authorization: Bearer hunter2hunter2"', 'targets.b.options.note'],
])('a secret is refused, and never quoted: %s', (line, at) => {
  const text = GOOD.replace('    options: { cloud: B }', `    options:\n      cloud: B\n  ${line}`);
  const lines = wrong(text);
  expect(lines).toHaveLength(1);
  expect(lines[0]).toMatch(new RegExp(`^10:7: ${at.replaceAll('.', '\\.')}: looks like a secret`));
  expect(lines.join()).not.toMatch(/hunter2|abcdefgh|wJalr/);
});

test('a URL of a webhook in the file is a secret; a reference is none, nor is a path of a key', () => {
  expect(wrong(`${GOOD}notify:\n  - webhook: https://hooks.slack.com/services/T0/B0/hunter2\n`)).toEqual([
    expect.stringMatching(/^10:5: notify\[0\]\.webhook: looks like a secret, .*env:NAME or file:\/PATH$/),
  ]);
  expect(wrong(`${GOOD}notify:\n  - webhook: env:HOOK\n  - webhook: file:/etc/hook\n`)).toEqual([]);
  const signed = GOOD.replace('{ cloud: B }', '{ cloud: B, signKey: /etc/key.pem, signCertificate: 4a }');
  expect(wrong(signed).join()).not.toContain('secret');
  const kms = 'arn:aws:kms:eu-central-1:123456789012:key/4a';
  expect(
    wrong(
      GOOD.replace(
        /platform.*\n.*\n/,
        `platform: aws\n    options: { region: eu-central-1, kmsKeyArn: "${kms}" }\n`,
      ),
    ),
  ).toEqual([]);
});

test('sources: one kind each; options of servers are those of convert; jobs are not shared', () => {
  const text = (body: string) => GOOD.replace('    glance: { cloud: A }', body);
  expect(wrong(text('    glanc: { cloud: A }'))).toEqual([
    '3:3: sources.a: one of glance, job, folder, servers is missing; did you mean glance?',
  ]);
  expect(wrong(text('    job: a\n    folder: { path: b }'))).toEqual([
    '3:3: sources.a: job and folder: only one kind in one source',
  ]);
  expect(wrong(text('    folder: { path: ~/images }'))[0]).toMatch(
    /^4:15: sources\.a\.folder\.path: ~ is not read here/,
  );
  const server = (name: string, job: string, more = '') =>
    `{ name: ${name}, source: "ssh://root@h/dev/sda", job: ${job}${more} }`;
  expect(
    wrong(
      text(
        `    servers:\n      - ${server('x', 'jobs/x', ', options: { strp: auto }')}\n      - ${server('y', 'jobs/x')}`,
      ),
    ),
  ).toEqual([
    expect.stringMatching(
      /^5:\d+: sources\.a\.servers\[0\]\.options\.strp: there is no such key; did you mean strip\?$/,
    ),
    expect.stringMatching(/^6:\d+: sources\.a\.servers\[1\]\.job: another server here has the same$/),
  ]);
});

test('data can only be carried from a store to a store', () => {
  const rules = 'rules:\n  - data: carry\n';
  expect(wrong(`${GOOD}${rules}`)).toEqual([
    '10:5: rules[0].data: nothing says where the data sets are: sources.a.store is missing',
    '10:5: rules[0].data: nothing says where the data sets go: targets.b.store is missing',
  ]);
  const stores = GOOD.replace('{ cloud: A }', '{ cloud: A }\n    store: swift:data').replace(
    '{ cloud: B }',
    '{ cloud: B }\n    store: swift:data',
  );
  expect(wrong(`${stores}${rules}`)).toEqual([]);
  expect(wrong(stores.replace(/store: swift:data/, 'store: file:data'))[0]).toMatch(
    /a file: store needs an absolute path/,
  );
});

test('times that never come, and windows without length', () => {
  expect(wrong(`${GOOD}schedule: { cron: "0 0 30 2 *" }\nwindow: { from: "06:00", to: "06:00" }\n`)).toEqual([
    '9:13: schedule.cron: this time never comes',
    '10:26: window.to: the same as `from`; leave `window` out when all day is right',
  ]);
});

test('the size of a file is bounded, also that of its messages', async () => {
  const large = path.join(dir, 'large.yaml');
  await fs.writeFile(large, `${GOOD}# ${'x'.repeat(2 ** 20)}\n`);
  await expect(loadSync(large)).rejects.toThrow(/larger than 1 MiB/);
  expect(() => parseSync(`${GOOD}# ${'x'.repeat(2 ** 20)}\n`, 's')).toThrow(/larger than 1 MiB/);
  const many = Array.from({ length: 60_000 }, (_, at) => `k${at}: 1`).join('\n');
  const lines = wrong(`${GOOD}${many}\n`);
  expect(lines).toHaveLength(101);
  expect(lines.at(-1)).toMatch(/^109:1: and more from here on$/);
});

test('files that are none', async () => {
  await expect(loadSync(path.join(dir, 'none.yaml'))).rejects.toMatchObject({
    code: 'CONFIG',
    message: expect.stringMatching(/there is no such file/),
  });
  await expect(loadSync(dir)).rejects.toMatchObject({
    code: 'CONFIG',
    message: expect.stringMatching(/is a folder/),
  });
  const fifo = path.join(dir, 'fifo');
  await promisify(execFile)('mkfifo', [fifo]);
  await expect(loadSync(fifo)).rejects.toMatchObject({
    code: 'CONFIG',
    message: expect.stringMatching(/not a plain file/),
  });
  const latin = path.join(dir, 'latin.yaml');
  await fs.writeFile(latin, Buffer.from('sync: \xe4\n', 'latin1'));
  await expect(loadSync(latin)).rejects.toMatchObject({
    code: 'CONFIG',
    message: expect.stringMatching(/UTF-8/),
  });
  const good = path.join(dir, 'good.yaml');
  await fs.writeFile(good, GOOD);
  expect((await loadSync(good)).config.sync).toBe('nightly');
});

test('escape codes of a file do not reach the terminal', () => {
  expect(wrong(`${GOOD}"\\e[31mred\\u202e": 1\n`).join()).not.toMatch(/[\u001b\u202e]/);
});

test('whatever the text, the answer is a configuration or lines with places', () => {
  const word = fc.constantFrom(
    'sync',
    'sources',
    'targets',
    'rules',
    'a',
    'job',
    'glance',
    '{',
    '}',
    '[',
    ']',
    ':',
    ': ',
    '\n',
    '\n  ',
    '- ',
    '"',
    "'",
    '#',
    '*a',
    '&a',
    '!t',
    '1',
    '|',
    '%',
    '\t',
  );
  fc.assert(
    fc.property(
      fc.oneof(
        fc.array(word, { maxLength: 40 }).map((words) => words.join('')),
        fc.string({ unit: 'grapheme' }),
      ),
      (text) => {
        for (const line of wrong(text)) expect(line).toMatch(/^[1-9]\d*:[1-9]\d*: ./);
      },
    ),
    { numRuns: 300 },
  );
});

test('whatever the value, nothing but problems comes out', () => {
  const tree = fc.letrec((tie) => ({
    value: fc.oneof(
      { depthSize: 'small' },
      fc.oneof(fc.string(), fc.integer(), fc.boolean(), fc.constant(null)),
      fc.array(tie('value'), { maxLength: 3 }),
      fc.dictionary(
        fc.constantFrom(
          'sync',
          'sources',
          'targets',
          'rules',
          'match',
          'source',
          'glance',
          'servers',
          'options',
          'platform',
          'notify',
          'window',
          'from',
          'schedule',
          'cron',
          'properties',
          'set',
          'store',
          '__proto__',
          'constructor',
        ),
        tie('value'),
        { maxKeys: 5 },
      ),
    ),
  })).value;
  const file = fc.record(
    { sync: tree, sources: tree, targets: tree, rules: tree, notify: tree, window: tree, schedule: tree },
    { requiredKeys: [] },
  );
  fc.assert(
    fc.property(file, (value) => {
      for (const line of wrong(stringify(value, { aliasDuplicateObjects: false })))
        expect(line).toMatch(/^[1-9]\d*:[1-9]\d*: ./);
    }),
    { numRuns: 300 },
  );
});

test('the nearest name is one or a few letters away', () => {
  expect(nearest('taget', ['targets', 'sources'])).toBe('targets');
  expect(nearest('lnaes', ['lanes', 'store'])).toBe('lanes');
  expect(nearest('os-cloud', ['osCloud'])).toBe('osCloud');
  expect(nearest('entirely', ['lanes', 'store'])).toBeUndefined();
});

test('a visibility a platform does not have is told, unless the target has a rule of its own before', () => {
  const azure = `  z:
    platform: azure
    options: { subscription: 00000000-0000-0000-0000-000000000000, resourceGroup: rg, location: westeurope, storageAccount: abc, container: vhds }
`;
  const text = (rules: string) => `${GOOD}${azure}rules:\n${rules}`;
  expect(wrong(text('  - visibility: community\n'))).toEqual([
    '13:5: rules[0].visibility: z is azure, where an image is private; put a rule for z before this one',
  ]);
  expect(wrong(text('  - targets: [z]\n  - visibility: community\n'))).toEqual([]);
  expect(wrong(text('  - visibility: community\n    targets: [b]\n'))).toEqual([]);
  const gcp = azure.replace('azure', 'gcp').replace(/\{ .* \}/, '{ project: shop-1, bucket: images }');
  expect(wrong(`${GOOD}${gcp}rules:\n  - visibility: public\n`)).toEqual([
    '13:5: rules[0].visibility: z is gcp, where an image is private; put a rule for z before this one',
  ]);
});

test('two targets in one place, and options a rule decides, are told', () => {
  const more = `  c: { platform: openstack, options: { cloud: B, visibility: public } }
  d: { platform: openstack, options: { cloud: other } }
`;
  expect(wrong(`${GOOD}${more}`).map((line) => line.replace(/^\d+:\d+: /, ''))).toEqual([
    'targets.c: the same place as b; take another sync for it',
    'targets.c.options.visibility: not for a sync: a rule says it',
  ]);
});
