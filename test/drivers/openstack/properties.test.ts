import { expect, test } from 'vitest';
import { openstack } from '../../../drivers/openstack/index.ts';
import {
  DISTRIBUTIONS,
  imageProperties,
  isManaged,
  isPortable,
  LEGAL,
  type PropertyInput,
} from '../../../drivers/openstack/properties.ts';
import { patchFor } from '../../../drivers/openstack/upload/publish.ts';

const GIB = 2 ** 30;

function input(
  change: { os?: object; facts?: object; contract?: object; input?: object } = {},
): PropertyInput {
  return {
    facts: {
      os: { type: 'linux', distro: 'debian', version: '12', arch: 'x86_64', ...change.os },
      firmware: 'bios',
      packages: [],
      ...change.facts,
    },
    contract: {
      image: { id: 'shop-1', name: 'shop', version: '1', source: 'p2v' },
      facts: { drivers: ['virtio_blk', 'virtio_scsi'], networkDrivers: ['virtio_net'], firmware: ['bios'] },
      needs: { minDiskGiB: 8, minRamMiB: 512, configDrive: 'mandatory', egress: [] },
      data: [],
      ...change.contract,
    },
    boot: openstack.boot,
    agentAdded: true,
    contractSha256: 'c'.repeat(64),
    virtualBytes: 8 * GIB,
    verified: true,
    jobId: 'job',
    ...change.input,
  } as unknown as PropertyInput;
}

const of = (change?: Parameters<typeof input>[0]) => imageProperties(input(change)).properties;

test('a usual server', () => {
  expect(imageProperties(input())).toEqual({
    minDisk: 8,
    minRam: 512,
    properties: {
      architecture: 'x86_64',
      os_type: 'linux',
      os_distro: 'debian',
      os_version: '12',
      hw_firmware_type: 'bios',
      hw_disk_bus: 'virtio',
      hw_vif_model: 'virtio',
      hw_qemu_guest_agent: 'yes',
      hw_video_model: 'vga',
      img_config_drive: 'mandatory',
      port_image_id: 'shop-1',
      port_image_version: '1',
      port_image_source: 'p2v',
      port_image_contract: 'c'.repeat(64),
      port_image_verified: 'yes',
      port_image_job: 'job',
    },
  });
});

test.each(Object.entries(DISTRIBUTIONS))('os-release ID %s is %s', (id, distro) => {
  expect(of({ os: { distro: id } }).os_distro).toBe(distro);
  expect(of({ os: { distro: id.toUpperCase() } }).os_distro).toBe(distro);
});

test.each(['', 'evil', 'debian\nx', '__proto__', 'constructor', 'toString', 'a'.repeat(5000)])(
  'a distribution nobody knows is left out: %j',
  (distro) => {
    expect(of({ os: { distro } })).not.toHaveProperty('os_distro');
  },
);

test.each(['', '12\n13', '$(id)', '../..', '1'.repeat(40), 'sid/x', '\u202e12'])(
  'a version that is none is left out: %j',
  (version) => {
    expect(of({ os: { version } })).not.toHaveProperty('os_version');
  },
);

test.each(['12', '24.04', '9.5', '15-SP6', '20240101'])('version %s', (version) => {
  expect(of({ os: { version } }).os_version).toBe(version);
});

test.each([
  ['amd64', 'x86_64'],
  ['x86_64', 'x86_64'],
  ['i386', 'i686'],
  ['arm64', 'aarch64'],
  ['armhf', 'armv7l'],
  ['ppc64el', 'ppc64le'],
  ['s390x', 's390x'],
  ['vax', undefined],
])('architecture %s is %s', (arch, wanted) => {
  expect(of({ os: { arch } }).architecture).toBe(wanted);
});

test('UEFI names q35 and claims no secure boot', () => {
  const properties = of({ facts: { firmware: 'uefi' } });
  expect(properties).toMatchObject({ hw_firmware_type: 'uefi', hw_machine_type: 'q35' });
  expect(properties).not.toHaveProperty('os_secure_boot');
});

