import { expect, test } from 'vitest';
import { parseStatus } from '../../../families/debian/packages-status.ts';

const pkg = (name: string, status = 'install ok installed', more = '') =>
  `Package: ${name}\nStatus: ${status}\nVersion: 1.0-1\nArchitecture: amd64\n${more}\n`;
const DPKG = pkg('dpkg', 'install ok installed', 'Essential: yes\nPre-Depends: libc6 (>= 2.15)\n');

test('keeps what decides dependencies and nothing else', () => {
  const status = parseStatus(
    `${DPKG}\n${pkg('shop', 'hold ok installed', 'Depends: a (>= 1),\n b | c\nDescription: x\n evil\nConffiles:\n /etc/x 123\n')}\n${pkg('gone', 'deinstall ok config-files')}`,
  );
  expect(status.nativeArchitecture).toBe('amd64');
  expect([...status.installed.keys()]).toEqual(['dpkg:amd64', 'shop:amd64']);
  expect(status.installed.get('shop:amd64')?.held).toBe(true);
  expect(status.rendered).toContain('Depends: a (>= 1), b | c');
  expect(status.rendered).not.toMatch(/evil|Conffiles|gone/);
});

test.each(['install ok half-configured', 'install ok unpacked', 'install reinstreq half-installed'])(
  'refuses by name: %s',
  (state) => {
    expect(() => parseStatus(`${DPKG}\n${pkg('nginx', state)}`)).toThrow(/nginx \(/);
  },
);

test('pending triggers are no damage', () => {
  expect(parseStatus(`${DPKG}\n${pkg('man-db', 'install ok triggers-pending')}`).installed.size).toBe(2);
});

test.each([
  'Package: ../../x\nStatus: install ok installed\nVersion: 1\nArchitecture: amd64\n',
  'Package: x\nStatus: install ok installed\nVersion: $(id)\nArchitecture: amd64\n',
  pkg('x', 'install ok installed', 'Depends: a; rm -rf /\n'),
])('a damaged entry is refused', (text) => {
  expect(() => parseStatus(`${DPKG}\n${text}`)).toThrow(expect.objectContaining({ code: 'GUEST_BROKEN' }));
});

test('no dpkg, no guest', () => {
  expect(() => parseStatus('')).toThrow(expect.objectContaining({ code: 'GUEST_BROKEN' }));
});
