import * as fs from 'node:fs/promises';
import * as os from 'node:os';
import * as path from 'node:path';
import { expect, test } from 'vitest';
import { hostFiles, parseCommands, readCommandFile } from '../../tools/virt-customize.ts';

test('comments, continued lines, arguments', () => {
  expect(
    parseCommands('# c\n\n  write /etc/motd:hello \\\nworld\nselinux-relabel\nrun-command echo a:b\n'),
  ).toEqual([
    { line: 3, name: 'write', argument: '/etc/motd:hello world' },
    { line: 5, name: 'selinux-relabel', argument: '' },
    { line: 6, name: 'run-command', argument: 'echo a:b' },
  ]);
});

test.each([
  'install nginx',
  'update',
  'commands-from-file x',
  'sm-register',
  'format-disk',
  '--write /a:b',
  '!id',
])('refuses %s', (text) => {
  expect(() => parseCommands(text)).toThrow(expect.objectContaining({ code: 'CONFIG' }));
});

test('files of this machine are found in arguments', () => {
  const commands = parseCommands(
    'upload a.txt:/etc/a\ncopy-in /x:/y\nrun s.sh\nroot-password file:/p\nssh-inject joe:file:k.pub\npassword joe:locked:random\n',
  );
  expect(hostFiles(commands, '/d').map((f) => f.file)).toEqual([
    '/d/a.txt',
    '/x',
    '/d/s.sh',
    '/p',
    '/d/k.pub',
  ]);
});

test('a named file that is missing is refused with its line', async () => {
  const dir = await fs.mkdtemp(path.join(os.tmpdir(), 'customize-'));
  await fs.writeFile(path.join(dir, 'c'), 'touch /a\nrun missing.sh\n');
  await expect(readCommandFile(path.join(dir, 'c'))).rejects.toThrow(/line 2: .*missing\.sh/);
  await expect(readCommandFile(path.join(dir, 'none'))).rejects.toMatchObject({ code: 'CONFIG' });
  await fs.rm(dir, { recursive: true });
});
