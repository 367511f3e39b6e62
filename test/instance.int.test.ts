/**
 * Boots real instances whose store misbehaves. One machine lives through the whole story: the store is away, then answers
 * with faults, then the power fails half-way through a restore, then all is well. A second one is verified.
 */
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { openstack } from '../drivers/openstack/index.ts';
import { FileStore } from '../drivers/stores/file.ts';
import { verifyImage } from '../stages/verify/verify-image.ts';
import { pointerMeta } from '../tools/config-drive.ts';
import { STUB_NAME } from '../tools/guest-side.ts';
import { probeKvm } from '../tools/kvm.ts';
import { GUEST_NETWORKS } from '../tools/metadata/network.ts';
import { writeMetadataIso } from '../tools/metadata-disk.ts';
import { shortTmpdir, startMachine } from '../tools/qemu-system.ts';
import { cannotMount } from './support/disk-guest.ts';
import { baseImage, instanceDisk, KERNEL_ARGUMENTS, storeSet } from './support/instance-image.ts';
import { Instance } from './support/instance-machine.ts';
import { InstanceStore, type Mode, SIGNATURE } from './support/instance-store.ts';
import { describeTree, LIST, makeOddTree } from './support/odd-tree.ts';
import { requires } from './support/requires.ts';

const missing =
  requires(
    'qemu-system-x86_64',
    'qemu-img',
    'xorriso',
    'mmdebstrap',
    'mke2fs',
    'setpriv',
    'setfacl',
    'setfattr',
  ) ?? cannotMount();
const ADDRESS = `http://${GUEST_NETWORKS.nocloud.store}`;

/** Data sets and who needs them. Each stands for one thing that may go wrong, or one place to find the document. */
const SETS = {
  away: { mode: 'eager', neededBy: ['away.service'] },
  expired: { mode: 'eager', neededBy: ['expired.service'] },
  digest: { mode: 'eager', neededBy: ['digest.service'] },
  full: { mode: 'eager', neededBy: ['full.service'] },
  half: { mode: 'eager', neededBy: ['half.service'] },
  lazy: { mode: 'lazy', neededBy: ['lazy.service'] },
  idle: { mode: 'lazy', neededBy: [] as string[] },
} as const;
type Id = keyof typeof SETS;
const IDS = Object.keys(SETS) as Id[];

/** The data set with everything archives tend to lose; the others are small, for the machine is slow. */
const ODD = 'away';

let dir = '';
let instance: Instance;
let store: InstanceStore;
let files: FileStore;
let base: ReturnType<typeof baseImage>;
const built: Awaited<ReturnType<typeof storeSet>>[] = [];

/** One folder a data set, each with `proof`; one has everything archives tend to lose. */
async function makeSources(source: string): Promise<void> {
  for (const id of IDS) {
    const tree = path.join(source, id);
    if (id === ODD) {
      makeOddTree(source);
      await fs.rename(path.join(source, 'app'), tree);
    } else await fs.mkdir(tree);
    const parts = id === 'half' ? 4 : 1;
    for (let n = 0; n < parts; n++)
      await fs.writeFile(path.join(tree, `part${n}`), randomBytes(id === 'full' ? 6 << 20 : 3 << 19));
    await fs.writeFile(path.join(tree, 'proof'), id);
  }
}

const entry = (id: Id) => ({ url: `${ADDRESS}/${id}/?${SIGNATURE}`, expires: '2100-01-01T00:00:00Z' });
const provision = (...ids: Id[]) => ({
  version: 1 as const,
  data: Object.fromEntries(ids.map((id) => [id, entry(id)])),
});

/** A small file system of its own at /srv/full, filled by something else. */
async function fullFileSystem(root: string): Promise<void> {
  const tree = path.join(dir, 'full.tree');
  await fs.cp(path.join(root, 'srv/full'), tree, { recursive: true });
  await fs.rm(path.join(root, 'srv/full', STUB_NAME));
  await fs.writeFile(path.join(tree, 'filler'), randomBytes(14 << 20));
  execFileSync('mke2fs', [
    '-q',
    '-F',
    '-t',
    'ext4',
    '-m',
    '0',
    '-d',
    tree,
    path.join(root, 'var/full.img'),
    '24M',
  ]);
  await fs.appendFile(path.join(root, 'etc/fstab'), '/var/full.img /srv/full ext4 loop 0 0\n');
  // The image's own default is the last resort.
  await fs.mkdir(path.join(root, 'etc/port-image'));
  await fs.writeFile(path.join(root, 'etc/port-image/provision.json'), JSON.stringify(provision('idle')));
}

