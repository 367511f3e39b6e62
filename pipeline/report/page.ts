/** `report.html`: one self-contained page without scripts, made from the summary, the facts and the changes. */

import type { Facts } from '../../core/facts.ts';
import { formatBytes, formatSeconds, KIB } from '../../core/sizes.ts';
import type { Change } from '../../core/stage.ts';
import { PROGRAM_VERSION } from '../../core/version.ts';
import type { Summary } from '../summary.ts';
import { type Html, html } from './html.ts';
import { STYLE } from './style.ts';

/** What the page shows. Screenshots are PNG bytes by platform, serial tails are text. */
export interface ReportInput {
  summary: Summary;
  facts: Facts | undefined;
  changes: readonly Change[];
  screenshots: ReadonlyMap<string, Buffer>;
  serialTails: ReadonlyMap<string, string>;
}

/** Renders the page. */
export function renderReport(input: ReportInput): string {
  const { summary } = input;
  const title = `port-image: ${summary.guest?.hostname ?? summary.source.path}`;
  const page = html`<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>${title}</title><style>${{ html: STYLE }}</style></head><body>
<header><h1>${summary.guest?.hostname ?? 'Conversion'}</h1>
<p class="lead">${lead(summary)}</p>${verdict(summary)}</header>
${captured(summary)}${disks(summary)}${sizes(input)}${stageTimes(summary)}${outputs(input)}${cloudImages(summary)}${dataSets(summary)}${warnings(summary)}${found(input.facts)}${changes(input.changes)}
<footer>port-image ${PROGRAM_VERSION} · job ${summary.job}</footer></body></html>
`;
  return page.html;
}

function lead(summary: Summary): string {
  const guest =
    summary.guest === null
      ? 'a system'
      : `${summary.guest.distro} ${summary.guest.version} (${summary.guest.firmware})`;
  return `${guest} from ${summary.source.path}, for ${summary.outputs.map((o) => o.platform).join(', ') || 'no platform'}`;
}

function verdict(summary: Summary): Html {
  const checks = summary.outputs.flatMap((o) => o.verification);
  const failed = checks.filter((c) => !c.ok).length;
  const all = summary.outputs.length > 0 && summary.outputs.every((o) => o.verified);
  const boot =
    checks.length === 0
      ? html`<b class="unknown">not booted</b>`
      : all
        ? html`<b class="good">verified: ${checks.length} checks passed</b>`
        : html`<b class="bad">${failed} checks failed</b>`;
  const { sha256Unchanged } = summary.source;
  const consistency = (summary.capture?.passes.length ?? 0) > 0 ? summary.capture?.consistency : undefined;
  const source =
    consistency !== undefined
      ? html`<b class="${consistency === 'live' ? 'bad' : 'good'}">copied: ${consistency}</b>`
      : sha256Unchanged === true
        ? html`<b class="good">source unchanged</b>`
        : sha256Unchanged === null
          ? html`<b class="unknown">source not checked to the end</b>`
          : html`<b class="bad">source changed</b>`;
  return html`<p class="verdict">${boot} ${source} <b class="plain">${summary.changes} changes</b> <b class="plain">${summary.applianceLaunches} appliance launch${summary.applianceLaunches === 1 ? '' : 'es'}</b></p>`;
}

interface Bar {
  label: string;
  value: number;
  text: string;
  kind: string;
}

function bars(rows: readonly Bar[]): Html {
  const most = Math.max(1, ...rows.map((r) => r.value));
  const height = 26;
  return html`<svg viewBox="0 0 760 ${rows.length * height}" role="img" aria-label="bar chart">${rows.map(
    (row, i) => {
      const width = Math.max(2, Math.round((row.value / most) * 420));
      const y = i * height;
      return html`<text class="label" x="150" y="${y + 17}">${row.label}</text><rect class="${row.kind}" x="160" y="${y + 4}" width="${width}" height="18" rx="2"/><text x="${168 + width}" y="${y + 17}">${row.text}</text>`;
    },
  )}</svg>`;
}

