import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { hasTimeSource, withClockFolder, withoutForeignClocks, withPool } from '../../tools/chrony.ts';

describe('chrony.conf', () => {
  test('what only one platform has is commented out, the rest stays to the byte', () => {
    const text = `# own
server 169.254.169.123 prefer iburst minpoll 4 maxpoll 4
pool 2.debian.pool.ntp.org iburst
refclock PHC /dev/ptp_hyperv poll 3 dpoll -2 offset 0 stratum 2
  Server metadata.google.internal iburst
refclock PPS /dev/pps0 lock NMEA
#refclock PHC /dev/ptp0
makestep 1 3
`;
    const after = withoutForeignClocks(text);
    const lines = after.split('\n');
    expect(lines.filter((l) => l.startsWith('# port-image:'))).toHaveLength(3);
    expect(lines.filter((l) => !l.startsWith('# port-image:'))).toEqual(
      text.split('\n').filter((l) => !/169|^refclock PHC|metadata/.test(l)),
    );
    expect(withoutForeignClocks(after)).toBe(after);
    expect(hasTimeSource(after)).toBe(true);
  });

  test('the folder is read last and once', () => {
    const once = withClockFolder('confdir /etc/chrony/conf.d\nmakestep 1 3\n');
    expect(once).toMatch(/makestep 1 3\n\n# Added by .*\nconfdir \/etc\/chrony\/port-image\.d\n$/);
    expect(withClockFolder(once)).toBe(once);
    expect(withClockFolder('')).toMatch(/^# Added/);
  });

  test('any file: edits are idempotent and a pool is a source', () => {
    const line = fc.constantFrom(
      'server 169.254.169.123',
      'refclock PHC /dev/ptp0',
      'pool a.example iburst',
      '',
      '# x',
      'driftfile /x',
    );
    fc.assert(
      fc.property(fc.array(line), (lines) => {
        const clean = withoutForeignClocks(lines.join('\n'));
        expect(withoutForeignClocks(clean)).toBe(clean);
        expect(hasTimeSource(clean)).toBe(lines.includes('pool a.example iburst'));
        expect(hasTimeSource(withPool(clean, 'b.example'))).toBe(true);
        const folder = withClockFolder(clean);
        expect(withClockFolder(folder)).toBe(folder);
        expect(folder.startsWith(clean.trimEnd())).toBe(true);
      }),
    );
  });
});
