/**
 * The contract commands on a real disk: a sample server with the guest side installed by the product's own code (no
 * packages and no new initramfs, so it takes seconds), its contract verified through the command line, then broken in
 * many places at once (one at a time: test/pipeline/contract.test.ts).
 */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import * as fs from 'node:fs/promises';
import { tmpdir } from 'node:os';
import * as path from 'node:path';
import { pipeline } from 'node:stream/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { buildContract, CONTRACT_PATH, type Contract } from '../core/contract.ts';
import type { DataSetSummary } from '../core/data-set.ts';
import type { Facts } from '../core/facts.ts';
import type { GuestSession } from '../core/guest.ts';
import { silentLog } from '../core/log.ts';
import { openstack } from '../drivers/openstack/index.ts';
import { contractText, mountSystem, parseContract, withImage } from '../pipeline/contract/image.ts';
import { matchContract, targetOf } from '../pipeline/contract/match.ts';
import { type ContractVerification, checkContract } from '../pipeline/contract/verify.ts';
import { jobPaths } from '../pipeline/job.ts';
import { openSession } from '../pipeline/session.ts';
import { renderConfig } from '../stages/cloud-init/config.ts';
import { inspectGuest } from '../stages/inspect/index.ts';
import { emptyTree } from '../stages/strip/remove.ts';
import { type GuestDataSet, installGuestSide, STUB_NAME } from '../tools/guest-side.ts';
import { libguestfsEnvironment, probeKvm } from '../tools/kvm.ts';
import { info } from '../tools/qemu-img.ts';
import { ROOT, runCli } from './support/cli.ts';
import { requires } from './support/requires.ts';
import { makeContext } from './support/tree-guest.ts';

const missing = requires('guestfish', 'qemu-img', 'mmdebstrap', 'perl');
const signal = new AbortController().signal;
const SHOP = 'shop-srv-app-1';
const DUMPS = 'shop-dumps-2';
let dir: string;
let image: string;
/** Of the disk the image is made from; nothing the tests do changes a fact. */
let facts: Facts;

const set = (id: string, at: string, mode: 'eager' | 'lazy'): GuestDataSet => ({
  id,
  path: at,
  mode,
  neededBy: ['nginx.service'],
  keep: [],
  bytes: 4096,
  files: 3,
  neededBytes: 8192,
  segments: 1,
  manifestSha256: 'a'.repeat(64),
  segmentsSha256: 'b'.repeat(64),
});
const sets = [set(SHOP, '/srv/app', 'eager'), set(DUMPS, '/var/lib/shop-dumps', 'lazy')];
const summary = (s: GuestDataSet): DataSetSummary => ({
  ...s,
  storedBytes: 1,
  entries: 4,
  manifest: { key: `${s.id}/manifest.json`, sha256: s.manifestSha256 },
  neededBy: [...s.neededBy],
  rule: 'srv',
  reused: false,
});

function inspected(guest: GuestSession, file: { path: string; format: string; virtualBytes: number }) {
  const quiet = { warn: () => {}, progress: () => {}, log: silentLog, signal };
  return inspectGuest({
    guest,
    disks: [{ id: 'disk0', badRanges: [], ...file }],
    tmpDir: dir,
    root: undefined,
    uses: {},
    ...quiet,
  });
}

/** What strip, cloud-init and seal leave, without packages: those two programs stand in for them here. */
async function install(guest: GuestSession, facts: Facts): Promise<void> {
  const { request } = makeContext({ stage: 'strip', guest, facts, platforms: [openstack] });
  const parts = { facts, request, platforms: [openstack], dataSets: sets.map(summary) };
  const contract = buildContract({ ...parts, version: '2026.01.02' });
  for (const s of sets) await emptyTree(guest, s);
  await installGuestSide(guest, { init: facts.os.init, contract, dataSets: sets, warn: () => {} });
  await guest.mkdir('/etc/cloud/cloud.cfg.d');
  const { datasources } = openstack.needs;
  const config = { datasources, generalize: false, hostKeyTypes: [], defaultUserExists: false };
  await guest.write('/etc/cloud/cloud.cfg.d/99-port-image.cfg', renderConfig(config));
  for (const name of ['cloud-init', 'curl', 'zstd'])
    if ((await guest.kind(`/usr/bin/${name}`)) === 'missing') await guest.write(`/usr/bin/${name}`, '');
}

async function sha256(file: string): Promise<string> {
  const hash = createHash('sha256');
  await pipeline(createReadStream(file), hash);
  return hash.digest('hex');
}

