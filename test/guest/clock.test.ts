import { execFile } from 'node:child_process';
import * as fs from 'node:fs/promises';
import * as os from 'node:os';
import * as path from 'node:path';
import { promisify } from 'node:util';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { platforms } from '../../drivers/registry.ts';
import { clockTable } from '../../stages/cloud-init/clocks.ts';

const SCRIPT = path.resolve(import.meta.dirname, '../../guest/port-image-clock');
const OUT = 'etc/chrony/port-image.d/clock.conf';
let root: string;

beforeEach(async () => {
  root = await fs.mkdtemp(path.join(os.tmpdir(), 'clock-'));
  await put('usr/lib/port-image/clocks', clockTable(platforms));
  await fs.mkdir(path.join(root, 'etc/chrony/port-image.d'), { recursive: true });
});
afterEach(() => fs.rm(root, { recursive: true, force: true }));

async function put(name: string, text: string): Promise<void> {
  await fs.mkdir(path.dirname(path.join(root, name)), { recursive: true });
  await fs.writeFile(path.join(root, name), text);
}
async function clock(number: number, name: string): Promise<void> {
  await put(`sys/class/ptp/ptp${number}/clock_name`, `${name}\n`);
  await put(`dev/ptp${number}`, '');
}
/** What the script leaves for chronyd; it may never fail. */
async function run(shell = 'sh'): Promise<string | undefined> {
  const { stderr } = await promisify(execFile)(shell, [SCRIPT, root]);
  expect(stderr).toBe('');
  return fs.readFile(path.join(root, OUT), 'utf8').catch(() => undefined);
}
/** DMI as the verification boot of a platform shows it. */
async function showDmi(name: string): Promise<void> {
  const smbios = platforms.find((p) => p.name === name)?.boot.smbios ?? {};
  const files = {
    sys_vendor: smbios.system?.manufacturer,
    product_name: smbios.system?.product,
    product_uuid: smbios.system?.uuid,
    chassis_asset_tag: smbios.chassis?.asset,
  };
  for (const [file, value] of Object.entries(files))
    if (value !== undefined) await put(`sys/class/dmi/id/${file}`, `${value}\n`);
}

const HYPERV = 'refclock PHC /dev/ptp1 poll 3 dpoll -2 offset 0 stratum 2\n';
const KVM = 'refclock PHC /dev/ptp0 poll 2 dpoll -2 offset 0 stratum 2\n';
const EXPECTED: Readonly<Record<string, string | undefined>> = {
  openstack: KVM,
  qemu: KVM,
  azure: HYPERV,
  hyperv: HYPERV,
  aws: 'server 169.254.169.123 prefer iburst minpoll 4 maxpoll 4\n',
  gcp: 'server metadata.google.internal prefer iburst\n',
  oci: 'server 169.254.169.254 iburst\n',
  vmware: undefined,
  xen: undefined,
  alibaba: undefined,
};

describe('the clock of the platform the machine is on', () => {
  test.each(platforms.map((p) => p.name))('%s', async (name) => {
    await showDmi(name);
    await clock(0, 'KVM virtual PTP');
    await clock(1, 'hyperv');
    expect(Object.keys(EXPECTED)).toContain(name);
    expect(await run()).toBe(EXPECTED[name]);
  });

  test('a clock that is not there is not named: chronyd would end', async () => {
    await showDmi('azure');
    expect(await run()).toBeUndefined();
    await put('sys/class/ptp/ptp0/clock_name', 'hyperv\n');
    expect(await run(), 'no device').toBeUndefined();
    await clock(1, 'KVM virtual PTP');
    expect(await run(), 'another clock').toBeUndefined();
  });

  test('older EC2 is Xen with a telling UUID', async () => {
    await showDmi('xen');
    await put('sys/class/dmi/id/product_uuid', 'EC2F0B5E-6D2F-4C8A-9D5B-3C1F2A7E9B04\n');
    expect(await run()).toBe(EXPECTED.aws);
  });

  test('what was written on one platform goes on the next; unknown hardware has none', async () => {
    await showDmi('gcp');
    expect(await run()).toBe(EXPECTED.gcp);
    expect(await run()).toBe(EXPECTED.gcp);
    await fs.rm(path.join(root, 'sys'), { recursive: true });
    await put('sys/class/dmi/id/sys_vendor', 'Dell Inc.\n');
    expect(await run()).toBeUndefined();
    await fs.rm(path.join(root, 'sys'), { recursive: true });
    expect(await run()).toBeUndefined();
  });

  test('hostile DMI strings are only compared', async () => {
    for (const evil of ['$(touch pwned)', '`id`', "'; rm -rf /; '", '*', '-n', 'x'.repeat(5000)]) {
      await put('sys/class/dmi/id/product_name', `${evil}\n`);
      await put('sys/class/dmi/id/chassis_asset_tag', `${evil}\n`);
      expect(await run()).toBeUndefined();
    }
  });
});
