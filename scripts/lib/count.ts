/** Sums the JSON results of several vitest runs into the one line `scripts/test` ends with. */
import { readFileSync } from 'node:fs';

/** What is counted. */
export interface Count {
  passed: number;
  failed: number;
  skipped: number;
}

/** The fields of vitest's JSON report that matter here. */
interface Report {
  numPassedTests: number;
  numFailedTests: number;
  numPendingTests: number;
  numTodoTests: number;
  testResults: { status: string; assertionResults: { status: string }[] }[];
}

/**
 * Counts one run. `report` is the text of its JSON report, undefined when it left none.
 * A file that broke before its first test counts as one failure, and so does a run that
 * ended badly without naming a failed test (a crash, an error outside any test).
 */
export function countRun(report: string | undefined, exitStatus: number): Count {
  const count: Count = { passed: 0, failed: 0, skipped: 0 };
  let parsed: Report | undefined;
  try {
    if (report !== undefined) parsed = JSON.parse(report) as Report;
  } catch {
    // Cut off in the middle: the run crashed.
  }
  if (parsed === undefined) return { ...count, failed: 1 };
  count.passed = parsed.numPassedTests;
  count.failed = parsed.numFailedTests;
  count.skipped = parsed.numPendingTests + parsed.numTodoTests;
  for (const file of parsed.testResults) {
    const named = file.assertionResults.some((a) => a.status === 'failed');
    if (file.status === 'failed' && !named) count.failed += 1;
  }
  if (exitStatus !== 0 && count.failed === 0) count.failed = 1;
  return count;
}

/** The line: `3 passed, 0 failed` and `, 1 skipped` when something was. */
export function countLine(counts: readonly Count[]): string {
  const sum = (pick: (c: Count) => number) => counts.reduce((total, c) => total + pick(c), 0);
  const skipped = sum((c) => c.skipped);
  const line = `${sum((c) => c.passed)} passed, ${sum((c) => c.failed)} failed`;
  return skipped > 0 ? `${line}, ${skipped} skipped` : line;
}

function readIfThere(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return undefined;
  }
}

// node scripts/lib/count.ts [REPORT STATUS]… [--failed N]: prints the line, status 1 when something failed or nothing ran.
if (import.meta.main) {
  const counts: Count[] = [];
  const args = process.argv.slice(2);
  for (let at = 0; at + 1 < args.length; at += 2) {
    const name = args[at] ?? '';
    const number = Number(args[at + 1]);
    counts.push(
      name === '--failed'
        ? { passed: 0, failed: number, skipped: 0 }
        : countRun(readIfThere(name), Number.isInteger(number) ? number : 1),
    );
  }
  if (counts.every((c) => c.passed + c.failed === 0)) process.exitCode = 1;
  if (counts.some((c) => c.failed > 0)) process.exitCode = 1;
  process.stdout.write(`${countLine(counts)}\n`);
}
