import { createHash } from 'node:crypto';
import * as fs from 'node:fs/promises';
import * as os from 'node:os';
import * as path from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { buildContract } from '../../../../core/contract.ts';
import { makeDir, writeJson } from '../../../../core/files.ts';
import { Request } from '../../../../core/request.ts';
import type { StageName } from '../../../../core/stage.ts';
import { SourceConfig } from '../../../../core/sync/config.ts';
import type { Artifact } from '../../../../core/types.ts';
import { openstack } from '../../../../drivers/openstack/index.ts';
import { createJob } from '../../../../pipeline/job.ts';
import { Journal, type JournalEvent } from '../../../../pipeline/journal.ts';
import { openJobSource } from '../../../../pipeline/sync/sources/job.ts';
import { CountedDigests, syncContext } from '../../../support/sync-context.ts';
import { sampleFacts } from '../../../support/tree-guest.ts';

let base: string;
let digests: CountedDigests;
let ctx: ReturnType<typeof syncContext>;
beforeEach(async () => {
  base = await fs.mkdtemp(path.join(os.tmpdir(), 'sync-job-'));
  digests = new CountedDigests();
  ctx = syncContext();
});
afterEach(() => fs.rm(base, { recursive: true }));

const sha256 = (text: string | Buffer) => createHash('sha256').update(text).digest('hex');

function source(job: string) {
  const config = SourceConfig.parse({ job });
  if (!('job' in config)) throw new Error('no job');
  return openJobSource('jobs', config, { base, digests });
}

/** What differs from a good job. */
interface Odd {
  verified?: boolean;
  finished?: boolean;
  artifacts?: Partial<Artifact>[];
}

/** A job folder as a conversion leaves it: request, journal, facts, contract and files in `out`. */
async function job(name: string, odd: Odd = {}): Promise<string> {
  const dir = path.join(base, name);
  const request = Request.parse({
    schema: 'port-image/request/1',
    source: '/srv/old.raw',
    to: ['openstack', 'qemu'],
    name,
    store: 'file:/srv/store',
    strip: 'none',
    network: 'dhcp',
    verify: true,
  });
  const paths = await createJob(dir, request);
  await makeDir(paths.out);
  await makeDir(paths.data);
  const facts = sampleFacts({ firmware: 'uefi' });
  await writeJson(paths.facts, facts);
  const contract = buildContract({
    facts,
    request,
    platforms: [openstack],
    dataSets: [],
    version: '20260821-02',
  });
  await writeJson(path.join(paths.data, 'contract.json'), contract);
  const artifacts: Artifact[] = [];
  for (const one of odd.artifacts ?? [{}]) {
    const file = path.join(paths.out, `${name}-${artifacts.length}.qcow2`);
    const content = `image ${artifacts.length} of ${name}`;
    await fs.writeFile(file, content);
    artifacts.push({
      platform: 'openstack',
      path: file,
      format: 'qcow2',
      bytes: content.length,
      virtualBytes: 2 ** 31 + 512,
      sha256: sha256(content),
      ...one,
    });
  }
  const done = (stage: StageName, result: unknown, digest?: string): JournalEvent => ({
    event: 'stage-done',
    stage,
    seconds: 1,
    result,
    changes: [],
    warnings: [],
    ...(digest === undefined ? {} : { digest }),
  });
  const journal = await Journal.open(paths.journal);
  await journal.append(done('inspect', null, sha256(await fs.readFile(paths.facts))));
  await journal.append(done('cloud-init', { packages: [{ name: 'qemu-guest-agent' }] }));
  await journal.append(done('encode', artifacts));
  const verified = odd.verified ?? true;
  await journal.append(
    done('verify', [{ platform: 'openstack', verified, checks: [], seconds: 1, serialLog: '' }]),
  );
  await journal.append(done('upload', { dir: paths.out, files: [], images: [] }));
  if (odd.finished ?? true) await journal.append({ event: 'run-done', ok: true, sourceUnchanged: true });
  await journal.close();
  return dir;
}

