/** Configuration of dracut, mkinitcpio and mkinitfs: what bash reads from our text is what we meant. */
import { execFileSync } from 'node:child_process';
import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { dracutConf, withoutOmitted } from '../../tools/dracut.ts';
import { editMkinitcpio } from '../../tools/mkinitcpio.ts';
import { editMkinitfsConf, featureFile } from '../../tools/mkinitfs.ts';

const bash = (text: string, show: string) =>
  execFileSync('bash', ['-c', `${text}\n${show}`], { encoding: 'utf8' });
const moduleName = fc.stringMatching(/^[a-z][a-z0-9_-]{0,14}$/);

describe('dracut.conf', () => {
  test('values join with those of other files', () => {
    const conf = dracutConf(['nvme', 'xen_blkfront'], ['rd.lvm.vg=shop-vg']);
    expect(
      bash(
        `add_drivers+=" mine "\nhostonly=yes\n${conf}add_drivers+=" later "`,
        'printf "%s|%s|%s|%s" "$hostonly" "$hostonly_cmdline" "$add_drivers" "$kernel_cmdline"',
      ),
    ).toBe('no|no| mine  nvme xen_blkfront  later | rd.lvm.vg=shop-vg ');
  });
  test('words that bash would run are left out', () => {
    expect(dracutConf(['nvme', '$(reboot)', 'a"b', '`x`'], ['rd.lvm.vg=a b'])).toContain(
      'add_drivers+=" nvme "',
    );
    expect(dracutConf([], ['rd.lvm.vg=$(x)'])).not.toContain('$(');
  });
  test('omitted drivers: ours go, others stay, twice is once', () => {
    const text =
      '# mine\nomit_drivers+=" nouveau nvme-core "\nomit_drivers="xen_blkfront"\nadd_drivers+=" nvme_core "\n';
    const after = withoutOmitted(text, ['nvme_core', 'xen_blkfront']);
    expect(after).toBe('# mine\nomit_drivers+=" nouveau "\nomit_drivers=""\nadd_drivers+=" nvme_core "\n');
    expect(withoutOmitted(after, ['nvme_core', 'xen_blkfront'])).toBe(after);
    fc.assert(
      fc.property(fc.array(moduleName), fc.array(moduleName), (omitted, wanted) => {
        const before = `x=1\nomit_drivers+=" ${omitted.join(' ')} "\n`;
        const once = withoutOmitted(before, wanted);
        expect(withoutOmitted(once, wanted)).toBe(once);
        const words = bash(once, 'printf "%s" "$omit_drivers"').split(/\s+/).filter(Boolean);
        const fold = (s: string) => s.replaceAll('-', '_');
        expect(words).toEqual(omitted.filter((o) => !wanted.map(fold).includes(fold(o))));
      }),
      { numRuns: 25 },
    );
  });
});

describe('mkinitcpio.conf', () => {
  const STOCK =
    '# MODULES=(old)\nMODULES=()\nBINARIES=()\nHOOKS=(base udev autodetect microcode modconf\n  block filesystems fsck)\n#COMPRESSION="zstd"\n';
  test('modules added, autodetect gone, comments stay', () => {
    const { text, opaque } = editMkinitcpio(STOCK, ['nvme', 'virtio_blk']);
    expect(opaque).toEqual([]);
    expect(text).toBe(
      '# MODULES=(old)\nMODULES=(nvme virtio_blk)\nBINARIES=()\nHOOKS=(base udev microcode modconf block filesystems fsck)\n#COMPRESSION="zstd"\n',
    );
    expect(editMkinitcpio(text, ['virtio-blk', 'nvme']).text).toBe(text);
  });
  test('the old form with quotes, and a file without the array', () => {
    expect(editMkinitcpio('MODULES="ext4"', ['nvme']).text).toBe('MODULES=(ext4 nvme)');
    expect(editMkinitcpio('HOOKS=(base)', ['nvme']).text).toBe('HOOKS=(base)\nMODULES=(nvme)\n');
  });
  test('what is no plain list is left alone and said', () => {
    const text = 'MODULES=($EXTRA)\nHOOKS=(base $(hook) autodetect)\n';
    expect(editMkinitcpio(text, ['nvme'])).toEqual({ text, opaque: ['MODULES', 'HOOKS'] });
  });
  test('bash reads the union, for any lists', () => {
    fc.assert(
      fc.property(fc.uniqueArray(moduleName), fc.uniqueArray(moduleName), (present, wanted) => {
        const { text } = editMkinitcpio(`MODULES=(${present.join('\n  ')})\nX=1\n`, wanted);
        // biome-ignore lint/suspicious/noTemplateCurlyInString: shell text
        const words = bash(text, 'printf "%s\\n" "${MODULES[@]}" X=$X').trim().split('\n').filter(Boolean);
        const fold = (s: string) => s.replaceAll('-', '_');
        const extra = wanted.filter((w) => !present.map(fold).includes(fold(w)));
        expect(words).toEqual([...present, ...extra, 'X=1']);
        expect(editMkinitcpio(text, wanted).text).toBe(text);
      }),
      { numRuns: 25 },
    );
  });
});

describe('mkinitfs', () => {
  test('features: stock ones that are there, and ours', () => {
    const after = editMkinitfsConf('features="ata base ext4 lvm"\n', [
      'ata',
      'base',
      'nvme',
      'virtio',
      'zfs',
    ]);
    expect(after).toBe('features="ata base ext4 lvm nvme virtio port-image"\n');
    expect(editMkinitfsConf(after ?? '', ['ata', 'base', 'nvme', 'virtio', 'zfs'])).toBe(after);
    expect(editMkinitfsConf('features="$BASE"\n', [])).toBeUndefined();
    expect(editMkinitfsConf('', ['base'])).toBe('features="base port-image"\n');
  });
  test('our feature holds paths, whatever the packing', () => {
    const dep =
      'kernel/drivers/block/xen-blkfront.ko.gz: kernel/drivers/xen/x.ko.gz\nkernel/drivers/block/virtio_blk.ko:\nkernel/x/$(y).ko:\nkernel/drivers/other.ko.gz:\n';
    expect(featureFile([dep], ['xen_blkfront', 'virtio_blk', 'y'])).toBe(
      'kernel/drivers/block/virtio_blk.ko*\nkernel/drivers/block/xen-blkfront.ko*\n',
    );
    expect(featureFile(['a b'], ['x'])).toBe('');
  });
});
