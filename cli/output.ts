/** How the program talks: results to stdout, progress and messages to stderr, everything from outside escaped. */
import { asPortError, type PortError } from '../core/errors.ts';
import { formatBytes, formatSeconds } from '../core/sizes.ts';
import type { Progress } from '../core/stage.ts';
import { printable } from '../core/text.ts';
import type { Listener, RunEvent } from '../pipeline/events.ts';

/** One line to stdout. */
export function out(line: string): void {
  process.stdout.write(`${line}\n`);
}

/** One JSON value to stdout. */
export function outJson(value: unknown): void {
  process.stdout.write(`${JSON.stringify(value, null, 2)}\n`);
}

/** One line to stderr. */
export function say(line: string): void {
  process.stderr.write(`${line}\n`);
}

/** Tells an error in one line (and a hint in a second), and returns the exit status. No stack traces for users. */
export function report(error: unknown, signalName?: NodeJS.Signals): number {
  const known: PortError = asPortError(error);
  say(`port-image: ${printable(known.message)} [${known.code}]`);
  if (known.hint !== undefined) say(`  hint: ${printable(known.hint)}`);
  if (known.code === 'BUG' && process.env.PORT_IMAGE_DEBUG !== undefined) say(String(known.stack));
  return known.code === 'INTERRUPTED' && signalName === 'SIGTERM' ? 143 : known.exitStatus;
}

const tty = process.stderr.isTTY === true;
const REDRAW_MS = 150;

/** Bytes done, total, rate and time left, as far as known; `fromBytes` were done when the time began to run. */
export function progressText(progress: Progress, elapsedSeconds: number, fromBytes = 0): string {
  const parts = [progress.text ?? ''];
  const { doneBytes, totalBytes } = progress;
  if (doneBytes !== undefined) {
    parts.push(
      totalBytes === undefined
        ? formatBytes(doneBytes)
        : `${formatBytes(doneBytes)} of ${formatBytes(totalBytes)}`,
    );
    if (elapsedSeconds > 0.5 && doneBytes > fromBytes) {
      const rate = (doneBytes - fromBytes) / elapsedSeconds;
      parts.push(`${formatBytes(rate)}/s`);
      if (totalBytes !== undefined && totalBytes > doneBytes)
        parts.push(`${formatSeconds((totalBytes - doneBytes) / rate)} left`);
    }
  }
  return parts.filter((p) => p !== '').join('  ');
}

/** Draws the events of a run on stderr: a live line on a terminal, plain lines elsewhere. */
export function drawRun(options: { quiet: boolean; showPlan?: boolean }): Listener & { end(): void } {
  let stage = '';
  let label = '';
  let started = 0;
  let progressStarted = 0;
  let drawn = 0;
  let last: Progress = {};
  const clear = (): void => {
    if (tty) process.stderr.write('\r\u001b[K');
  };
  const draw = (): void => {
    if (!tty || options.quiet || stage === '') return;
    const width = process.stderr.columns ?? 100;
    const seconds = (performance.now() - started) / 1000;
    const text = `${label} ${stage}  ${formatSeconds(seconds)}  ${printable(progressText(last, (performance.now() - progressStarted) / 1000))}`;
    process.stderr.write(`\r\u001b[K${text.slice(0, width - 1)}`);
    drawn = performance.now();
  };
  const timer = setInterval(draw, 1000);
  timer.unref();
  const listener = (event: RunEvent): void => {
    if (options.quiet && event.event !== 'warning') return;
    switch (event.event) {
      case 'stage-started':
        stage = event.stage;
        label = `[${event.index}/${event.total}]`;
        started = performance.now();
        progressStarted = started;
        last = {};
        if (!tty) say(`${label} ${stage} …`);
        else draw();
        break;
      case 'progress':
        if (event.progress.text !== last.text) {
          progressStarted = performance.now();
          if (!tty && event.progress.text !== undefined) say(`      ${printable(event.progress.text)}`);
        }
        last = event.progress;
        if (performance.now() - drawn > REDRAW_MS) draw();
        break;
      case 'stage-done':
        clear();
        say(`${label} ${event.stage} ${tty ? '' : 'done '}${formatSeconds(event.seconds)}`);
        stage = '';
        break;
      case 'stage-skipped':
        say(`      ${event.stage}: done before`);
        break;
      case 'warning':
        clear();
        say(`warning: ${printable(event.text)}`);
        break;
      case 'note':
        clear();
        say(`note: ${printable(event.text)}`);
        break;
      case 'change':
        break;
    }
  };
  return Object.assign(listener, {
    end() {
      clearInterval(timer);
      clear();
    },
  });
}
