import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { parseGrubConfig, parseGrubEnv } from '../../tools/grub-config.ts';

const MENU = `
if [ "\${next_entry}" ] ; then
   set default="\${next_entry}"
else
   set default="DEFAULT"
fi
function savedefault {
  save_env saved_entry
}
menuentry 'Debian' --class gnu $menuentry_id_option 'simple' {
  linux /vmlinuz-2 root=UUID=x ro "quiet splash"
  initrd /intel-ucode.img /initrd-2
}
submenu 'Advanced' $menuentry_id_option 'adv' {
  menuentry 'Two' --id two {
    linux ($root)/vmlinuz-2 ro
  }
  menuentry "One {old}" $menuentry_id_option 'one' {
    linuxefi /vmlinuz-1 ro
    initrdefi /initrd-1
  }
}
menuentry 'Setup' { fwsetup
}
`;
const wanted = (text: string, saved?: string) =>
  parseGrubConfig(MENU.replace('DEFAULT', text), saved).defaultEntry?.title;

test('a recorded menu', () => {
  const text = readFileSync(
    new URL('../../fixtures/recorded/inspect/bios-lvm.grub.cfg', import.meta.url),
    'utf8',
  );
  const grub = parseGrubConfig(text);
  expect(grub.entries.length).toBeGreaterThan(1);
  expect(grub.defaultEntry?.position).toBe('0');
  expect(grub.defaultEntry?.linux).toMatch(/^\/vmlinuz-6\./);
  expect(grub.defaultEntry?.args).toContain('ro');
});

test('entries and the default', () => {
  const grub = parseGrubConfig(MENU.replace('DEFAULT', '0'));
  expect(grub.entries.map((e) => [e.position, e.linux])).toEqual([
    ['0', '/vmlinuz-2'],
    ['1>0', '/vmlinuz-2'],
    ['1>1', '/vmlinuz-1'],
  ]);
  expect(grub.entries[0]?.initrd).toEqual(['/intel-ucode.img', '/initrd-2']);
  expect(grub.entries[0]?.args).toEqual(['root=UUID=x', 'ro', 'quiet splash']);
  expect(wanted('0')).toBe('Debian');
  expect(wanted('1>1')).toBe('One {old}');
  expect(wanted('adv>two')).toBe('Two');
  expect(wanted('1')).toBe('Two');
  expect(wanted('nonsense')).toBe('Debian');
  expect(wanted('$' + '{saved_entry}', 'adv>one')).toBe('One {old}');
  expect(parseGrubEnv('# GRUB\nsaved_entry=adv>one\n####').get('saved_entry')).toBe('adv>one');
});

test('any text ends', () => {
  fc.assert(fc.property(fc.string({ maxLength: 400 }), (text) => void parseGrubConfig(text)));
});
