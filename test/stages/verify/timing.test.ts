import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import * as path from 'node:path';
import { expect, test } from 'vitest';
import { ReportReader } from '../../../stages/verify/report.ts';
import { reporterScript } from '../../../stages/verify/reporter.ts';
import { lazyAccess, timeToService } from '../../../stages/verify/timing.ts';

function report(sections: Record<string, string>): ReportReader {
  const reader = new ReportReader('n');
  for (const [k, text] of Object.entries(sections))
    reader.take(JSON.stringify({ n: 'n', k, s: 0, d: Buffer.from(text).toString('base64') }));
  return reader;
}

test('times count from the kernel, earliest first, with the mode of the data set', () => {
  const reader = report({
    sets:
      'shop-a lazy 31000000 web.service\nshop-b eager 9000000 db.service never.service\nshop-c lazy 0 \n' +
      'shop-d lazy 12345678 \n../evil lazy 1 x.service\nshop-e odd 1 x.service\n',
    units: [
      'Id=web.service\nActiveEnterTimestampMonotonic=45670000',
      'Id=db.service\nActiveEnterTimestampMonotonic=20004000',
      'Id=never.service\nActiveEnterTimestampMonotonic=0',
      'Id=x.service\nActiveEnterTimestampMonotonic=1',
    ].join('\n\n'),
  });
  expect(timeToService(reader)).toEqual([
    { unit: 'db.service', seconds: 20, mode: 'eager', dataSet: 'shop-b' },
    { unit: 'web.service', seconds: 45.67, mode: 'lazy', dataSet: 'shop-a' },
  ]);
  expect(lazyAccess(reader)).toEqual([
    { id: 'shop-d', seconds: 12.35 },
    { id: 'shop-a', seconds: 31 },
  ]);
});

test('a report without these sections gives nothing', () => {
  expect([timeToService(report({})), lazyAccess(report({}))]).toEqual([[], []]);
});

test('the script of the reporter reads what the client has', () => {
  const dir = mkdtempSync(path.join(tmpdir(), 'sets-'));
  try {
    mkdirSync(path.join(dir, 'data.d'));
    writeFileSync(path.join(dir, 'data.d/a.conf'), "ID='a'\nMODE=lazy\nNEEDED_BY='x.service y.service'\n");
    const script = reporterScript({ nonce: 'n', limitSeconds: 1, waitForData: false, units: [], pages: [] });
    const [body = ''] = /^sets\(\) \{[\s\S]*?^\}/m.exec(script) ?? [];
    const ours = body.replace('/usr/lib/port-image/data.d', `${dir}/data.d`);
    const text = execFileSync('sh', ['-c', `systemctl() { echo 4200000; }\n${ours}\nsets`], {
      encoding: 'utf8',
    });
    expect(text).toBe('a lazy 4200000 x.service y.service\n');
  } finally {
    rmSync(dir, { recursive: true });
  }
});
