import { describe, expect, test } from 'vitest';
import { checksOf, type Expectation } from '../../../stages/verify/checks.ts';
import { diagnose } from '../../../stages/verify/diagnose.ts';
import { firmwareFromTable } from '../../../stages/verify/firmware-of.ts';
import { ReportReader } from '../../../stages/verify/report.ts';
import { unitStates, whyNotRunning } from '../../../stages/verify/services-check.ts';
import { GUEST_NETWORKS } from '../../../tools/metadata/network.ts';

const GOOD: Record<string, string> = {
  system: 'system=running cloud-init-finished=yes data=yes',
  uptime: '61.20 100.00',
  'os-release': 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n',
  'cloud-init-result':
    '{"v1":{"datasource":"DataSourceConfigDrive [net,ver=2][source=/dev/sr0]","errors":[]}}',
  'cloud-init-status': '{"v1":{"init":{"errors":[]},"stage":null}}',
  addresses:
    '[{"ifname":"lo"},{"ifname":"ens3","addr_info":[{"family":"inet","local":"10.0.2.15","prefixlen":24}]}]',
  routes: '[{"dst":"default","gateway":"10.0.2.2","dev":"ens3"}]',
  mounts: '/ /dev/vda1 ext4 rw,relatime\n',
  failed: '',
  units:
    'Id=nginx.service\nLoadState=loaded\nActiveState=active\nSubState=running\nResult=success\nType=forking\n',
  pages: '/ 200 12 aaaa\n',
};
const EXPECT: Expectation = {
  mounts: [],
  dataSets: [],
  services: ['nginx.service'],
  pages: [{ path: '/', sha256: 'aaaa' }],
  network: GUEST_NETWORKS['config-drive'],
  guestAgent: true,
  hardware: { disk: [], nic: [] },
  datasource: 'configdrive',
  dhcp: true,
  gateway: true,
};

function failedChecks(
  changes: Record<string, string>,
  expectation = EXPECT,
  agent: string | undefined = 'answers',
) {
  const reader = new ReportReader('n');
  for (const [k, text] of Object.entries({ ...GOOD, ...changes })) {
    reader.take(JSON.stringify({ n: 'n', k, s: 0, d: Buffer.from(text).toString('base64') }));
  }
  return checksOf(reader, agent, expectation)
    .filter((c) => !c.ok)
    .map((c) => c.name);
}

describe('checks', () => {
  test('a good report passes all', () => {
    expect(failedChecks({})).toEqual([]);
  });

  test.each([
    ['boot', { system: 'system=starting cloud-init-finished=yes data=yes' }],
    ['cloud-init', { 'cloud-init-result': '' }],
    ['cloud-init', { 'cloud-init-result': '{"v1":{"datasource":"DataSourceNone","errors":[]}}' }],
    ['cloud-init', { 'cloud-init-status': '{"v1":{"init":{"errors":["Failed to write"]}}}' }],
    ['network', { addresses: '[{"ifname":"ens3","addr_info":[]}]' }],
    ['network', { routes: '[]' }],
    ['network', { addresses: '{"not":"a list"}' }],
    ['root file system', { mounts: '/ /dev/vda1 ext4 ro\n' }],
    ['no failed units', { failed: 'shop.service loaded failed failed Shop\n' }],
    ['services', { units: 'Id=nginx.service\nLoadState=loaded\nActiveState=failed\nResult=exit-code\n' }],
    ['page /', { pages: '/ 200 12 bbbb\n' }],
  ])('%s fails', (name, change) => {
    expect(failedChecks(change as Record<string, string>)).toEqual([name]);
  });

  test('units for hardware a machine lacks are told, not counted', () => {
    expect(failedChecks({ failed: 'smartmontools.service loaded failed failed SMART\n' })).toEqual([]);
  });

  test('mounts of further disks must be there, whatever they are called', () => {
    const expectation = { ...EXPECT, mounts: ['/srv/old shop', '/mnt/archive'] };
    const both = '/ /dev/vda2 ext4\n/srv/old\\x20shop /dev/vdb1 ext4\n/mnt/archive /dev/vdc1 xfs\n';
    expect(failedChecks({ 'disk-mounts': both }, expectation)).toEqual([]);
    expect(failedChecks({ 'disk-mounts': both.replace('/mnt/archive', '/mnt') }, expectation)).toEqual([
      'mounts of further disks',
    ]);
    expect(failedChecks({}, expectation)).toEqual(['mounts of further disks']);
  });

  test('an agent that stays silent fails', () => {
    const reader = new ReportReader('n');
    expect(checksOf(reader, undefined, EXPECT).find((c) => c.name === 'guest agent')?.ok).toBe(false);
  });
});