test('buses follow the drivers of the image', () => {
  const drivers = (list: string[], networkDrivers?: string[]) =>
    of({ contract: { facts: { drivers: list, networkDrivers } } });
  expect(drivers(['virtio_scsi', 'virtio_net'])).toMatchObject({
    hw_disk_bus: 'scsi',
    hw_scsi_model: 'virtio-scsi',
    hw_vif_model: 'virtio',
  });
  expect(drivers(['ahci'], ['e1000'])).toMatchObject({ hw_disk_bus: 'sata', hw_vif_model: 'e1000' });
  const none = drivers([]);
  expect(none).not.toHaveProperty('hw_disk_bus');
  expect(none).not.toHaveProperty('hw_vif_model');
});

test('the guest agent is claimed only when it is there', () => {
  expect(of({ input: { agentAdded: false } })).not.toHaveProperty('hw_qemu_guest_agent');
  const packages = [{ name: 'qemu-guest-agent', version: '1', architecture: 'amd64' }];
  expect(of({ input: { agentAdded: false }, facts: { packages } }).hw_qemu_guest_agent).toBe('yes');
});

test('data sets are named while they fit into one property', () => {
  const named = (...ids: string[]) => of({ contract: { data: ids.map((id) => ({ id })) } }).port_image_data;
  expect(named()).toBeUndefined();
  expect(named('uploads', 'mail')).toBe('uploads,mail');
  expect(named('a'.repeat(127), 'b'.repeat(127))).toHaveLength(255);
  expect(named('a'.repeat(128), 'b'.repeat(127))).toBeUndefined();
});

test.each([
  ['hw_disk_bus', true],
  ['os_distro', true],
  ['architecture', true],
  ['img_config_drive', true],
  ['os_hash_value', false],
  ['os_hidden', false],
  ['os_glance_failed_import', false],
  ['stores', false],
  ['locations', false],
  ['owner_specified.openstack.md5', false],
  ['img_signature', false],
  ['port_image_id', false],
  ['__proto__', false],
])('%s travels with a copy: %s', (key, is) => {
  expect(isPortable(key)).toBe(is);
});

test('config drive and verification', () => {
  const needs = (configDrive: string) => of({ contract: { needs: { configDrive, minRamMiB: 1 } } });
  expect(needs('optional').img_config_drive).toBe('optional');
  expect(needs('none')).not.toHaveProperty('img_config_drive');
  expect(of({ input: { verified: false } }).port_image_verified).toBe('no');
  expect(of({ input: { verified: undefined } }).port_image_verified).toBe('no');
});

test.each([
  [1, 1],
  [GIB, 1],
  [GIB + 1, 2],
  [10.5 * GIB, 11],
])('%d bytes need %d GiB', (virtualBytes, minDisk) => {
  expect(imageProperties(input({ input: { virtualBytes } })).minDisk).toBe(minDisk);
});

test('values outside of the legal sets never get through', () => {
  const properties = of({ os: { type: 'hurd' }, facts: { firmware: 'coreboot' } });
  expect(properties).not.toHaveProperty('os_type');
  expect(properties).not.toHaveProperty('hw_firmware_type');
  for (const [key, value] of Object.entries(of())) {
    if (LEGAL[key] !== undefined) expect(LEGAL[key]).toContain(value);
  }
});

test('a patch changes what differs and removes only what is ours', () => {
  const image = {
    id: 'x',
    status: 'active',
    visibility: 'private',
    protected: false,
    os_hidden: false,
    updated_at: '',
    created_at: '',
    min_disk: 0,
    hw_disk_bus: 'ide',
    hw_scsi_model: 'virtio-scsi',
    port_image_old: 'x',
    their_own: 'stays',
    os_glance_failed_import: '',
    os_type: 'linux',
  };
  const operations = patchFor(image, { hw_disk_bus: 'virtio', os_type: 'linux' }, { min_disk: 2 });
  expect(operations).toEqual([
    { op: 'add', path: '/min_disk', value: 2 },
    { op: 'add', path: '/hw_disk_bus', value: 'virtio' },
    { op: 'remove', path: '/hw_scsi_model' },
    { op: 'remove', path: '/port_image_old' },
  ]);
  expect(isManaged('os_glance_failed_import')).toBe(false);
  expect(isManaged('hw_rng_model')).toBe(false);
});