describe.skipIf(missing)('the contract of a real disk', () => {
  beforeAll(async () => {
    dir = await fs.mkdtemp(path.join(tmpdir() === '/tmp' ? '/var/tmp' : tmpdir(), 'contract-test-'));
    const disk = execFileSync(path.join(ROOT, 'fixtures/servers/build'), ['bios-lvm'], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'inherit'],
    }).trim();
    const { virtualBytes } = await info({ path: disk, format: 'raw' });
    const paths = jobPaths(path.join(dir, 'job'));
    await fs.mkdir(paths.dir);
    const session = await openSession({
      paths,
      disks: [{ id: 'disk0', path: disk, format: 'raw' }],
      applianceEnv: libguestfsEnvironment(await probeKvm()),
      signal,
      log: silentLog,
    });
    try {
      facts = await inspected(session.guest, { path: disk, format: 'raw', virtualBytes });
      await expect(contractText(session.guest, disk)).rejects.toMatchObject({ code: 'NO_CONTRACT' });
      await install(session.guest, facts);
      await session.commit(['disk0']);
    } catch (error) {
      await session.discard();
      throw error;
    }
    image = path.join(dir, 'image.qcow2');
    execFileSync('qemu-img', ['convert', '-f', 'qcow2', '-O', 'qcow2', paths.work, image]);
    await fs.rm(paths.dir, { recursive: true });
  });
  afterAll(() => fs.rm(dir, { recursive: true, force: true }));

  test('every claim holds, and the image is not changed', async () => {
    const before = await sha256(image);
    const result = await runCli(['contract', 'verify', image, '--json']);
    expect(result.exitCode, `${result.stderr}\n${result.stdout}`).toBe(0);
    const { verified, checks } = result.json() as ContractVerification;
    expect(verified).toBe(true);
    expect(checks.length).toBeGreaterThan(15);
    expect(checks.filter((c) => !c.ok || c.warning)).toEqual([]);
    expect(checks.find((c) => c.name === 'system')?.detail).toBe('debian 12');
    expect(await sha256(image)).toBe(before);
  });

  test('several things are broken, and one run names each of them', async () => {
    await withImage(image, { signal }, async ({ guest }) => {
      await mountSystem(guest, undefined);
      const contract = parseContract(await contractText(guest, image), image);
      // the disk as captured has no virtio driver in its initramfs, and the contract does not claim one
      expect(matchContract(contract, targetOf(openstack)).unmet.map((u) => u.need)).toEqual([
        'storage-driver',
      ]);
      const claim = async (change: (c: Contract) => unknown) => {
        change(contract);
        await guest.write(CONTRACT_PATH, JSON.stringify(contract));
      };
      const conf = `/usr/lib/port-image/data.d/${SHOP}.conf`;
      const automount = '/etc/systemd/system/var-lib-shop\\x2ddumps.automount';
      const tampers: [check: string, detail: RegExp, tamper: () => Promise<unknown>][] = [
        ['drivers', /has no virtio_blk in its/, () => claim((c) => c.facts.drivers.push('virtio_blk'))],
        ['disk', /asks for 7 GiB/, () => claim((c) => (c.needs.minDiskGiB = 7))],
        ['critical', /gpu/, () => claim((c) => c.critical.push('gpu'))],
        ['client', /user 1000/, () => guest.call('chown', ['1000', '1000', '/usr/sbin/port-image-data'])],
        [
          `${SHOP}: configuration`,
          /MANIFEST_SHA256 is c+,/,
          async () =>
            guest.write(conf, (await guest.readText(conf))?.replace('a'.repeat(64), 'c'.repeat(64)) ?? ''),
        ],
        [
          `${SHOP}: units`,
          /nginx\.service\.d/,
          () => guest.remove(`/etc/systemd/system/nginx.service.d/50-port-image-${SHOP}.conf`),
        ],
        [`${SHOP}: folder`, /still holds left over/, () => guest.write('/srv/app/left over', 'x')],
        [`${DUMPS}: units`, /automount is missing/, () => guest.remove(automount)],
        [`${DUMPS}: folder`, /is missing/, () => guest.remove(`/var/lib/shop-dumps/${STUB_NAME}`)],
        ['datasources', /switches cloud-init off/, () => guest.write('/etc/cloud/cloud-init.disabled', '')],
        [
          'firmware',
          /boot sector/,
          () => guest.appliance('dd if=/dev/zero of=/dev/sda bs=440 count=1 conv=notrunc 2>/dev/null'),
        ],
      ];
      const failed = async () =>
        (await checkContract(guest, facts, await contractText(guest, image))).checks.filter((c) => !c.ok);
      expect(await failed()).toEqual([]);
      for (const [, , tamper] of tampers) await tamper();
      const found = await failed();
      expect(found.map((c) => c.name).sort()).toEqual(tampers.map(([name]) => name).sort());
      for (const [name, detail] of tampers)
        expect(found.find((c) => c.name === name)?.detail).toMatch(detail);
    });
  });
});
