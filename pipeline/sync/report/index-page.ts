/** The page over all nights: which ones were whole, how bytes and times went, which image is where as of the newest. */
import { formatBytes, formatSeconds } from '../../../core/sizes.ts';
import type { SyncReport } from '../../../core/sync/types.ts';
import { type Html, html } from '../../report/html.ts';
import { numbersOf, verdictOf } from './numbers.ts';
import { frame, grid } from './page.ts';

/** The page's text; `reports` newest first. */
export function indexPage(reports: readonly SyncReport[]): string {
  const [newest] = reports;
  // A part of it would show the rest as missing.
  const whole = reports.find(({ partial }) => !partial);
  const title = newest?.sync ?? 'sync';
  return frame(
    title,
    html`<header><h1>${title}</h1><p class="lead">${reports.length} newest nights, the last one first.</p></header>
${sparks(reports)}${nights(reports)}${whole === undefined ? html`` : grid(whole)}`,
  );
}

/** A night's state in each target, in one word of colour and text. */
function nights(reports: readonly SyncReport[]): Html {
  const targets = [
    ...new Set(reports.flatMap((r) => [...r.outcomes.map((o) => o.action.target), ...Object.keys(r.calls)])),
  ].sort();
  return html`<section><h2>Nights</h2><div class="grid"><table><tr><th>run</th><th></th>${targets.map((t) => html`<th>${t}</th>`)}<th>sent</th><th>saved</th><th>time</th></tr>${reports.map(
    (report) => {
      const verdict = verdictOf(report);
      const numbers = numbersOf(report);
      return html`<tr><td><a href="runs/${report.run}/report.html">${report.startedAt.replace('T', ' ').slice(0, 16)}</a></td><td><b class="${verdict.kind}">${verdict.word}</b></td>${targets.map((target) => cell(report, target))}<td>${formatBytes(numbers.sentBytes)}</td><td>${formatBytes(numbers.savedBytes)}</td><td>${formatSeconds(report.seconds)}</td></tr>`;
    },
  )}</table></div></section>`;
}

function cell(report: SyncReport, target: string): Html {
  if (report.unreachable.some((place) => place.kind === 'target' && place.name === target))
    return html`<td class="cell bad">not reached</td>`;
  const own = report.outcomes.filter(({ action }) => action.target === target);
  const count = (...results: string[]) => own.filter(({ result }) => results.includes(result)).length;
  const parts = [
    [count('done', 'adopted'), 'done'],
    [count('skipped'), 'in place'],
    [count('failed'), 'failed'],
    [count('deferred', 'changed'), 'waiting'],
  ].flatMap(([n, word]) => (n === 0 ? [] : [`${n} ${word}`]));
  const kind = count('failed') > 0 ? 'bad' : count('deferred', 'changed') > 0 ? 'unknown' : 'good';
  return html`<td class="cell ${own.length === 0 ? '' : kind}">${parts.join(', ') || 'no images'}</td>`;
}

const WIDTH = 760;
const HEIGHT = 46;

/** Bytes sent and durations, oldest at the left. */
function sparks(reports: readonly SyncReport[]): Html {
  if (reports.length < 2) return html``;
  const nightsInOrder = [...reports].reverse();
  const sent = nightsInOrder.map((report) => numbersOf(report).sentBytes);
  const seconds = nightsInOrder.map((report) => report.seconds);
  return html`<section><h2>Over time</h2><svg class="spark" viewBox="0 0 ${WIDTH} 120" preserveAspectRatio="xMinYMid meet" role="img" aria-label="bytes sent and durations by night">${bars(sent, 0, 'data')}<text x="0" y="60">sent, most ${formatBytes(Math.max(...sent))}</text>${bars(seconds, 66, 'time')}<text x="0" y="119">time, most ${formatSeconds(Math.max(...seconds))}</text></svg></section>`;
}

function bars(values: readonly number[], top: number, kind: string): Html[] {
  const most = Math.max(1, ...values);
  const step = Math.min(24, WIDTH / values.length);
  return values.map((value, i) => {
    const height = value === 0 ? 1 : Math.max(2, Math.round((value / most) * (HEIGHT - 8)));
    const x = (i * step).toFixed(1);
    return html`<rect class="${kind}" x="${x}" y="${top + HEIGHT - 6 - height}" width="${(step * 0.8).toFixed(1)}" height="${height}"><title>${value}</title></rect>`;
  });
}