describe('units', () => {
  const state = (text: string) => unitStates(text)[0] ?? {};
  test.each([
    ['Id=a.service\nLoadState=loaded\nActiveState=inactive\nResult=success\nType=oneshot', undefined],
    [
      'Id=a.service\nLoadState=loaded\nActiveState=inactive\nResult=success\nType=simple\nConditionResult=no',
      undefined,
    ],
    [
      'Id=a.service\nLoadState=loaded\nActiveState=inactive\nResult=success\nType=simple\nConditionResult=yes\nWantedBy=multi-user.target',
      'was never started',
    ],
    [
      'Id=a.service\nLoadState=loaded\nActiveState=activating\nSubState=auto-restart',
      'restarts over and over',
    ],
    ['Id=a.service\nLoadState=not-found\nActiveState=inactive', undefined],
    ['Id=a.service\nLoadState=loaded\nActiveState=inactive\nResult=exit-code', 'stopped (exit-code)'],
  ])('%s', (text, why) => {
    expect(whyNotRunning(state(text))).toBe(why);
  });
});

describe('diagnosis', () => {
  test.each([
    ['', 'nothing on the serial console', false],
    [
      'Booting from Hard Disk...\nBoot failed\nNo bootable device.  Retrying in 60 seconds.',
      'no boot device',
      true,
    ],
    [
      'Linux version 6.1.0\nKernel panic - not syncing: VFS: Unable to mount root fs on',
      'unable to mount root',
      true,
    ],
    [
      'Linux version 6.1\nALERT!  UUID=x does not exist.  Dropping to a shell!\n(initramfs) ',
      'did not appear',
      true,
    ],
    ['Linux version 6.1\n\u001b[0mYou are in emergency mode. After logging in', 'emergency mode', true],
    ['Linux version 6.1\nGenerating "/run/initramfs/rdsosreport.txt"\ndracut:/# ', 'dracut prompt', true],
    ['Linux version 6.1\nDebian GNU/Linux 12 shop01 ttyS0\n\nshop01 login: ', 'login prompt', false],
    ['BdsDxe: No bootable option or device was found.', 'no UEFI boot loader', true],
    ['grub rescue> ', 'grub rescue', true],
  ])('%j', (text, seen, final) => {
    const found = diagnose(text);
    expect(found.seen).toContain(seen);
    expect(found.final).toBe(final);
  });
});

describe('firmware from the partition table', () => {
  const gpt = (...types: string[]) => {
    const head = Buffer.alloc(34 * 512);
    head.write('EFI PART', 512, 'latin1');
    for (const [i, type] of types.entries()) head.write(type, 1024 + i * 128, 'hex');
    return head;
  };
  test('an ESP means UEFI unless there is a BIOS boot partition', () => {
    expect(firmwareFromTable(gpt('28732ac11ff8d211ba4b00a0c93ec93b'))).toBe('uefi');
    expect(
      firmwareFromTable(gpt('4861682149646f6e744e656564454649', '28732ac11ff8d211ba4b00a0c93ec93b')),
    ).toBe('bios');
    expect(firmwareFromTable(Buffer.alloc(34 * 512))).toBe('bios');
    expect(firmwareFromTable(Buffer.alloc(10))).toBe('bios');
  });
});
