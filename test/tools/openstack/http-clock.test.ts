import { once } from 'node:events';
import * as http from 'node:http';
import type { AddressInfo } from 'node:net';
import { expect, test } from 'vitest';
import { HttpClient } from '../../../tools/openstack/http.ts';

test('the clock of a service is known by its answers; some seconds are no difference', async () => {
  let date = '';
  const server = http.createServer((_request, answer) => {
    answer.sendDate = false;
    if (date !== '') answer.setHeader('date', date);
    answer.end('{}');
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const url = new URL(`http://127.0.0.1:${(server.address() as AddressInfo).port}/`);
  const client = await HttpClient.create();
  const ahead = async (told: string) => {
    date = told;
    const answer = await client.request(url, { method: 'GET', what: 'test' });
    await answer.drain();
    return client.clockAheadMs / 60_000;
  };
  try {
    expect(await ahead(new Date(Date.now() + 3000).toUTCString())).toBe(0);
    expect(await ahead(new Date(Date.now() + 3_600_000).toUTCString())).toBeCloseTo(60, 0);
    expect(await ahead(new Date(Date.now() - 3_600_000).toUTCString())).toBeCloseTo(-60, 0);
    expect(await ahead('rubbish')).toBeCloseTo(-60, 0);
    expect(await ahead('')).toBeCloseTo(-60, 0);
  } finally {
    await client.close();
    server.close();
  }
});
