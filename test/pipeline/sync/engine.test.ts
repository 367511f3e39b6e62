import * as fs from 'node:fs/promises';
import * as os from 'node:os';
import * as path from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { runSync } from '../../../pipeline/sync/engine.ts';
import { parseSync } from '../../../pipeline/sync/load.ts';
import { exitStatusOf } from '../../../pipeline/sync/report/exit-status.ts';
import { summaryLines } from '../../../pipeline/sync/report/text.ts';
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
  expect((await runSync(file, syncContext())).unreachable[0]).toMatchObject({ kind: 'target' });
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
  expect(report.leftOut).toMatchObject([{ source: 'shops', what: 'web' }]);
  expect(report.exitStatus).not.toBe(0);
});

/** A sync of a folder into a cloud nobody can log in to. */
async function folderSync(name: string) {
  const images = path.join(dir, name);
  await fs.mkdir(images, { recursive: true });
  const file = parseSync(
    JSON.stringify({
      sync: 'nightly',
      sources: { golden: { folder: { path: name } } },
      targets: { b: { platform: 'openstack', options: { cloud: 'of-nobody' } } },
      state: `state-${name}`,
    }),
    path.join(dir, 'sync.yaml'),
  );
  return { images, file };
}

test('a source with nothing in it is a failure: its file system may not be mounted', async () => {
  const { file } = await folderSync('empty');
  const report = await runSync(file, syncContext());
  expect(report.unreachable).toMatchObject([
    { kind: 'target', name: 'b' },
    { kind: 'source', name: 'golden', code: 'SOURCE_EMPTY' },
  ]);
});

test('what is left out says what to do about it', async () => {
  const { file, images } = await folderSync('link');
  await fs.symlink('/etc/hostname', path.join(images, 'web.raw'));
  const report = await runSync(file, syncContext());
  const lines = summaryLines(report);
  const at = lines.findIndex((line) => line.startsWith('left out: web.raw of golden'));
  expect(lines[at + 1]).toMatch(/^ {2}hint: put the image itself there/);
});

test('an image that cannot be used is told in report, page and metrics, and is a failure', async () => {
  const { file, images } = await folderSync('cut');
  await fs.writeFile(path.join(images, 'web.qcow2'), 'QFI\xfb');
  const report = await runSync(file, syncContext());
  expect(report.leftOut).toMatchObject([{ source: 'golden', what: 'web.qcow2' }]);
  // the state folder is on another host
  const lines = summaryLines(report);
  expect(lines.find((line) => line.startsWith('left out: '))).toMatch(
    /^left out: web\.qcow2 of golden: .+\[\w+\]$/,
  );
  expect(lines.at(-1)).toBe(`report: runs/${report.run}/report.html in the state folder of ${report.host}`);
  expect(report.unreachable.map(({ kind }) => kind)).toEqual(['target']);
  expect(report.exitStatus).toBe(exitStatusOf({ ...report, unreachable: [] }));
  const state = path.join(dir, 'state-cut');
  const page = await fs.readFile(path.join(state, 'runs', report.run, 'report.html'), 'utf8');
  expect(page).toMatch(/web\.qcow2<\/b> of golden is left out/);
  const metrics = await fs.readFile(path.join(state, 'metrics.prom'), 'utf8');
  expect(metrics).toContain('port_image_sync_left_out{sync="nightly"} 1\n');
});