/** Passes over a source that was copied: what each cost, and how long the source stood still. */
function captured({ capture }: Summary): Html {
  if (capture === null || capture.passes.length === 0) return html``;
  const { passes, consistency } = capture;
  const downMs = Math.max(0, ...passes.map((p) => p.frozenMs ?? 0));
  const rows = passes.map((p) => ({
    label: `pass ${p.number} ${p.disk}`,
    value: p.sentBytes,
    text: `${formatBytes(p.sentBytes)} of ${formatBytes(p.allocatedBytes)} in use`,
    kind: 'data',
  }));
  return html`<section><h2>Capture <b class="${consistency === 'live' ? 'bad' : 'good'}">${consistency}</b></h2>
<p>${downMs === 0 ? 'The source never stood still.' : `The source stood still for ${formatSeconds(downMs / 1000)}.`}</p>${bars(rows)}
<table><tr><th>pass</th><th>disk</th><th>began</th><th>time</th><th>in use</th><th>new</th><th>on the wire</th><th>stood still</th><th>cut off</th><th>copy</th></tr>${passes.map(
    (p) =>
      html`<tr><td>${p.number}${p.final ? ' (last)' : ''}</td><td>${p.disk}</td><td>${p.startedAt}</td><td>${formatSeconds(p.seconds)}</td><td>${formatBytes(p.allocatedBytes)}</td><td>${formatBytes(p.sentBytes)}</td><td>${formatBytes(p.wireBytes)}</td><td>${p.frozenMs === undefined ? '' : formatSeconds(p.frozenMs / 1000)}</td><td>${p.reconnects}</td><td>${p.consistency}</td></tr>`,
  )}</table></section>`;
}

/** Only where there is something to tell: several disks, or places that could not be read. */
function disks({ disks: all, badRanges }: Summary): Html {
  if (all.length < 2 && badRanges.length === 0) return html``;
  return html`<section><h2>Disks</h2><table><tr><th>disk</th><th>size</th><th>used as</th><th>unreadable places</th></tr>${all.map(
    (d) =>
      html`<tr><td>${d.id} <code>${d.path}</code></td><td>${formatBytes(d.virtualBytes)}</td><td>${d.use ?? ''}${d.boots ? ', starts the system' : ''}</td><td>${d.badRanges}</td></tr>`,
  )}</table>${badRanges.length === 0 ? html`` : html`<table><tr><th>disk</th><th>unreadable from</th><th>bytes</th><th>hit</th></tr>${badRanges.map((r) => html`<tr><td>${all[r.disk]?.id ?? ''}</td><td>${r.startBytes}</td><td>${r.lengthBytes}</td><td>${r.hit === 'files' ? [...r.files, ...(r.moreFiles > 0 ? [`${r.moreFiles} more`] : [])].join(', ') : r.hit}</td></tr>`)}</table>`}</section>`;
}

function sizes({ summary, facts }: ReportInput): Html {
  const used = facts?.filesystems.reduce((sum, f) => sum + (f.usedBytes ?? 0), 0) ?? 0;
  const stripped = summary.dataSets.reduce((sum, d) => sum + d.bytes, 0);
  const stored = summary.dataSets.reduce((sum, d) => sum + d.storedBytes, 0);
  const rows: Bar[] = [
    {
      label: 'disk',
      value: summary.source.virtualBytes,
      text: formatBytes(summary.source.virtualBytes),
      kind: 'before',
    },
    { label: 'used in it', value: used, text: formatBytes(used), kind: 'before' },
    ...(stripped === 0
      ? []
      : [
          { label: 'data, with holes', value: stripped, text: formatBytes(stripped), kind: 'data' },
          { label: 'data stored', value: stored, text: `${formatBytes(stored)} in the store`, kind: 'data' },
        ]),
    ...summary.outputs.map((o) => ({
      label: `image ${o.platform}${o.disk === undefined ? '' : ` ${o.disk}`}`,
      value: o.bytes,
      text: `${formatBytes(o.bytes)} ${o.format}`,
      kind: 'after',
    })),
  ];
  return html`<section><h2>Sizes</h2>${bars(rows)}</section>`;
}

function stageTimes(summary: Summary): Html {
  const total = summary.stages.reduce((sum, s) => sum + s.seconds, 0);
  const rows = summary.stages.map((s) => ({
    label: s.name,
    value: s.seconds,
    text: formatSeconds(s.seconds),
    kind: 'time',
  }));
  return html`<section><h2>Time: ${formatSeconds(total)}</h2>${bars(rows)}</section>`;
}

