import { execFileSync } from 'node:child_process';
import * as fs from 'node:fs/promises';
import * as http from 'node:http';
import * as https from 'node:https';
import type { AddressInfo } from 'node:net';
import * as os from 'node:os';
import * as path from 'node:path';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { makeLog } from '../../../core/log.ts';
import type { NotifyConfig } from '../../../core/sync/config.ts';
import type { SyncContext, SyncOutcome, SyncReport } from '../../../core/sync/types.ts';
import { type Notification, notificationOf, notifyAll } from '../../../pipeline/sync/notify.ts';
import { postJson } from '../../../tools/webhook.ts';

let dir: string;
const servers: http.Server[] = [];
beforeAll(async () => {
  dir = await fs.mkdtemp(path.join(os.tmpdir(), 'sync-notify-'));
});
afterEach(async () => {
  for (const server of servers.splice(0)) {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  }
});
afterAll(async () => {
  await fs.rm(dir, { recursive: true, force: true });
});

interface Got {
  url: string | undefined;
  headers: http.IncomingHttpHeaders;
  body: string;
}

/** A receiver; answers are given in turn, the last one for the rest. */
async function receiver(
  ...answers: ((res: http.ServerResponse, at: number) => void)[]
): Promise<{ url: string; got: Got[] }> {
  const got: Got[] = [];
  const server = http.createServer((req, res) => {
    const parts: Buffer[] = [];
    req.on('data', (part: Buffer) => parts.push(part));
    req.on('end', () => {
      got.push({ url: req.url, headers: req.headers, body: Buffer.concat(parts).toString() });
      const answer = answers[Math.min(got.length, answers.length) - 1];
      if (answer === undefined) res.end('ok');
      else answer(res, got.length);
    });
  });
  servers.push(server);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/hook/hunter2`, got };
}

const status =
  (code: number, headers: http.OutgoingHttpHeaders = {}) =>
  (res: http.ServerResponse) => {
    res.writeHead(code, headers).end();
  };

function context(): SyncContext & { warnings: string[]; logged: string[]; abort(): void } {
  const warnings: string[] = [];
  const logged: string[] = [];
  const stop = new AbortController();
  return {
    signal: stop.signal,
    log: makeLog((_, text, fields) => logged.push(`${text} ${JSON.stringify(fields)}`)),
    progress: () => {},
    warn: (text) => warnings.push(text),
    warnings,
    logged,
    abort: () => stop.abort(),
  };
}

function outcome(result: SyncOutcome['result'], more: Partial<SyncOutcome> = {}): SyncOutcome {
  return {
    action: {
      verb: result === 'skipped' ? 'skip' : 'create',
      target: 'b',
      source: 'a',
      series: 'web',
      version: '1',
      name: 'web',
      sourceRef: 'x',
      targetRef: '',
      why: '',
      mostBytes: 0,
    },
    result,
    sentBytes: 10,
    changedBytes: 0,
    dataBytes: 0,
    receivedBytes: 0,
    seconds: 1,
    attempts: 1,
    ...more,
  };
}

function report(more: Partial<SyncReport> = {}): SyncReport {
  return {
    schema: 'port-image/sync-run/1',
    sync: 'nightly',
    run: '20260821T010000Z-ab12cd',
    host: 'h',
    startedAt: '2026-08-21T01:00:00Z',
    endedAt: '2026-08-21T01:10:00Z',
    seconds: 600,
    outcomes: [],
    dataSets: [],
    coming: [],
    unreachable: [],
    leftOut: [],
    notes: [],
    calls: {},
    freedBytes: 0,
    exitStatus: 0,
    interrupted: false,
    partial: false,
    ...more,
  };
}

const notify = (...list: Partial<NotifyConfig>[]) => ({
  notify: list.map((one) => ({ on: 'always' as const, ...one })),
});

test('a webhook gets the reduced report as JSON', async () => {
  const { url, got } = await receiver();
  const ctx = context();
  const failed = outcome('failed', { code: 'CLOUD', message: 'no answer' });
  const skipped = Array.from({ length: 500 }, () => outcome('skipped', { sentBytes: 0 }));
  await notifyAll(
    notify({ webhook: 'env:HOOK' }),
    report({ outcomes: [...skipped, outcome('done'), failed], exitStatus: 6 }),
    ctx,
    { HOOK: `${url}\n` },
  );
  expect(ctx.warnings).toEqual([]);
  expect(got).toHaveLength(1);
  expect(got[0]?.headers).toMatchObject({ 'content-type': 'application/json' });
  const body = JSON.parse(got[0]?.body ?? '') as Notification;
  expect(body).toMatchObject({
    schema: 'port-image/sync-notification/1',
    text: 'nightly on h: status 6; 500 skipped, 1 done, 1 failed',
    results: { skipped: 500, done: 1, failed: 1 },
    sentBytes: 20,
    exitStatus: 6,
  });
  expect(body.outcomes.map(({ result }) => result)).toEqual(['failed', 'done']);
  expect(ctx.logged.join()).not.toContain('hunter2');
});

test('who is told when', async () => {
  const file = path.join(dir, 'when');
  const ends: [string, SyncReport, NotifyConfig['on'][]][] = [
    ['unchanged', report({ outcomes: [outcome('skipped')] }), ['always']],
    ['changed', report({ outcomes: [outcome('done')] }), ['change', 'always']],
    ['freed', report({ freedBytes: 1 }), ['change', 'always']],
    ['failed', report({ exitStatus: 6 }), ['failure', 'change', 'always']],
    ['interrupted', report({ interrupted: true }), ['failure', 'change', 'always']],
  ];
  for (const [what, end, told] of ends) {
    for (const on of ['failure', 'change', 'always'] as const) {
      await fs.rm(file, { force: true });
      await notifyAll({ notify: [{ on, command: ['tee', file] }] }, end, context());
      const wasTold = await fs.access(file).then(
        () => true,
        () => false,
      );
      expect(wasTold, `${what}, ${on}`).toBe(told.includes(on));
    }
  }
});

test('a program gets the report on its stdin, and its arguments as they are', async () => {
  const program = path.join(dir, 'program');
  const file = path.join(dir, 'got');
  await fs.writeFile(program, '#!/bin/sh\ncat > "$1"\nprintf %s "$2" > "$1.arg"\n', { mode: 0o755 });
  const ctx = context();
  await notifyAll(notify({ command: [program, file, '$(id); x'] }), report(), ctx);
  expect(ctx.warnings).toEqual([]);
  expect(JSON.parse(await fs.readFile(file, 'utf8'))).toMatchObject({ sync: 'nightly', exitStatus: 0 });
  expect(await fs.readFile(`${file}.arg`, 'utf8')).toBe('$(id); x');
});

test('whatever goes wrong is a warning, each on its own, and the rest is told', async () => {
  const { url, got } = await receiver();
  const ctx = context();
  await notifyAll(
    notify(
      { command: ['false'] },
      { command: ['/nowhere/program'] },
      { webhook: 'env:NONE' },
      { webhook: `file:${path.join(dir, 'none')}` },
      { webhook: 'env:PLAIN' },
      { webhook: 'env:HOOK' },
    ),
    report(),
    ctx,
    { HOOK: url, PLAIN: 'http://example.com/hunter2' },
  );
  expect(got).toHaveLength(1);
  expect([...ctx.warnings].sort()).toEqual([
    expect.stringMatching(/^the program of notify was not told: \/nowhere\/program is not installed/),
    expect.stringMatching(/^the program of notify was not told: false failed with status 1/),
    'the webhook env:NONE was not told: the variable NONE is not set',
    'the webhook env:PLAIN was not told: its address is neither https nor http of this machine',
    `the webhook file:${path.join(dir, 'none')} was not told: ${path.join(dir, 'none')} cannot be read`,
  ]);
  expect(ctx.warnings.join()).not.toContain('hunter2');
});

test('faults that heal are tried three times, others once', async () => {
  const heals = await receiver(status(503), status(429), status(204));
  await postJson(heals.url, '{}');
  expect(heals.got).toHaveLength(3);
  const never = await receiver(status(500));
  await expect(postJson(never.url, '{}')).rejects.toMatchObject({ code: 'CLOUD', message: 'answer 500' });
  expect(never.got).toHaveLength(3);
  const wrong = await receiver(status(404));
  await expect(postJson(wrong.url, '{}')).rejects.toMatchObject({ message: 'answer 404' });
  expect(wrong.got).toHaveLength(1);
});

test('redirects are followed on the same host only, with the same body', async () => {
  const other = await receiver();
  const away = await receiver(status(307, { location: other.url }));
  await expect(postJson(away.url, '{}')).rejects.toThrow('it redirects to another host');
  expect(other.got).toHaveLength(0);
  const same = await receiver(status(308, { location: '/moved' }), status(200));
  await postJson(same.url, '{"a":1}');
  expect(same.got.map(({ url, body }) => [url, body])).toEqual([
    ['/hook/hunter2', '{"a":1}'],
    ['/moved', '{"a":1}'],
  ]);
  const endless = await receiver(status(307, { location: '/again' }));
  await expect(postJson(endless.url, '{}')).rejects.toThrow('without end');
  expect(endless.got).toHaveLength(4);
});

test('a receiver that does not answer, or answers without end, is left', async () => {
  const silent = await receiver(() => {});
  await expect(postJson(silent.url, '{}', { timeoutMs: 100 })).rejects.toThrow('no answer in time');
  const endless = await receiver((res) => {
    res.writeHead(200);
    const fill = () => {
      while (res.write('x'.repeat(65_536)));
      res.once('drain', fill);
    };
    fill();
  });
  const before = performance.now();
  await postJson(endless.url, '{}', { timeoutMs: 5000 });
  expect(performance.now() - before).toBeLessThan(4000);
});

test('a certificate nobody vouches for is refused, once', async () => {
  const [key, cert] = ['key.pem', 'cert.pem'].map((name) => path.join(dir, name)) as [string, string];
  execFileSync(
    'openssl',
    [
      ...['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2'],
      ...['-subj', '/CN=localhost', '-addext', 'subjectAltName=IP:127.0.0.1', '-keyout', key, '-out', cert],
    ],
    { stdio: 'ignore' },
  );
  let asked = 0;
  const server = https.createServer(
    { key: await fs.readFile(key), cert: await fs.readFile(cert) },
    (_, res) => {
      asked++;
      res.end();
    },
  );
  servers.push(server);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const url = `https://127.0.0.1:${(server.address() as AddressInfo).port}/hunter2`;
  await expect(postJson(url, '{}')).rejects.toMatchObject({
    code: 'CLOUD',
    message: expect.stringMatching(/^no connection \(.*SELF_SIGNED.*\)$/),
  });
  expect(asked).toBe(0);
});

test('an interrupted run is told all the same', async () => {
  const { url, got } = await receiver();
  const ctx = context();
  ctx.abort();
  await notifyAll(notify({ webhook: 'env:HOOK' }), report({ interrupted: true, exitStatus: 130 }), ctx, {
    HOOK: url,
  });
  expect(got).toHaveLength(1);
  expect(JSON.parse(got[0]?.body ?? '')).toMatchObject({ text: 'nightly on h: interrupted; nothing to do' });
});

test('what is sent stays small', () => {
  const outcomes = Array.from({ length: 10_000 }, () => outcome('failed', { message: 'x'.repeat(10_000) }));
  expect(JSON.stringify(notificationOf(report({ outcomes }))).length).toBeLessThan(40_000);
});