beforeAll(async () => {
  if (missing !== undefined) return;
  base = baseImage();
  dir = await fs.mkdtemp(path.join(shortTmpdir(), 'instance-'));
  const source = path.join(dir, 'source');
  await fs.mkdir(source);
  await makeSources(source);
  files = new FileStore(path.join(dir, 'store'));
  for (const id of IDS)
    built.push(await storeSet(files, source, id, { ...SETS[id], neededBy: [...SETS[id].neededBy] }));
  await fs.mkdir(path.join(dir, 'store/documents'));
  await fs.writeFile(
    path.join(dir, 'store/documents/pointed.json'),
    JSON.stringify({ ...provision('lazy'), prefetch: ['nothing-of-ours', 'idle'] }),
  );
});

afterAll(async () => {
  await instance?.machine.stop();
  await store?.close();
  if (dir !== '') await fs.rm(dir, { recursive: true, force: true });
});

const disk = (name: string) => path.join(dir, `${name}.raw`);
const kernel = () => ({ kernel: base.kernel, initrd: base.initrd, append: KERNEL_ARGUMENTS });

async function bootWithFaults(): Promise<void> {
  await instanceDisk(base, disk('faults'), built, fullFileSystem);
  const userData = `#cloud-config\n${JSON.stringify({
    // One key is enough; four take half a minute here.
    ssh_genkeytypes: ['ed25519'],
    write_files: [
      {
        path: '/run/port-image/provision.json',
        permissions: '0600',
        owner: 'root:root',
        content: JSON.stringify(provision('full', 'half')),
      },
    ],
  })}\n`;
  const seed = path.join(dir, 'seed.iso');
  await writeMetadataIso(seed, 'config-drive', {
    instanceId: '5b1e9f3a-0000-4000-8000-00000000000a',
    hostname: 'faults',
    networkData: {
      links: [{ id: 'port0', type: 'phy', ethernet_mac_address: '52:54:00:12:34:56', mtu: 1500 }],
      networks: [{ id: 'network0', type: 'ipv4_dhcp', link: 'port0', network_id: 'x' }],
      services: [],
    },
    vendorData: { port_image: provision('away', 'expired') },
    staticVendorData: { port_image: provision('digest') },
    userData,
    meta: pointerMeta(`${ADDRESS}/documents/pointed.json?${SIGNATURE}&padding=${'x'.repeat(300)}`),
  });
  store = new InstanceStore(path.join(dir, 'store'), path.join(dir, 'socket'));
  const consoleLog = path.join(dir, 'console.log');
  const machine = await startMachine({
    image: { path: disk('faults'), format: 'raw' },
    diskBytes: 2 * 2 ** 30,
    firmware: 'bios',
    boot: openstack.boot,
    accelerator: (await probeKvm()).usable ? 'kvm' : 'tcg',
    seed,
    storeSocket: path.join(dir, 'socket'),
    consoleLog,
    onReportLine: () => {},
    directKernel: kernel(),
    scratch: dir,
  });
  instance = new Instance(machine, consoleLog);
  await instance.ready();
}

/** State of each data set as the client tells it. */
async function states(): Promise<Record<string, string>> {
  const status = JSON.parse(await instance.ask('port-image-data status --json')) as {
    sets: { id: string; state: string }[];
  };
  return Object.fromEntries(status.sets.map((s) => [s.id, s.state]));
}

/** Nothing but the note: neither data nor anything of an unfinished restore can be seen at the path. */
async function expectUntouched(id: Id): Promise<void> {
  const own = id === 'full' ? `.port-image-data.full lost+found filler` : '';
  const names = (await instance.ask(`ls -A /srv/${id}`)).split('\n');
  expect(names.filter((name) => name !== STUB_NAME && !own.split(' ').includes(name))).toEqual([]);
}

const fetchUnit = (id: Id) => `port-image-data@${id}.service`;

