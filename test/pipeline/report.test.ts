import fc from 'fast-check';
import { expect, test } from 'vitest';
import { escapeHtml } from '../../pipeline/report/html.ts';
import { renderReport } from '../../pipeline/report/page.ts';
import type { Summary } from '../../pipeline/summary.ts';

const EVIL = '<script>alert(1)</script>"\'&\u001b[31m\u202e';

const summary: Summary = {
  ok: true,
  job: '/jobs/x',
  source: { path: `/img/${EVIL}`, bytes: 1, virtualBytes: 10, sha256Unchanged: true },
  guest: { distro: EVIL, version: '12', firmware: 'bios', hostname: EVIL },
  outputs: [
    {
      platform: 'openstack',
      path: '/o/x.qcow2',
      format: 'qcow2',
      bytes: 5,
      virtualBytes: 10,
      sha256: 'ab',
      verified: true,
      verification: [{ name: EVIL, ok: true, detail: EVIL }],
      timeToService: [{ unit: `${EVIL}.service`, seconds: 41.5, mode: 'lazy', dataSet: EVIL }],
      compared: true,
      claims: [{ name: EVIL, proof: 'listed', detail: EVIL }],
      lazyAccess: [{ id: EVIL, seconds: 39 }],
    },
  ],
  disks: [
    { id: EVIL, path: EVIL, bytes: 1, virtualBytes: 1, use: 'system', boots: true, badRanges: 0 },
    { id: EVIL, path: EVIL, bytes: 1, virtualBytes: 1, use: 'image', boots: false, badRanges: 1 },
  ],
  capture: {
    consistency: 'frozen',
    passes: [
      {
        number: 2,
        disk: EVIL,
        final: true,
        consistency: 'frozen',
        startedAt: '2026-01-01T00:00:00.000Z',
        seconds: 3,
        diskBytes: 100,
        allocatedBytes: 50,
        sentBytes: 5,
        wireBytes: 4,
        changedBlocks: 1,
        sameBlocks: 2,
        zeroBlocks: 3,
        badRanges: [],
        reconnects: 7,
        frozenMs: 2500,
        treeSha256: 'ab',
      },
    ],
  },
  badRanges: [{ disk: 1, startBytes: 0, lengthBytes: 512, hit: 'files', files: [EVIL], moreFiles: 0 }],
  dataSets: [{ id: 'x', path: EVIL, bytes: 3, storedBytes: 2, files: 1, manifest: EVIL, store: 'file:/s' }],
  cloudImages: [
    {
      platform: EVIL,
      place: EVIL,
      id: EVIL,
      name: EVIL,
      method: 'put',
      bytes: 5,
      sentBytes: 5,
      content: 'unverifiable',
      proof: EVIL,
      replaced: [{ id: EVIL, action: 'hidden' }],
      start: EVIL,
      disks: [{ disk: EVIL, id: EVIL, name: EVIL }],
      details: {},
    },
  ],
  changes: 1,
  stages: [{ name: 'strip', seconds: 2 }],
  applianceLaunches: 1,
  peakRssBytes: 1,
  warnings: [EVIL],
  report: null,
};

test('hostile strings never become markup, nor reach the terminal of who cats the page', () => {
  const page = renderReport({
    summary,
    facts: undefined,
    changes: [{ stage: 'strip', path: EVIL, action: 'edit', why: EVIL, before: EVIL, after: EVIL }],
    screenshots: new Map(),
    serialTails: new Map([['openstack', EVIL]]),
  });
  expect(page).not.toMatch(/<script/i);
  expect(page).not.toContain('\u001b');
  expect(page).not.toContain('\u202e');
  expect(page).toContain("default-src 'none'");
  expect(page).toContain('verified: 1 checks passed');
  expect(page).toContain('Time to service');
  expect(page).toContain('lazy data');
  expect(page).toContain('>unverifiable</b>');
});

test('escaping leaves no markup characters', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary' }), (text) => {
      expect(escapeHtml(text)).not.toMatch(/[<>"']|&(?!(amp|lt|gt|quot|#39);)/);
    }),
  );
});