describe('one job', () => {
  test('its image, with what contract and facts say', async () => {
    const dir = await job('shop01');
    const [image, ...more] = await source('shop01').list(ctx);
    expect(more).toEqual([]);
    expect(image).toMatchObject({
      series: 'shop01',
      version: '20260821-02',
      ref: path.join(dir, 'out/shop01-0.qcow2'),
      fileDigest: `sha256:${sha256('image 0 of shop01')}`,
      format: 'qcow2',
      virtualBytes: 2 ** 31 + 512,
      firmware: 'uefi',
      arch: 'x86_64',
      minDiskGib: 8,
      minRamMib: 512,
      dataSets: [],
      properties: {
        hw_firmware_type: 'uefi',
        hw_machine_type: 'q35',
        hw_qemu_guest_agent: 'yes',
        os_type: 'linux',
      },
    });
    const own = Object.keys(image?.properties ?? {}).filter((key) => key.startsWith('port_image_'));
    expect(own).toEqual(['port_image_contract']);
  });

  test('qcow2 before raw, OpenStack’s before others; an OVA is no disk', async () => {
    const dir = await job('shop01', {
      artifacts: [
        { platform: 'vmware', format: 'vmdk', container: 'ova' },
        { platform: 'gcp', format: 'raw' },
        { platform: 'qemu' },
        { platform: 'openstack' },
      ],
    });
    const images = await source(dir).list(ctx);
    expect(images.map((i) => i.ref)).toEqual([path.join(dir, 'out/shop01-3.qcow2')]);
  });

  test('a further disk is an image of its own', async () => {
    await job('shop01', { artifacts: [{}, { disk: 'sd/b' }] });
    const images = await source('shop01').list(ctx);
    expect(images.map((i) => [i.series, i.properties])).toEqual([
      ['shop01', expect.objectContaining({ os_type: 'linux' })],
      ['shop01-sd_b', {}],
    ]);
  });

  test.each([
    ['unfinished', { finished: false }, 'CONFIG', /not finished/],
    ['not proved', { verified: false }, 'VERIFY_FAILED', /did not prove/],
    ['only an OVA', { artifacts: [{ container: 'ova' as const }] }, 'CONFIG', /no plain disk/],
  ])('refused: %s', async (_what, odd, code, message) => {
    await job('shop01', odd);
    await expect(source('shop01').list(ctx)).rejects.toMatchObject({
      code,
      message: expect.stringMatching(message),
    });
  });

  test('refused: facts or image that are not what was written', async () => {
    const dir = await job('shop01');
    await fs.appendFile(path.join(dir, 'facts.json'), ' ');
    await expect(source('shop01').list(ctx)).rejects.toMatchObject({ code: 'JOB_TAMPERED' });
    const other = await job('shop02');
    await fs.appendFile(path.join(other, 'out/shop02-0.qcow2'), 'x');
    await expect(source('shop02').list(ctx)).rejects.toMatchObject({ code: 'JOB_TAMPERED' });
    await expect(source('shop03').list(ctx)).rejects.toMatchObject({ code: 'JOB_UNKNOWN' });
  });
});

test('of several jobs, one that cannot be used is left out by name', async () => {
  await job('a');
  await job('b', { finished: false });
  await job('c');
  await makeDir(path.join(base, 'no-job'));
  await fs.writeFile(path.join(base, 'file'), '');
  const images = await source('*').list(ctx);
  expect(images.map((i) => i.series)).toEqual(['a', 'c']);
  expect(ctx.warnings).toEqual([
    expect.stringMatching(/b is left out: .*not finished/),
    expect.stringMatching(/no-job is left out: no job/),
  ]);
  await expect(source('nothing-*').list(ctx)).rejects.toMatchObject({ code: 'CONFIG' });
});

test('a listing reads no image; taking one does, and refuses what was changed in place', async () => {
  const dir = await job('shop01');
  const opened = source('shop01');
  const [image] = await opened.list(ctx);
  if (image === undefined) throw new Error('no image');
  expect(digests.learned).toBe(0);
  expect(await opened.fetch(image, '/nowhere', ctx)).toEqual({
    path: image.ref,
    format: 'qcow2',
    receivedBytes: 0,
  });
  await fs.writeFile(path.join(dir, 'out/shop01-0.qcow2'), 'image 1 of shop01');
  await opened.list(ctx);
  await expect(opened.fetch(image, '/nowhere', ctx)).rejects.toMatchObject({ code: 'SOURCE_CHANGED' });
});
