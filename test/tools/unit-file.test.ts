import fc from 'fast-check';
import { expect, test } from 'vitest';
import { parseUnit, templateOf, unitPaths } from '../../tools/unit-file.ts';

const paths = (text: string, instance?: string) => unitPaths(parseUnit(text), instance);

test('paths a unit names', () => {
  expect(
    paths(
      '[Unit]\nRequiresMountsFor=/srv/a /srv/b\nDocumentation=file:///usr/share/doc\n' +
        '[Service]\nExecStart=-/usr/bin/x --dir=/srv/c "/srv/d" \\\n# comment\n  http://host/path\n' +
        'EnvironmentFile=-/etc/default/x\nStateDirectory=one two\nWorkingDirectory=~\nStandardOutput=append:/var/log/x\n' +
        'ExecStop=/bin/kill /srv/../etc\n',
    ),
  ).toEqual([
    '/srv/a',
    '/srv/b',
    '/usr/bin/x',
    '/srv/c',
    '/srv/d',
    '/etc/default/x',
    '/var/lib/one',
    '/var/lib/two',
    '/var/log/x',
    '/bin/kill',
  ]);
});

test('instances', () => {
  expect(templateOf('app@blue.service')).toEqual({ template: 'app@.service', instance: 'blue' });
  expect(templateOf('app.service')).toBeUndefined();
  expect(paths('[Service]\nWorkingDirectory=/srv/%i/x\n', 'blue')).toEqual(['/srv/blue/x']);
});

test('any text ends', () => {
  fc.assert(fc.property(fc.string({ maxLength: 400 }), (text) => void paths(`[Service]\nExecStart=${text}`)));
});
