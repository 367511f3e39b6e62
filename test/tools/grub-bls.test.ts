import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { compareBls, editBlsEntry, editDefaultKernelopts, parseBlsEntry } from '../../tools/grub-bls.ts';
import type { ArgumentChange } from '../../tools/grub-edit.ts';

/** As anaconda and kernel-install write them on Rocky 9 and on RHEL 8. */
const NINE = `title Rocky Linux (5.14.0-427.el9.x86_64) 9.4 (Blue Onyx)
version 5.14.0-427.el9.x86_64
linux /vmlinuz-5.14.0-427.el9.x86_64
initrd /initramfs-5.14.0-427.el9.x86_64.img $tuned_initrd
options root=/dev/sda2 ro crashkernel=1G-4G:192M rd.lvm.lv=rl/root rhgb quiet $tuned_params
grub_users $grub_users
grub_arg --unrestricted
grub_class rocky
`;
const EIGHT = NINE.replace(/^options.*$/m, 'options $kernelopts $tuned_params');
const change: ArgumentChange = {
  add: ['console=tty0', 'console=ttyS0,115200'],
  verbose: true,
  replace: (word) => (word === 'root=/dev/sda2' ? 'root=UUID=1234' : word),
};

describe('entries', () => {
  test('are read', () => {
    expect(parseBlsEntry('x', NINE)).toMatchObject({
      version: '5.14.0-427.el9.x86_64',
      linux: '/vmlinuz-5.14.0-427.el9.x86_64',
      initrd: ['/initramfs-5.14.0-427.el9.x86_64.img'],
    });
    expect(parseBlsEntry('x', 'title Memory test\nefi /memtest.efi\n')).toBeUndefined();
  });
  test('only the options change', () => {
    expect(editBlsEntry(NINE, change)).toBe(
      NINE.replace(
        /^options.*$/m,
        () =>
          'options root=UUID=1234 ro crashkernel=1G-4G:192M rd.lvm.lv=rl/root $tuned_params console=tty0 console=ttyS0,115200',
      ),
    );
    expect(editBlsEntry(editBlsEntry(NINE, change), change)).toBe(editBlsEntry(NINE, change));
  });
  test('$kernelopts stays and gets nothing added twice; without room it is written out', () => {
    expect(editBlsEntry(EIGHT, change)).toBe(EIGHT);
    expect(editBlsEntry(EIGHT, change, ['root=/dev/sda2', 'quiet'])).toBe(
      EIGHT.replace(
        /^options.*$/m,
        () => 'options root=UUID=1234 $tuned_params console=tty0 console=ttyS0,115200',
      ),
    );
  });
  test('any words: foreign lines stay, a second time changes nothing', () => {
    const word = fc.stringMatching(/^[a-z$][\w.,:=/-]{0,12}$/);
    fc.assert(
      fc.property(fc.array(word, { maxLength: 12 }), (words) => {
        const text = NINE.replace(/^options.*$/m, () => `options ${words.join(' ')}`);
        const once = editBlsEntry(text, change);
        expect(editBlsEntry(once, change)).toBe(once);
        const foreign = (t: string) => t.split('\n').filter((l) => !l.startsWith('options'));
        expect(foreign(once)).toEqual(foreign(text));
        expect(parseBlsEntry('', once)?.options.at(-1)).toBe('console=ttyS0,115200');
      }),
    );
  });
  test('sorted as the menu', () => {
    const ids = [
      'm-5.14.0-70.el9',
      'm-5.14.0-427.el9',
      'm-0-rescue',
      'm-5.14.0-427.8.el9',
      'm-6.1~rc1',
      'm-6.1',
    ];
    const sorted = ids.map((id) => parseBlsEntry(id, NINE)).filter((e) => e !== undefined);
    expect(sorted.sort(compareBls).map((e) => e.id)).toEqual([
      'm-6.1',
      'm-6.1~rc1',
      'm-5.14.0-427.8.el9',
      'm-5.14.0-427.el9',
      'm-5.14.0-70.el9',
      'm-0-rescue',
    ]);
  });
});

test('the fallback in grub.cfg', () => {
  // biome-ignore lint/suspicious/noTemplateCurlyInString: shell text
  const menu = 'if [ -z "${kernelopts}" ]; then\n  set kernelopts="root=/dev/sda2 ro quiet "\nfi\nblscfg\n';
  const after = editDefaultKernelopts(menu, change);
  expect(after).toBe(
    // biome-ignore lint/suspicious/noTemplateCurlyInString: shell text
    'if [ -z "${kernelopts}" ]; then\n  set kernelopts="root=UUID=1234 ro console=tty0 console=ttyS0,115200 "\nfi\nblscfg\n',
  );
  expect(editDefaultKernelopts(after, change)).toBe(after);
});
