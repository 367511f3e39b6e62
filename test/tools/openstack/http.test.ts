import { execFileSync } from 'node:child_process';
import * as fs from 'node:fs/promises';
import * as http from 'node:http';
import * as https from 'node:https';
import type { AddressInfo } from 'node:net';
import * as os from 'node:os';
import * as path from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { errorText, HttpClient, retryAfter } from '../../../tools/openstack/http.ts';
import { withRetries } from '../../../tools/openstack/retry.ts';

const cleanups: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const done of cleanups.splice(0).reverse()) await done();
});

async function serve(handler: http.RequestListener): Promise<URL> {
  const server = http.createServer(handler);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  cleanups.push(() => {
    server.closeAllConnections();
    return new Promise((resolve) => server.close(resolve));
  });
  return new URL(`http://127.0.0.1:${(server.address() as AddressInfo).port}/`);
}

async function client(options: Parameters<typeof HttpClient.create>[0] = {}): Promise<HttpClient> {
  const made = await HttpClient.create(options);
  cleanups.push(() => made.close());
  return made;
}

const content = (parts: number, size = 65536) =>
  async function* () {
    for (let i = 0; i < parts; i += 1) yield Buffer.alloc(size, i);
  };

describe('answers', () => {
  test('a streamed body arrives whole, with and without a length', async () => {
    const seen: [string | undefined, number][] = [];
    const url = await serve((request, response) => {
      let bytes = 0;
      request.on('data', (chunk: Buffer) => {
        bytes += chunk.length;
      });
      request.on('end', () => {
        seen.push([request.headers['content-length'], bytes]);
        response.writeHead(201).end();
      });
    });
    const c = await client();
    await (await c.request(url, { method: 'PUT', body: content(10), what: 'test' })).drain();
    await (
      await c.request(url, { method: 'PUT', body: content(10), bodyBytes: 655360, what: 'test' })
    ).drain();
    expect(seen).toEqual([
      [undefined, 655360],
      ['655360', 655360],
    ]);
  });

  test.each([
    [401, 'CLOUD_LOGIN', false],
    [403, 'CLOUD_REFUSED', false],
    [413, 'CLOUD_REFUSED', false],
    [404, 'CLOUD', false],
    [429, 'CLOUD', true],
    [500, 'CLOUD', true],
    [503, 'CLOUD', true],
  ])('%i is %s, temporary: %s', async (status, code, temporary) => {
    const url = await serve((_request, response) => {
      response
        .writeHead(status, { 'content-type': 'application/json' })
        .end('{"error":{"message":"the reason"}}');
    });
    await expect((await client()).request(url, { method: 'GET', what: 'listing' })).rejects.toMatchObject({
      code,
      temporary,
      status,
      message: expect.stringMatching(/^listing: .* answers \d+: the reason$/),
    });
  });

  test('a redirect is not followed', async () => {
    let asked = 0;
    const url = await serve((_request, response) => {
      asked += 1;
      response.writeHead(302, { location: '/elsewhere' }).end();
    });
    await expect((await client()).request(url, { method: 'GET', what: 'x' })).rejects.toMatchObject({
      status: 302,
    });
    expect(asked).toBe(1);
  });

  test('a truncated JSON answer is temporary', async () => {
    const url = await serve((_request, response) => {
      response.writeHead(200, { 'content-length': '100' });
      response.write('{"a":');
      setTimeout(() => response.destroy(), 20);
    });
    const answer = await (await client()).request(url, { method: 'GET', what: 'x' });
    await expect(answer.json()).rejects.toMatchObject({ code: 'CLOUD', temporary: true });
  });

  test('an endless answer is cut off', async () => {
    const url = await serve((_request, response) => {
      const more = () => {
        while (response.write(Buffer.alloc(65536)));
        response.once('drain', more);
      };
      response.on('error', () => {});
      more();
    });
    const answer = await (await client()).request(url, { method: 'GET', what: 'x' });
    await expect(answer.text(1 << 20)).rejects.toMatchObject({ code: 'CLOUD' });
  });
});

describe('faults', () => {
  test('a server that stops reading the body is given up', async () => {
    const url = await serve((request) => {
      request.pause();
    });
    const c = await client({ stallTimeoutMs: 400 });
    const endless = async function* () {
      for (;;) yield Buffer.alloc(1 << 20);
    };
    await expect(c.request(url, { method: 'PUT', body: endless, what: 'upload' })).rejects.toMatchObject({
      code: 'CLOUD',
      temporary: true,
      message: expect.stringContaining('did not answer any more'),
    });
  });

  test('a server that never answers is given up after its own time', async () => {
    const url = await serve((request) => {
      request.resume();
    });
    const c = await client({ stallTimeoutMs: 200 });
    await expect(
      c.request(url, { method: 'PUT', body: content(2), answerTimeoutMs: 300, what: 'upload' }),
    ).rejects.toMatchObject({ temporary: true });
  });

  test('a stalled answer body ends with an error', async () => {
    const url = await serve((_request, response) => {
      response.writeHead(200, { 'content-length': '100' });
      response.write('x');
    });
    const answer = await (await client({ stallTimeoutMs: 300 })).request(url, { method: 'GET', what: 'x' });
    await expect(answer.text()).rejects.toMatchObject({ code: 'CLOUD', temporary: true });
  });

  test('a cut connection is temporary, an abort is not', async () => {
    const url = await serve((request) => {
      request.once('data', () => request.socket.destroy());
    });
    const c = await client();
    await expect(c.request(url, { method: 'PUT', body: content(50), what: 'x' })).rejects.toMatchObject({
      temporary: true,
      status: 0,
    });
    await expect(
      c.request(await serve(() => {}), { method: 'GET', what: 'x', signal: AbortSignal.timeout(50) }),
    ).rejects.toMatchObject({ code: 'INTERRUPTED' });
  });
});

