import { expect, test } from 'vitest';
import { serverBlocks, staticIndex } from '../../../stages/inspect/pages.ts';

const site = (body: string): string => `# server { in a comment }\nserver {\n${body}\n}\n`;

test.each([
  ['plain', 'listen 80 default_server;\nroot /srv/www;\nindex index.html;', '/srv/www/index.html'],
  [
    'other locations',
    'listen 80;\nroot "/srv/www/";\nlocation /api { proxy_pass http://x; }',
    '/srv/www/index.html',
  ],
  ['try_files', 'root /srv/www;\nlocation / { try_files $uri $uri/ =404; }', '/srv/www/index.html'],
  ['address', 'listen 0.0.0.0:80;\nroot /srv/www;', '/srv/www/index.html'],
])('%s: the front page is known', (_, body, file) => {
  expect(serverBlocks(site(body)).map(staticIndex)).toEqual([file]);
});

test.each([
  ['proxied', 'listen 80;\nroot /srv/www;\nlocation / { proxy_pass http://x; }'],
  ['redirected', 'listen 80;\nreturn 301 https://$host$request_uri;'],
  ['TLS only', 'listen 443 ssl;\nroot /srv/www;'],
  ['PHP', 'root /srv/www;\nindex index.php index.html;'],
  ['variable', 'root /srv/$host;'],
  ['password', 'root /srv/www;\nauth_basic "x";'],
])('%s: nothing is promised', (_, body) => {
  expect(serverBlocks(site(body)).map(staticIndex)).toEqual([undefined]);
});

test('unbalanced text ends', () => {
  expect(serverBlocks('server { location / { root /x;')).toEqual([]);
});

test('a configuration of nothing but openings is read in no time', () => {
  const before = process.cpuUsage();
  expect(serverBlocks('server { '.repeat(25_000))).toEqual([]);
  expect(serverBlocks(`${'server { '.repeat(12_000)}${'}'.repeat(12_000)}`).length).toBe(1);
  expect(staticIndex('location '.repeat(25_000))).toBeUndefined();
  // Not the clock: others may have the processor.
  expect(process.cpuUsage(before).user).toBeLessThan(2_000_000);
  expect(serverBlocks('server{a;}server { b; } server {')).toEqual(['a;', ' b; ']);
});