function outputs({ summary, screenshots, serialTails }: ReportInput): Html {
  return html`<section><h2>Images</h2>${summary.outputs.map((o) => {
    // a further disk was attached to the machine that proved the first
    const picture = o.disk === undefined ? screenshots.get(o.platform) : undefined;
    const serial = o.disk === undefined ? serialTails.get(o.platform) : undefined;
    return html`<h3>${o.platform}${o.disk === undefined ? '' : `, disk ${o.disk}`} ${o.verified ? html`<b class="good">verified</b>` : html`<b class="unknown">not verified</b>`}</h3>
<p><code>${o.path}</code><br>${o.format}, ${formatBytes(o.bytes)}, disk of ${formatBytes(o.virtualBytes)}<br>sha256 <code>${o.sha256}</code></p>
${o.verification.length === 0 ? html`` : html`<table><tr><th>check</th><th></th><th>what was seen</th></tr>${o.verification.map((c) => html`<tr><td>${c.name}</td><td>${c.ok ? html`<b class="good">ok</b>` : html`<b class="bad">failed</b>`}</td><td>${c.detail}</td></tr>`)}</table>`}
${claims(o)}
${timeToService(o)}
${picture === undefined ? html`` : html`<figure><img alt="screen of the verification boot" src="data:image/png;base64,${picture.toString('base64')}"><figcaption>Screen at the end of the verification boot</figcaption></figure>`}
${serial === undefined ? html`` : html`<details><summary>End of the serial console</summary><pre>${serial}</pre></details>`}`;
  })}</section>`;
}

/** What of the platform was booted, only listed, or cannot be proven here. */
function claims({ claims: all }: Summary['outputs'][number]): Html {
  if (all.length === 0) return html``;
  const kind = { booted: 'good', listed: 'plain', unproven: 'unknown', missing: 'bad' } as const;
  return html`<table><tr><th>claim</th><th>proof</th><th>detail</th></tr>${all.map((c) => html`<tr><td>${c.name}</td><td><b class="${kind[c.proof]}">${c.proof === 'unproven' ? 'not proven' : c.proof}</b></td><td>${c.detail}</td></tr>`)}</table>`;
}

function timeToService({ timeToService: units, lazyAccess }: Summary['outputs'][number]): Html {
  if (units.length === 0 && lazyAccess.length === 0) return html``;
  const rows: Bar[] = [
    ...units.map((u) => ({
      label: u.unit.replace(/\.service$/, ''),
      value: u.seconds,
      text: `${formatSeconds(u.seconds)}, ${u.mode} data`,
      kind: 'time',
    })),
    ...lazyAccess.map((a) => ({
      label: 'first access',
      value: a.seconds,
      text: `${formatSeconds(a.seconds)}, ${a.id}`,
      kind: 'data',
    })),
  ];
  return html`<h4>Time to service, from the start of the kernel</h4>${bars(rows)}`;
}

/** One table for all: who looks for one platform finds it beside the others. */
function cloudImages({ cloudImages: images }: Summary): Html {
  if (images.length === 0) return html``;
  return html`<section><h2>In clouds</h2>
<table><tr><th>platform</th><th>where</th><th>image</th><th>data</th><th>sent</th><th>content</th></tr>${images.map(
    (image) =>
      html`<tr><td>${image.platform}</td><td>${image.place}</td><td><code>${image.id}</code> ${image.name}${image.disks.map((d) => html`<br>disk ${d.disk}: <code>${d.id}</code>`)}${image.replaced.map((old) => html`<br>older image <code>${old.id}</code> ${old.action}`)}</td><td>${formatBytes(image.bytes)}</td><td>${formatBytes(image.sentBytes)} by ${image.method}</td><td>${image.content === 'ok' ? html`<b class="good">verified</b>` : html`<b class="unknown">${image.content}</b>`} ${image.proof}</td></tr>`,
  )}</table>
<p>Start an instance:</p>${images.map((image) => html`<pre>${image.start}</pre>`)}</section>`;
}

function dataSets(summary: Summary): Html {
  if (summary.dataSets.length === 0) return html``;
  return html`<section><h2>Application data</h2><p>Taken out of the image, read back and verified in the store, fetched by the instance.</p>
<table><tr><th>path</th><th>size</th><th>files</th><th>stored</th><th>where</th></tr>${summary.dataSets.map((d) => html`<tr><td><code>${d.path}</code></td><td>${formatBytes(d.bytes)}</td><td>${d.files}</td><td>${formatBytes(d.storedBytes)}</td><td><code>${d.manifest}</code></td></tr>`)}</table></section>`;
}

