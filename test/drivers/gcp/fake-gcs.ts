/** Cloud Storage for tests: fake-gcs-server (https://github.com/fsouza/fake-gcs-server), in memory, with one bucket. */
import * as net from 'node:net';
import { setTimeout } from 'node:timers/promises';
import { Storage } from '@google-cloud/storage';
import { startBackground } from '../../../tools/background.ts';

async function freePort(): Promise<number> {
  const server = net.createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as net.AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** Starts it; returns when it answers. */
export async function startFakeGcs(program: string, bucket: string) {
  const port = await freePort();
  const url = `http://127.0.0.1:${port}`;
  const gcs = startBackground(program, [
    ...['-scheme', 'http', '-host', '127.0.0.1', '-port', String(port)],
    ...['-backend', 'memory', '-external-url', url, '-public-host', `127.0.0.1:${port}`],
  ]);
  for (;;) {
    const answer = await fetch(`${url}/storage/v1/b?project=shop-1`).catch(() => undefined);
    if (answer?.ok) break;
    const ended = await Promise.race([gcs.exited, setTimeout(100, undefined)]);
    if (ended !== undefined) throw new Error(`fake-gcs-server ended: ${ended.stderr}`);
  }
  const storage = new Storage({ apiEndpoint: url, projectId: 'shop-1' });
  await storage.createBucket(bucket);
  return { url, bucket: storage.bucket(bucket), stop: () => gcs.stop() };
}
