import { mkdtempSync, rmSync } from 'node:fs';
import * as http from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import * as path from 'node:path';
import { expect, test } from 'vitest';
import { GcsBucket } from '../../../tools/gcp/bucket.ts';
import { withRetries } from '../../../tools/openstack/retry.ts';
import { startComputeServer } from '../../drivers/gcp/compute-server.ts';

test('an upload whose token is not accepted any more logs in anew, once', async () => {
  const dir = mkdtempSync(path.join(tmpdir(), 'port-image-gcs-'));
  const tokens = await startComputeServer(dir);
  process.env.GOOGLE_APPLICATION_CREDENTIALS = tokens.credentials;
  const seen: string[] = [];
  let accepted = 'Bearer ya29.test-2';
  const server = http.createServer((request, response) => {
    request.resume();
    request.on('end', () => {
      seen.push(request.headers.authorization ?? '');
      response.statusCode = request.headers.authorization === accepted ? 200 : 401;
      response.end(JSON.stringify({ name: 'x', size: '1', crc32c: '' }));
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const endpoint = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const bucket = await GcsBucket.open('images', { endpoint, login: true });
  const put = () =>
    withRetries(() =>
      bucket.put({
        name: 'x',
        content: async function* () {
          yield Buffer.from('x');
        },
        bytes: 1,
        contentType: 'text/plain',
      }),
    );
  try {
    expect(await put()).toMatchObject({ bytes: 1 });
    expect(seen).toEqual(['Bearer ya29.test-1', 'Bearer ya29.test-2']);
    accepted = 'none';
    await expect(put()).rejects.toMatchObject({
      code: 'CLOUD_LOGIN',
      message: expect.not.stringContaining('ya29.'),
    });
    expect(seen).toHaveLength(3);
  } finally {
    await bucket.close();
    server.closeAllConnections();
    server.close();
    await tokens.close();
    delete process.env.GOOGLE_APPLICATION_CREDENTIALS;
    rmSync(dir, { recursive: true });
  }
});
