import * as fs from 'node:fs/promises';
import * as os from 'node:os';
import * as path from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { runSync } from '../../../pipeline/sync/engine.ts';
import { parseSync } from '../../../pipeline/sync/load.ts';
import { syncContext } from '../../support/sync-context.ts';

let dir = '';
beforeAll(async () => {
  dir = await fs.mkdtemp(path.join(os.tmpdir(), 'port-image-engine-'));
});
afterAll(async () => {
  await fs.rm(dir, { recursive: true, force: true });
});

test('a run that could not begin gives its folder back', async () => {
  const state = path.join(dir, 'taken');
  await fs.mkdir(path.join(state, 'place-id'), { recursive: true });
  const text = JSON.stringify({
    sync: 'nightly',
    sources: { images: { folder: { path: dir } } },
    targets: { b: { platform: 'openstack', options: { cloud: 'of-nobody' } } },
    state: 'taken',
  });
  const file = parseSync(text, path.join(dir, 'sync.yaml'));
  await expect(runSync(file, syncContext())).rejects.not.toMatchObject({ code: 'JOB_LOCKED' });
  await fs.rm(path.join(state, 'place-id'), { recursive: true });
  expect((await runSync(file, syncContext())).unreachable).toHaveLength(1);
});

test('a server that cannot be captured makes the run fail for whoever watches its status', async () => {
  const text = JSON.stringify({
    sync: 'nightly',
    sources: {
      shops: { servers: [{ name: 'web', source: 'gone.raw', job: 'jobs/web', options: { to: 'qemu' } }] },
    },
    targets: { b: { platform: 'openstack', options: { cloud: 'of-nobody' } } },
    state: 'state',
  });
  const file = parseSync(text, path.join(dir, 'sync.yaml'));
  const report = await runSync(file, syncContext());
  expect(report.unreachable.map(({ kind, name }) => `${kind} ${name}`)).toContain('source shops/web');
  expect(report.exitStatus).not.toBe(0);
});
