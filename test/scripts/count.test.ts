import { expect, test } from 'vitest';
import { countLine, countRun } from '../../scripts/lib/count.ts';

const report = (fields: object) =>
  JSON.stringify({
    numPassedTests: 0,
    numFailedTests: 0,
    numPendingTests: 0,
    numTodoTests: 0,
    testResults: [],
    ...fields,
  });

test('sums the runs into one line', () => {
  const one = countRun(report({ numPassedTests: 3, numPendingTests: 1, numTodoTests: 1 }), 0);
  const two = countRun(report({ numPassedTests: 4 }), 0);
  expect(countLine([one, two])).toBe('7 passed, 0 failed, 2 skipped');
  expect(countLine([two])).toBe('4 passed, 0 failed');
});

test('a file that broke before its first test is a failure', () => {
  const file = { status: 'failed', assertionResults: [] };
  expect(countRun(report({ numPassedTests: 2, testResults: [file] }), 1)).toEqual({
    passed: 2,
    failed: 1,
    skipped: 0,
  });
});

test('a failed test is counted once, not again for its file', () => {
  const file = { status: 'failed', assertionResults: [{ status: 'passed' }, { status: 'failed' }] };
  expect(countRun(report({ numPassedTests: 1, numFailedTests: 1, testResults: [file] }), 1).failed).toBe(1);
});

test.each([
  ['no report', undefined, 0, 1],
  ['no report, status', undefined, 137, 1],
  ['cut report', '{"numPass', 0, 1],
  ['an error outside any test', report({ numPassedTests: 5 }), 1, 1],
])('%s is a failure', (_name, text, status, failed) => {
  expect(countRun(text, status).failed).toBe(failed);
});

test('no tests at all is no failure of the run itself', () => {
  expect(countRun(report({}), 0)).toEqual({ passed: 0, failed: 0, skipped: 0 });
});
