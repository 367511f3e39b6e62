import { describe, expect, test } from 'vitest';
import type { PortError } from '../../../core/errors.ts';
import { parseProbe } from '../../../stages/inspect/probe.ts';
import { chooseRoot } from '../../../stages/inspect/root.ts';
import { PROBE } from '../../../stages/inspect/scripts.ts';
import { WINDOWS_SIGNS } from '../../../stages/inspect/windows.ts';

const b64 = (text: string) => Buffer.from(text).toString('base64');

/** Two NTFS partitions as a Windows has them, each with these names. */
function probe(first: readonly string[], second: readonly string[], bitlocker = false) {
  const names = (device: string, signs: readonly string[]) => [
    `space\t${device}\t4096 512 100 50`,
    ...signs.map((sign) => `has\t${device}\t${sign}\t`),
  ];
  const second_ = bitlocker ? 'BitLocker' : 'ntfs';
  const blkid = `DEVNAME=/dev/sdb1\nTYPE=ntfs\n\nDEVNAME=/dev/sdb2\nTYPE=${second_}\n`;
  return parseProbe(
    [
      'disk\tsdb\t',
      'block\tsdb\t8:16\t20480\t-\t-\t',
      'block\tsdb1\t8:17\t4096\t2048\t1\t',
      'block\tsdb2\t8:18\t4096\t8192\t2\t',
      `blkid\t${b64(blkid)}`,
      ...names('/dev/sdb1', first),
      ...(bitlocker ? [] : names('/dev/sdb2', second)),
    ].join('\n'),
  );
}

function refusal(found: ReturnType<typeof probe>, targets: readonly string[] = [], root?: string): PortError {
  try {
    chooseRoot(found, root, targets);
  } catch (error) {
    return error as PortError;
  }
  throw new Error('not refused');
}

describe('Windows', () => {
  test.each(['Windows/System32', 'WINDOWS/system32', 'WINNT/system32'])('is told by %s', (sign) => {
    expect(refusal(probe(['bootmgr'], [sign]))).toMatchObject({
      code: 'UNSUPPORTED_OS',
      message: '/dev/sda2 holds Windows, which port-image does not convert',
    });
  });

  test('every sign is looked for', () => {
    for (const sign of WINDOWS_SIGNS) expect(PROBE).toContain(` ${sign} `);
  });

  test('what to do depends on where it is to go', () => {
    const found = probe(['bootmgr'], ['Windows/System32']);
    const kvm = refusal(found, ['qemu', 'openstack']);
    expect(kvm.hint).toMatch(/virt-v2v with virtio-win.*docs\/windows\.md/);
    expect(kvm.hint).not.toContain('importer');
    expect(refusal(found, ['qemu', 'aws', 'vmware']).hint).toMatch(/for aws, vmware use the importer/);
  });

  test('is refused also when --root names it', () => {
    const found = probe(['bootmgr'], ['Windows/System32']);
    expect(refusal(found, [], '/dev/sda2').code).toBe('UNSUPPORTED_OS');
    expect(refusal(found, [], '/dev/sda1').code).toBe('NO_OS');
  });

  test('boot files without a system say so; an encrypted system volume is named first', () => {
    expect(refusal(probe(['EFI/Microsoft/Boot/bootmgfw.efi'], []))).toMatchObject({
      code: 'UNSUPPORTED_OS',
      message: expect.stringContaining('boot files of Windows'),
    });
    expect(refusal(probe(['bootmgr'], [], true)).code).toBe('ENCRYPTED');
  });
});