function warnings(summary: Summary): Html {
  if (summary.warnings.length === 0) return html``;
  return html`<section><h2>Needs attention</h2><ul>${summary.warnings.map((w) => html`<li>${w}</li>`)}</ul></section>`;
}

function found(facts: Facts | undefined): Html {
  if (facts === undefined) return html``;
  const addresses = facts.network.interfaces
    .filter((i) => i.method !== 'loopback')
    .map((i) => `${i.name}: ${i.method} ${i.addresses.join(' ')}`);
  const rows: [string, string][] = [
    ['system', `${facts.os.productName}, ${facts.os.arch}, ${facts.os.init}`],
    ['kernels', facts.kernels.map((k) => k.version).join(', ')],
    [
      'file systems',
      facts.filesystems
        .map(
          (f) =>
            `${f.device} ${f.type} ${formatBytes(f.sizeBytes)}${f.usedBytes === undefined ? '' : `, ${formatBytes(f.usedBytes)} used`}`,
        )
        .join('\n'),
    ],
    ['mounts', facts.mounts.map((m) => `${m.path} on ${m.device}`).join('\n')],
    ['network', `${facts.network.systems.join(', ')}\n${addresses.join('\n')}`],
    [
      'users',
      facts.users
        .filter((u) => u.human)
        .map((u) => u.name)
        .join(', '),
    ],
    [
      'services',
      facts.services
        .filter((s) => s.enabled)
        .map((s) => s.unit)
        .join(', '),
    ],
    ['packages', String(facts.packages.length)],
    ...machineRows(facts),
    ['agents', facts.agents.map((a) => `${a.platform}: ${a.package ?? a.path ?? ''}`).join(', ') || 'none'],
  ];
  return html`<section><h2>What was found</h2><table>${rows.map(([name, text]) => html`<tr><th>${name}</th><td class="lines">${text}</td></tr>`)}</table></section>`;
}

/** What was seen on the machine while it ran, and what a package said of its hardware. */
function machineRows({ inventory: live, hardware }: Facts): [string, string][] {
  const rows: [string, string][] = [];
  if (live !== undefined) {
    rows.push(
      [
        'machine',
        [live.vendor, live.product, `${live.cpus} CPUs`, formatBytes(live.memoryBytes)]
          .filter(Boolean)
          .join(', '),
      ],
      [
        'its cards',
        live.interfaces.map((i) => `${i.name} ${i.mac ?? ''} ${i.addresses.join(' ')}`).join('\n'),
      ],
      ['running', live.services.join(', ')],
      [
        'listening',
        live.ports.map((p) => `${p.protocol} ${p.address}:${p.port} ${p.program ?? ''}`).join('\n'),
      ],
      ['its agents', live.agents.join(', ') || 'none'],
    );
  }
  if (hardware !== undefined) {
    const nics = hardware.nics.map((n) => `${n.model ?? 'card'} ${n.mac ?? ''}`).join(', ');
    rows.push([
      'package',
      `${hardware.name ?? ''} ${hardware.firmware}, ${hardware.guestOsId ?? ''}, ${nics}`,
    ]);
  }
  return rows;
}

function changes(list: readonly Change[]): Html {
  const stages = [...new Set(list.map((c) => c.stage))];
  return html`<section><h2>What was changed</h2>${stages.map((stage) => html`<h3>${stage}</h3>${list.filter((c) => c.stage === stage).map(change)}`)}</section>`;
}

function change(c: Change): Html {
  const head = html`<code>${c.action}</code> <b>${c.path}</b> <span>${c.why}</span>`;
  if (c.before === undefined && c.after === undefined) return html`<p class="change">${head}</p>`;
  return html`<details class="change"><summary>${head}</summary>${side('before', c.before)}${side('after', c.after)}</details>`;
}

function side(name: string, text: string | undefined): Html {
  if (text === undefined) return html``;
  return html`<div class="${name}"><i>${name}</i><pre>${text.slice(0, 4 * KIB)}</pre></div>`;
}
