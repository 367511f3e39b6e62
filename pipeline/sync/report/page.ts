/** The page of one run: self-contained, no script, nothing from outside. */
import { formatBytes, formatSeconds } from '../../../core/sizes.ts';
import type { SyncOutcome, SyncReport } from '../../../core/sync/types.ts';
import { compareVersions } from '../../../core/sync/versions.ts';
import { type Html, html } from '../../report/html.ts';
import { STYLE } from '../../report/style.ts';
import { numbersOf, verdictOf } from './numbers.ts';
import { SYNC_STYLE } from './style.ts';

/** The frame all pages of a sync have. */
export function frame(title: string, body: Html): string {
  // The styles are constants of ours; everything else went through the template.
  const style: Html = { html: `<style>${STYLE}${SYNC_STYLE}</style>` };
  return html`<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1"><title>${title}</title>${style}</head><body>${body}</body></html>`
    .html;
}

const KIND: Readonly<Record<SyncOutcome['result'], 'good' | 'bad' | 'unknown'>> = {
  done: 'good',
  adopted: 'good',
  skipped: 'good',
  failed: 'bad',
  deferred: 'unknown',
  changed: 'unknown',
};

/** The page's text. */
export function runPage(report: SyncReport): string {
  const verdict = verdictOf(report);
  const body = html`<header><h1>${report.sync}</h1>
<p class="lead">Run ${report.run} on ${report.host}, ${report.startedAt} to ${report.endedAt} (${formatSeconds(report.seconds)}). <a href="../../index.html">All nights</a></p>
<p class="verdict"><b class="${verdict.kind}">${verdict.word}</b> <span>exit status ${report.exitStatus}</span></p></header>
${tiles(report)}${faults(report)}${grid(report)}${bytes(report)}${dataSets(report)}${coming(report)}${details(report)}${notes(report)}`;
  return frame(`${report.sync} ${report.run}`, body);
}

function tiles(report: SyncReport): Html {
  const numbers = numbersOf(report);
  const { done, adopted, skipped, failed, deferred, changed } = numbers.results;
  const all: [string, string][] = [
    [String(done + adopted), 'done'],
    [String(skipped), 'in place already'],
    [String(failed), 'failed'],
    [String(deferred + changed), 'wait for the next run'],
    [formatBytes(numbers.sentBytes), `sent, for ${formatBytes(numbers.changedBytes)} of changed blocks`],
    [formatBytes(numbers.savedBytes), 'had not to be sent'],
    [formatBytes(numbers.receivedBytes), 'fetched from sources'],
    [formatBytes(report.freedBytes), 'freed'],
  ];
  return html`<div class="tiles">${all.map(([value, what]) => html`<div><b>${value}</b><span>${what}</span></div>`)}</div>`;
}

/** First, because that is what somebody opens the page for. */
function faults(report: SyncReport): Html {
  const { failures } = numbersOf(report);
  const sets = report.dataSets.filter(({ result }) => result === 'failed');
  if (failures.length + sets.length + report.unreachable.length + report.leftOut.length === 0) return html``;
  return html`<section><h2>What failed</h2>${report.unreachable.map(
    (place) =>
      html`<div class="fault"><p><b>${place.kind} ${place.name}</b> could not be used; its images were left alone</p><p>${place.message} <code>${place.code}</code></p>${hint(place.hint)}</div>`,
  )}${report.leftOut.map(
    (one) =>
      html`<div class="fault"><p><b>${one.what}</b> of ${one.source} is left out; what targets have of it stays</p><p>${one.message} <code>${one.code}</code></p>${hint(one.hint)}</div>`,
  )}${failures.map(
    (outcome) =>
      html`<div class="fault"><p><b>${outcome.action.verb} ${outcome.action.series} ${outcome.action.version}</b> in ${outcome.action.target}, after ${outcome.attempts} ${outcome.attempts === 1 ? 'attempt' : 'attempts'}</p><p>${outcome.message} <code>${outcome.code}</code></p>${hint(outcome.hint)}</div>`,
  )}${sets.map(
    (set) =>
      html`<div class="fault"><p><b>data set ${set.id}</b> to ${set.target}</p><p>${set.message} <code>${set.code}</code></p></div>`,
  )}</section>`;
}

function hint(text: string | undefined): Html {
  return text === undefined ? html`` : html`<p>What helps: ${text}</p>`;
}

/** Images down, targets across. */
export function grid(report: SyncReport): Html {
  const outcomes = report.outcomes.filter(({ action }) => action.verb !== 'hide' && action.verb !== 'delete');
  if (outcomes.length === 0) return html``;
  const targets = [...new Set(outcomes.map(({ action }) => action.target))].sort();
  const images = new Map<string, Map<string, SyncOutcome>>();
  for (const outcome of outcomes) {
    const key = `${outcome.action.series} ${outcome.action.version}`;
    const row = images.get(key) ?? new Map<string, SyncOutcome>();
    images.set(key, row.set(outcome.action.target, outcome));
  }
  const rows = [...images].sort(([a], [b]) => compareVersions(a, b));
  return html`<section><h2>Images and targets</h2><div class="grid"><table><tr><th>image</th>${targets.map((t) => html`<th>${t}</th>`)}</tr>${rows.map(
    ([image, row]) => html`<tr><td>${image}</td>${targets.map((target) => cell(row.get(target)))}</tr>`,
  )}</table></div></section>`;
}