describe.skipIf(missing)('an instance whose store misbehaves', () => {
  test('store away: it boots, ssh answers, services stay down and the reason is told', async () => {
    await bootWithFaults();
    await instance.until('multi-user.target', 'systemctl is-active --quiet multi-user.target');
    expect(await instance.state('ssh.service')).toBe('active');
    expect(await instance.ask("bash -c 'exec 3<>/dev/tcp/127.0.0.1/22; head -n 1 <&3'")).toMatch(
      /^SSH-2\.0-/,
    );
    await instance.until(
      'the first attempt has been given up',
      `journalctl -b -u '${fetchUnit('away')}' -o cat | grep -q 'Scheduled restart'`,
    );
    for (const id of IDS.filter((i) => SETS[i].mode === 'eager')) {
      expect([id, await instance.state(`${id}.service`)]).toEqual([id, 'inactive']);
      expect(await instance.journal(`${id}.service`)).toMatch(/Dependency failed|dependency/);
      await expectUntouched(id);
    }
    expect(await instance.journal(fetchUnit('away'))).toMatch(
      /\/srv\/away: the store cannot be reached \(curl error \d+\)/,
    );
    const console = await instance.console();
    expect(console).toMatch(/port-image-data.*\/srv\/away: the store cannot be reached/);
    // Documents were found, in their order, before the store was looked for.
    expect(await instance.ask('stat -c %a:%U /run/port-image/provision.json')).toBe('600:root');
    expect(await instance.journal(fetchUnit('half'))).toContain('the store cannot be reached');
    expect(await instance.ask('journalctl -b --no-pager -o cat')).not.toMatch(/ordering cycle|temp_url_sig/);
    expect(await instance.ask('cat /run/cloud-init/result.json')).toMatch(/ConfigDrive[\s\S]*"errors": \[\]/);
    expect(await instance.ask('journalctl -b --no-pager -o cat; cat /var/log/cloud-init.log')).not.toMatch(
      /Invalid (cloud-config|schema)|schema (errors|warnings)/i,
    );
  });

  test('store back: what is well arrives and its services start; each fault stays with its data set', async () => {
    const third = built.find((s) => s.id === 'half')?.segments ?? 0;
    expect(third).toBeGreaterThan(3);
    store.mode = (key): Mode => {
      if (key.startsWith('expired/')) return 'refuse';
      if (/^digest\/segments\//.test(key)) return 'corrupt';
      if (key === 'half/segments/000003.tar.zst') return 'stall';
      return 'serve';
    };
    await store.open();
    await instance.until('away is restored', 'systemctl is-active --quiet away.service');
    await instance.until('lazy is mounted on access', 'cat /srv/lazy/proof');
    expect(await instance.ask('findmnt -n -o FSTYPE /srv/lazy | tail -n 1')).toBe('ext4');
    await instance.until('its service was started', 'systemctl is-active --quiet lazy.service');
    const told = {
      expired: 'expired or revoked',
      digest: 'wrong digest',
      full: 'no space left for the data',
    };
    for (const [id, words] of Object.entries(told))
      await instance.until(
        `${id} has failed`,
        `journalctl -b -u '${fetchUnit(id as Id)}' -o cat | grep -q '${words}'`,
      );
    await expect
      .poll(() => store.requests.includes('GET half/segments/000003.tar.zst'), { timeout: 60_000 })
      .toBe(true);
    // Those that are tried again are at it now and then; a wrong digest rests.
    const now = await states();
    expect(now).toMatchObject({ away: 'done', lazy: 'done', digest: 'failed' });
    for (const id of ['expired', 'full', 'half']) expect([id, now[id]]).not.toEqual([id, 'done']);
    expect(await instance.journal(fetchUnit('expired'))).toMatch(
      /refuses the URL \(401\): it is expired or revoked/,
    );
    expect(await instance.journal(fetchUnit('digest'))).toMatch(/has the wrong digest/);
    expect(await instance.journal(fetchUnit('full'))).toMatch(
      /no space left for the data: about \d+ KiB are needed, \d+ KiB are free/,
    );
    const console = await instance.console();
    for (const words of ['expired or revoked', 'has the wrong digest', 'no space left for the data'])
      expect(console).toContain(words);
    for (const id of ['expired', 'digest', 'full', 'half'] as const) {
      expect([id, await instance.state(`${id}.service`)]).not.toEqual([id, 'active']);
      await expectUntouched(id);
    }
    // A wrong digest is not asked for again; everything else is.
    await instance.until('the unit rests', `systemctl is-failed --quiet '${fetchUnit('digest')}'`);
    expect(console).not.toContain('temp_url_sig');
  });

  test('each fault heals without a boot', async () => {
    store.mode = (key): Mode => (key === 'half/segments/000003.tar.zst' ? 'stall' : 'serve');
    await instance.run(`rm /srv/full/filler; systemctl start --no-block '${fetchUnit('digest')}'`);
    for (const id of ['expired', 'digest', 'full'])
      await instance.until(`${id}.service runs`, `systemctl is-active --quiet ${id}.service`);
    const now = await states();
    expect(now).toMatchObject({ expired: 'done', digest: 'done', full: 'done' });
    expect(now.half).not.toBe('done');
  });

  test('power lost half-way through a restore: it goes on where it was', async () => {
    await expectUntouched('half');
    store.requests.length = 0;
    store.mode = () => 'serve';
    await instance.powerLoss();
    await instance.until('half.service runs', 'systemctl is-active --quiet half.service');
    const again = store.requests.filter((r) => r.startsWith('GET half/'));
    expect(again).not.toContain('GET half/segments/000001.tar.zst');
    expect(again).toContain('GET half/segments/000003.tar.zst');
    expect(store.requests.some((r) => /^GET (away|expired|digest|full)\//.test(r))).toBe(false);
    await instance.until('multi-user.target', 'systemctl is-active --quiet multi-user.target');
  });

  test('in the end everything is there, equal in every property, prefetched what was named', async () => {
    await instance.until(
      'idle was prefetched',
      `[ "$(systemctl show --value -p Result port-image-prefetch.service)" = success ] && port-image-data status | grep -q '^done.*idle '`,
    );
    expect(await instance.state('srv-idle.mount')).toBe('inactive');
    expect(await instance.ask('cat /srv/idle/proof')).toBe('idle');
    for (const id of IDS) expect([id, (await states())[id]]).toEqual([id, 'done']);
    expect(await instance.ask(`set -- /srv/${ODD}\n${LIST}`)).toBe(
      describeTree(path.join(dir, 'source', ODD)).trimEnd(),
    );
    const sums = (root: string) => `cd ${root} && sha256sum part* proof`;
    for (const id of ['expired', 'digest', 'full', 'half', 'lazy', 'idle'])
      expect(await instance.ask(sums(`/srv/${id}`))).toBe(
        execFileSync('sh', ['-c', sums(path.join(dir, 'source', id))], { encoding: 'utf8' }).trimEnd(),
      );
    expect(await instance.ask('ls -d /srv/.port-image-data.* /srv/*/.port-image-data.* 2>/dev/null')).toBe(
      '/srv/.port-image-data.idle\n/srv/.port-image-data.lazy',
    );
    expect(await instance.ask('ls /var/lib/port-image/provision.json 2>&1')).toContain('No such file');
    const journal = await instance.ask('journalctl --no-pager -o cat');
    expect(journal).not.toMatch(/ordering cycle|temp_url_sig/);
    await instance.machine.stop();
  });
});

test.skipIf(missing)(
  'the verification boot tells when each service was up and which lazy sets were used',
  async () => {
    const ids = ['away', 'lazy', 'idle'] as const;
    await instanceDisk(
      base,
      disk('verified'),
      built.filter((s) => (ids as readonly string[]).includes(s.id)),
      async () => {},
    );
    const result = await verifyImage({
      image: disk('verified'),
      format: 'raw',
      platform: openstack,
      firmware: 'bios',
      logs: path.join(dir, 'logs'),
      scratch: dir,
      store: files,
      dataSets: ids.map((id) => ({
        id,
        path: `/srv/${id}`,
        mode: SETS[id].mode,
        neededBy: SETS[id].neededBy,
      })),
      services: ['ssh.service'],
      directKernel: kernel(),
    });
    expect(result.checks.filter((c) => !c.ok)).toEqual([]);
    expect(result.timeToService?.map((t) => [t.unit, t.mode, t.dataSet]).sort()).toEqual([
      ['away.service', 'eager', 'away'],
      ['lazy.service', 'lazy', 'lazy'],
    ]);
    expect(result.timeToService?.every((t) => t.seconds > 0 && t.seconds < result.seconds + 5)).toBe(true);
    expect(result.lazyAccess?.map((a) => a.id)).toEqual(['lazy']);
    const written = JSON.parse(await fs.readFile(path.join(dir, 'logs/verify-openstack.json'), 'utf8'));
    expect(written).toMatchObject({ timeToService: result.timeToService, lazyAccess: result.lazyAccess });
  },
);