describe('retries', () => {
  test('temporary failures are repeated with a fresh body, Retry-After is waited for', async () => {
    const times: number[] = [];
    let bytes = 0;
    const url = await serve((request, response) => {
      bytes = 0;
      request.on('data', (chunk: Buffer) => {
        bytes += chunk.length;
      });
      request.on('end', () => {
        times.push(performance.now());
        if (times.length === 1) response.writeHead(429, { 'retry-after': '1' }).end();
        else response.writeHead(201).end();
      });
    });
    const c = await client();
    await withRetries(async () =>
      (await c.request(url, { method: 'PUT', body: content(3), what: 'x' })).drain(),
    );
    expect(times).toHaveLength(2);
    expect((times[1] ?? 0) - (times[0] ?? 0)).toBeGreaterThan(990);
    expect(bytes).toBe(3 * 65536);
  });

  test('what is not temporary is not repeated; a server that asks for an hour neither', async () => {
    for (const [status, headers] of [
      [404, {}],
      [503, { 'retry-after': '3600' }],
    ] as const) {
      let asked = 0;
      const url = await serve((_request, response) => {
        asked += 1;
        response.writeHead(status, headers).end();
      });
      const c = await client();
      await expect(withRetries(() => c.request(url, { method: 'GET', what: 'x' }))).rejects.toMatchObject({
        status,
      });
      expect(asked).toBe(1);
    }
  });
});

test('Retry-After in both forms', () => {
  expect(retryAfter('7')).toBe(7000);
  expect(retryAfter('Wed, 21 Oct 2026 07:28:10 GMT', Date.parse('2026-10-21T07:28:00Z'))).toBe(10_000);
  expect(retryAfter('soon')).toBeUndefined();
});

test('error texts lose markup, signatures and tokens', () => {
  expect(errorText('<html><title>413</title><h1>Too big</h1><p>The body is too large.</p></html>')).toBe(
    'The body is too large.',
  );
  expect(errorText('{"message": "no such property.<br /><br />\\n\\n Property x\\n\\n a < b"}')).toBe(
    'no such property. Property x a < b',
  );
  const text = errorText(
    'GET /v1/c?temp_url_sig=0123abcd&x=1 with gAAAAABlongtokenlongtokenlongtoken failed',
  );
  expect(text).not.toMatch(/0123abcd|gAAAA/);
});

describe('TLS', () => {
  let dir = '';
  beforeAll(async () => {
    dir = await fs.mkdtemp(path.join(os.tmpdir(), 'tls-'));
    const openssl = (...args: string[]) => execFileSync('openssl', args, { cwd: dir, stdio: 'pipe' });
    const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];
    openssl(
      'req',
      '-x509',
      ...key,
      '-keyout',
      'ca.key',
      '-out',
      'ca.pem',
      '-subj',
      '/CN=Test CA',
      '-days',
      '2',
    );
    openssl('req', ...key, '-keyout', 's.key', '-out', 's.csr', '-subj', '/CN=localhost');
    await fs.writeFile(path.join(dir, 'ext'), 'subjectAltName=IP:127.0.0.1');
    openssl(
      'x509',
      '-req',
      '-in',
      's.csr',
      '-CA',
      'ca.pem',
      '-CAkey',
      'ca.key',
      '-CAcreateserial',
      '-out',
      's.pem',
      '-days',
      '2',
      '-extfile',
      'ext',
    );
  });
  afterAll(() => fs.rm(dir, { recursive: true, force: true }));

  test('only a known authority is accepted, and nothing is sent to another', async () => {
    let asked = 0;
    const server = https.createServer(
      { key: await fs.readFile(`${dir}/s.key`), cert: await fs.readFile(`${dir}/s.pem`) },
      (_request, response) => {
        asked += 1;
        response.end('ok');
      },
    );
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    cleanups.push(() => new Promise((resolve) => server.close(resolve)));
    const url = new URL(`https://127.0.0.1:${(server.address() as AddressInfo).port}/`);
    await expect((await client()).request(url, { method: 'GET', what: 'x' })).rejects.toMatchObject({
      code: 'CLOUD',
      temporary: false,
      message: expect.stringContaining('certificate'),
      hint: expect.stringContaining('cacert'),
    });
    expect(asked).toBe(0);
    const good = await client({ caFile: `${dir}/ca.pem` });
    expect(await (await good.request(url, { method: 'GET', what: 'x' })).text()).toBe('ok');
    await good.close();
  });
});
