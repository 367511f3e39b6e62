/** Progress of a command without stages: a live line on a terminal, a line per step elsewhere. Always on stderr. */
import type { Progress } from '../core/stage.ts';
import { printable } from '../core/text.ts';
import { progressText, say } from './output.ts';

const REDRAW_MS = 150;

/** Runs a task that reports its progress; the line is gone when it ends, however it ends. */
export async function withProgress<T>(
  task: (report: (progress: Progress) => void) => Promise<T>,
): Promise<T> {
  const tty = process.stderr.isTTY === true;
  /** When each thing was first told of, and how far it was then: several may be under way at once. */
  const begun = new Map<string, { atMs: number; bytes: number }>();
  let drawn = 0;
  let last = '';
  try {
    return await task((progress) => {
      const now = performance.now();
      if (!tty) {
        const { text = '' } = progress;
        if (text !== last && text !== '') say(printable(text));
        last = text;
        return;
      }
      const known = begun.get(progress.text ?? '') ?? { atMs: now, bytes: progress.doneBytes ?? 0 };
      begun.set(progress.text ?? '', known);
      if (now - drawn < REDRAW_MS) return;
      drawn = now;
      const text = printable(progressText(progress, (now - known.atMs) / 1000, known.bytes));
      process.stderr.write(`\r\u001b[K${text.slice(0, (process.stderr.columns ?? 100) - 1)}`);
    });
  } finally {
    if (tty && drawn > 0) process.stderr.write('\r\u001b[K');
  }
}