function cell(outcome: SyncOutcome | undefined): Html {
  if (outcome === undefined) return html`<td></td>`;
  const { action, result, sentBytes, message, proof, ref } = outcome;
  const word =
    result === 'skipped'
      ? 'in place'
      : result === 'adopted'
        ? 'found there'
        : result === 'done'
          ? `${action.verb}d`
          : result;
  const title = [message, proof, ref].filter((t) => t !== undefined && t !== '').join(' · ');
  return html`<td class="cell ${KIND[result]}" title="${title}">${word}${sentBytes > 0 ? html` <small>${formatBytes(sentBytes)}</small>` : html``}</td>`;
}

/** Sent against what the images hold, per target. */
function bytes(report: SyncReport): Html {
  const targets = [...new Set(report.outcomes.map(({ action }) => action.target))].sort();
  const rows = targets.map((target) => {
    const own = report.outcomes.filter(({ action }) => action.target === target);
    const sum = (of: (o: SyncOutcome) => number) => own.reduce((total, o) => total + of(o), 0);
    return {
      target,
      sent: sum((o) => o.sentBytes),
      data: sum((o) => o.dataBytes),
      seconds: sum((o) => o.seconds),
    };
  });
  const most = Math.max(1, ...rows.map((row) => Math.max(row.sent, row.data)));
  if (most === 1) return html``;
  const width = (value: number) => Math.max(value > 0 ? 1 : 0, Math.round((value / most) * 380));
  return html`<section><h2>Bytes</h2><svg viewBox="0 0 760 ${rows.length * 44}" height="${rows.length * 44}" role="img" aria-label="bytes by target">${rows.map(
    ({ target, sent, data }, i) =>
      html`<text class="label" x="150" y="${i * 44 + 24}">${target}</text><rect class="before" x="160" y="${i * 44 + 4}" width="${width(data)}" height="14"/><text x="${168 + width(data)}" y="${i * 44 + 16}">${formatBytes(data)} in the images</text><rect class="after" x="160" y="${i * 44 + 22}" width="${width(sent)}" height="14"/><text x="${168 + width(sent)}" y="${i * 44 + 34}">${formatBytes(sent)} sent</text>`,
  )}</svg></section>`;
}

function dataSets({ dataSets: sets }: SyncReport): Html {
  if (sets.length === 0) return html``;
  return html`<section><h2>Data sets</h2><table><tr><th>data set</th><th>target</th><th></th><th>sent</th><th>there already</th></tr>${sets.map(
    (set) =>
      html`<tr><td><code>${set.id}</code></td><td>${set.target}</td><td><b class="${set.result === 'failed' ? 'bad' : 'good'}">${set.result === 'skipped' ? 'in place' : set.result}</b> ${set.message}</td><td>${formatBytes(set.sentBytes)}</td><td>${formatBytes(set.keptBytes)}</td></tr>`,
  )}</table></section>`;
}

function coming({ coming: all }: SyncReport): Html {
  if (all.length === 0) return html``;
  return html`<section><h2>What will be retired</h2><table><tr><th>image</th><th>target</th><th>what</th><th>not before</th></tr>${all.map(
    (one) =>
      html`<tr><td>${one.series} ${one.version} <code>${one.targetRef}</code></td><td>${one.target}</td><td>${one.what}</td><td>${one.notBefore}</td></tr>`,
  )}</table></section>`;
}

/** Everything that was not left as it is. */
function details(report: SyncReport): Html {
  const rows = report.outcomes.filter(({ result }) => result !== 'skipped');
  const calls = Object.entries(report.calls);
  return html`<section><h2>What was done</h2>${
    rows.length === 0
      ? html`<p>Nothing: every image was in place.</p>`
      : html`<table><tr><th>what</th><th>image</th><th>target</th><th></th><th>sent</th><th>changed</th><th>time</th><th>content</th></tr>${rows.map(
          (o) =>
            html`<tr><td class="word">${o.action.verb}</td><td>${o.action.series} ${o.action.version}<br><code>${o.ref}</code></td><td>${o.action.target}</td><td><b class="${KIND[o.result]}">${o.result}</b> ${o.message ?? o.action.why}</td><td>${formatBytes(o.sentBytes)} ${o.method}</td><td>${formatBytes(o.changedBytes)}</td><td>${formatSeconds(o.seconds)}</td><td>${o.content === undefined ? html`` : html`<b class="${o.content === 'ok' ? 'good' : 'unknown'}">${o.content === 'ok' ? 'verified' : o.content}</b> ${o.proof}`}</td></tr>`,
        )}</table>`
  }${calls.length === 0 ? html`` : html`<p>Requests: ${calls.map(([target, count]) => `${target} ${count}`).join(', ')}.</p>`}</section>`;
}

function notes({ notes: all }: SyncReport): Html {
  if (all.length === 0) return html``;
  return html`<section><h2>Needs a look</h2><ul>${all.map((note) => html`<li>${note}</li>`)}</ul></section>`;
}
