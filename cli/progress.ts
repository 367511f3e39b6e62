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
  const started = performance.now();
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
      if (now - drawn < REDRAW_MS) return;
      drawn = now;
      const text = printable(progressText(progress, (now - started) / 1000));
      process.stderr.write(`\r\u001b[K${text.slice(0, (process.stderr.columns ?? 100) - 1)}`);
    });
  } finally {
    if (tty && drawn > 0) process.stderr.write('\r\u001b[K');
  }
}
