import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { dataCheck, dataStates } from '../../../stages/verify/data-check.ts';
import { ReportReader } from '../../../stages/verify/report.ts';
import { reporterScript, reporterUserData, safeUnits } from '../../../stages/verify/reporter.ts';

function line(name: string, text: string, nonce = 'abc', status: unknown = 0): string {
  return JSON.stringify({ n: nonce, k: name, s: status, d: Buffer.from(text).toString('base64') });
}

describe('report reader', () => {
  test('takes its own lines only', () => {
    const reader = new ReportReader('abc');
    reader.take('[    1.0] kernel noise');
    reader.take(line('hostname', 'forged', 'other'));
    reader.take(line('HOST', 'bad name'));
    reader.take(line('start', '6.1.0\n'));
    reader.take(line('hostname', 'shop01\n'));
    reader.take(line('end', ''));
    reader.take(line('hostname', 'after the end'));
    expect(reader.kernel).toBe('6.1.0');
    expect(reader.text('hostname')).toBe('shop01\n');
    expect(reader.ended).toBe(true);
  });

  test('hostile text is printable and bounded', () => {
    const reader = new ReportReader('abc');
    reader.take(line('failed', `evil\u001b[2J\u202e.service ${'x'.repeat(100_000)}`));
    for (let i = 0; i < 500; i++) reader.take(line(`s-${'a'.repeat(i % 20)}`, 'y'));
    const [first = ''] = reader.lines('failed');
    expect(first.startsWith('evil\\x1b[2J\\u202e.service')).toBe(true);
    expect(first.length).toBeLessThanOrEqual(500);
    expect(reader.text('failed').length).toBeLessThanOrEqual(32 * 1024);
    expect(Object.keys(reader.toJSON()).length).toBeLessThanOrEqual(60);
    expect(JSON.stringify(reader)).not.toContain('\u001b');
  });

  test('no line breaks it', () => {
    fc.assert(
      fc.property(
        fc.array(
          fc.oneof(
            fc.string(),
            fc.json(),
            fc.anything().map((v) => fc.stringify(v)),
          ),
        ),
        (lines) => {
          const reader = new ReportReader('abc');
          for (const l of lines) reader.take(l);
          expect(reader.ended).toBe(false);
        },
      ),
    );
  });
});

describe('data sets', () => {
  const set = { id: 'app-1', path: '/srv/app', mode: 'eager' as const, neededBy: [] };
  function reported(state: string) {
    const reader = new ReportReader('abc');
    reader.take(line('data', JSON.stringify({ version: 1, sets: [{ id: 'app-1', state }] })));
    return reader;
  }

  test('an eager one must be done, a lazy one may rest', () => {
    expect(dataCheck(reported('done'), [set]).ok).toBe(true);
    expect(dataCheck(reported('lazy'), [set])).toMatchObject({ ok: false, detail: '/srv/app: lazy' });
    expect(dataCheck(reported('lazy'), [{ ...set, mode: 'lazy' }]).ok).toBe(true);
    expect(dataCheck(reported('failed'), [{ ...set, mode: 'lazy' }]).ok).toBe(false);
    expect(dataCheck(new ReportReader('abc'), [set]).detail).toBe('/srv/app: not reported');
  });

  test('states survive odd documents', () => {
    expect(dataStates(null).size).toBe(0);
    expect(dataStates({ sets: [{ id: 'a', state: 'done' }, { id: 3 }, 'x'] })).toEqual(
      new Map([['a', 'done']]),
    );
  });
});

describe('reporter', () => {
  const options = { nonce: 'n0', limitSeconds: 60, waitForData: true, units: [], pages: [] };

  test('unit names that could be shell text are left out', () => {
    expect(
      safeUnits(['nginx.service', "a';reboot;'.service", '-x', 'foo\\x2dbar.service', 'a b.service']),
    ).toEqual(['nginx.service', 'foo\\x2dbar.service']);
    const script = reporterScript({
      ...options,
      units: ["a'$(reboot).service"],
      pages: ["/'$(x)", '/status'],
    });
    expect(script).not.toContain('reboot');
    expect(script).toContain("PAGES='/ /status'");
  });

  test('user data has an early and a late start of the same script', () => {
    const data = reporterUserData(options);
    expect(data).toContain('text/cloud-config');
    expect(data).toContain('text/x-shellscript');
    const encoded = /printf %s '([A-Za-z0-9+/=]+)'/.exec(data)?.[1] ?? '';
    expect(Buffer.from(encoded, 'base64').toString()).toBe(reporterScript(options));
  });
});
