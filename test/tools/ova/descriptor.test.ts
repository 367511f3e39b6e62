import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { GIB, MIB } from '../../../core/sizes.ts';
import { platforms } from '../../../drivers/registry.ts';
import { HARDWARE_VERSION, type OvaMachine, ovfDescriptor } from '../../../tools/ova/descriptor.ts';
import { guestOsOf } from '../../../tools/ova/guest-os.ts';
import { parseOvf } from '../../../tools/packed/ovf.ts';
import { parseXml } from '../../../tools/packed/xml.ts';

function machine(more: Partial<OvaMachine> = {}): OvaMachine {
  return {
    name: 'web',
    os: { ...guestOsOf({ distro: 'debian', version: '12.5' }), title: 'Debian GNU/Linux 12' },
    firmware: 'bios',
    cpus: 2,
    memoryBytes: 2 * GIB,
    disks: [{ file: 'web-disk1.vmdk', fileBytes: 1000, virtualBytes: 10 * GIB, populatedBytes: 3 * GIB }],
    ...more,
  };
}

const read = (m: OvaMachine) => {
  const warnings: string[] = [];
  const facts = parseOvf('web.ovf', Buffer.from(ovfDescriptor(m)), (text) => warnings.push(text));
  return { ...facts, warnings };
};

describe('ovfDescriptor', () => {
  test('what is written is what a reader of packages finds', () => {
    for (const firmware of ['bios', 'uefi'] as const) {
      const found = read(machine({ firmware, cpus: 5, memoryBytes: 1025 * MIB }));
      expect(found.warnings).toEqual([]);
      expect(found.machine).toMatchObject({
        name: 'web',
        firmware,
        cpus: 5,
        // whole multiples of 4 MiB
        memoryBytes: 1028 * MIB,
        guestOsId: 'debian10_64Guest',
        nics: [{ model: 'VmxNet3', network: 'VM Network' }],
      });
      expect(found.disks).toMatchObject([
        { href: 'web-disk1.vmdk', fileBytes: 1000, capacityBytes: 10 * GIB, bus: 'scsi', format: 'vmdk' },
      ]);
    }
  });

  test('any name or title: well-formed XML that says the same', () => {
    const hostile = fc.oneof(
      fc.string({ unit: 'binary', minLength: 1, maxLength: 60 }),
      fc.constantFrom(
        'a"/><Evil x="',
        '</Name><Item/>',
        '&lt;&#0;',
        ']]>',
        '<!--',
        '\u0000\u001b[2J',
        '\ud800',
        '\ufffe',
      ),
    );
    fc.assert(
      fc.property(hostile, hostile, (name, title) => {
        const data = Buffer.from(ovfDescriptor(machine({ name, os: { cimId: 96, vmwareId: 'x', title } })));
        const text = data.toString('utf8');
        // nothing XML 1.0 forbids, and exactly the elements of a harmless name
        expect(/[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\u{10000}-\u{10ffff}]/u.test(text)).toBe(false);
        const tags = (xml: string) => xml.match(/<[/A-Za-z?!][^\s>]*/g)?.join(' ');
        expect(tags(text)).toBe(tags(ovfDescriptor(machine())));
        expect(() => parseXml('web.ovf', data)).not.toThrow();
      }),
    );
  });

  test('sixteen disks need a second controller; the address of the controller itself stays free', () => {
    const disks = Array.from({ length: 17 }, (_, n) => ({
      file: `d${n}.vmdk`,
      fileBytes: 1,
      virtualBytes: GIB,
      populatedBytes: 0,
    }));
    const found = read(machine({ disks })).disks;
    expect(found).toHaveLength(17);
    const places = found.map((d) => `${d.controller}:${d.unit}`);
    expect(new Set(places).size).toBe(17);
    expect(places).not.toContain('0:7');
    expect(places.slice(-2)).toEqual(['1:0', '1:1']);
  });

  test('the hardware version is that of the row of vmware', () => {
    const row = platforms.find((p) => p.name === 'vmware');
    expect(row?.image.formatOptions?.hwversion).toBe(String(HARDWARE_VERSION));
    expect(ovfDescriptor(machine())).toContain(`vmx-${HARDWARE_VERSION}<`);
  });
});

test.each([
  ['debian', '12.5', 'debian10_64Guest', 96],
  ['debian', '9', 'debian9_64Guest', 96],
  ['debian', 'trixie/sid', 'other3xLinux64Guest', 101],
  ['ubuntu', '24.04', 'ubuntu64Guest', 94],
  ['rocky', '9.4', 'rhel7_64Guest', 80],
  ['alpine', '3.21', 'other3xLinux64Guest', 101],
  ['', '', 'other3xLinux64Guest', 101],
])('guest id of %s %s', (distro, version, vmwareId, cimId) => {
  expect(guestOsOf({ distro, version })).toEqual({ vmwareId, cimId });
});
