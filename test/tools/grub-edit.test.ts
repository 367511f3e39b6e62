import { execFileSync } from 'node:child_process';
import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { debconfValue, setDebconfValue } from '../../tools/debconf.ts';
import {
  type ArgumentChange,
  editLinuxLines,
  editTerminal,
  editTimeout,
  grubWords,
  linuxLines,
  SERIAL_COMMAND,
} from '../../tools/grub-edit.ts';
import {
  addArguments,
  argumentConflicts,
  splitArguments,
  uniteArguments,
  withoutClashes,
} from '../../tools/kernel-arguments.ts';
import {
  lastAssignment,
  parseAssignments,
  quoteShell,
  setVariable,
  unsetVariable,
} from '../../tools/shell-variables.ts';

const CONSOLES = ['console=tty0', 'console=ttyS0,115200'];

describe('kernel arguments', () => {
  test('the serial line comes last in the union', () => {
    expect(
      uniteArguments([
        CONSOLES,
        ['nvme_core.io_timeout=300', 'console=tty1', 'console=ttyS0,115200n8'],
        ['nvme_core.io_timeout=1'],
      ]),
    ).toEqual(['nvme_core.io_timeout=300', 'console=tty0', 'console=ttyS0,115200']);
  });
  test('hvc0 is never last beside a serial line: where Xen is not, /dev/console would be a screen', () => {
    expect(uniteArguments([['console=tty0', 'console=hvc0'], CONSOLES])).toEqual([
      'console=tty0',
      'console=hvc0',
      'console=ttyS0,115200',
    ]);
  });
  test('what platforms disagree about is named; the same speed in two spellings is no disagreement', () => {
    const lists = [
      ['console=tty0', 'console=ttyS0,115200', 'nvme_core.io_timeout=240'],
      ['console=tty1', 'console=ttyS0,115200n8', 'nvme_core.io_timeout=4294967295'],
      ['console=ttyS0,38400n8'],
    ];
    expect(uniteArguments(lists)).toEqual([
      'nvme_core.io_timeout=4294967295',
      'console=tty0',
      'console=ttyS0,115200',
    ]);
    expect(argumentConflicts(lists)).toEqual([
      expect.stringMatching(/console=ttyS0,115200 is taken, not console=ttyS0,38400n8$/),
      expect.stringMatching(/=4294967295 is taken, not nvme_core.io_timeout=240$/),
    ]);
  });
  test('the union does not depend on who is asked first, but for spellings of one console', () => {
    const word = fc.constantFrom(
      'a=1',
      'b',
      'nvme_core.io_timeout=5',
      'nvme_core.io_timeout=300',
      ...CONSOLES,
      'console=hvc0',
    );
    fc.assert(
      fc.property(fc.array(fc.array(word)), (lists) => {
        const one = uniteArguments(lists);
        expect(new Set(uniteArguments([...lists].reverse()))).toEqual(new Set(one));
        expect(uniteArguments([one, ...lists])).toEqual(one);
      }),
    );
  });
  test('adding is idempotent and keeps foreign consoles before ours', () => {
    const once = addArguments(['ro', 'console=ttyS0,9600', 'console=ttyS1', 'x=1'], [...CONSOLES, 'x=2']);
    expect(once).toEqual(['ro', 'console=ttyS1', 'x=2', ...CONSOLES]);
    expect(addArguments(once, [...CONSOLES, 'x=2'])).toEqual(once);
  });
  test('what comes behind ours keeps neither our keys nor a screen as the last console', () => {
    const cloud = ['console=tty1', 'console=ttyS0', 'net.ifnames=1', 'panic=-1'];
    expect(withoutClashes(cloud, [...CONSOLES, 'net.ifnames=0'])).toEqual(['panic=-1']);
    expect(withoutClashes(cloud, ['net.ifnames=0'])).toEqual(['console=tty1', 'console=ttyS0', 'panic=-1']);
    expect(withoutClashes(cloud, [])).toEqual(cloud);
  });
  test('quoted words stay whole', () => {
    expect(splitArguments('a  dyndbg="file x +p; y" b')).toEqual(['a', 'dyndbg="file x +p; y"', 'b']);
  });
});

describe('grub.cfg', () => {
  const change: ArgumentChange = {
    add: CONSOLES,
    verbose: true,
    replace: (word, initrd) =>
      word === 'resume=/dev/sda3'
        ? undefined
        : word === 'root=/dev/sda2'
          ? initrd
            ? 'root=UUID=u'
            : 'root=PARTUUID=p'
          : word,
  };
  const before = `
function gfxmode {
	set gfxpayload="\${1}"
}
menuentry 'Debian {1}' --class debian {
	echo	'Loading Linux 6.1 ...'
	linux	/vmlinuz-6.1 root=/dev/mapper/a ro  foo="a b"   resume=/dev/sda3 quiet 
	initrd	/initrd.img-6.1
}
	linux16 /memtest86+.bin console=ttyS0,9600
menuentry 'plain' {
	linuxefi /boot/vmlinuz root=/dev/sda2
}
menuentry 'bare' {
	linux /vmlinuz
	initrd /i
}
`;
  const after = `
function gfxmode {
	set gfxpayload="\${1}"
}
menuentry 'Debian {1}' --class debian {
	echo	'Loading Linux 6.1 ...'
	linux	/vmlinuz-6.1 root=/dev/mapper/a ro  foo="a b" console=tty0 console=ttyS0,115200 
	initrd	/initrd.img-6.1
}
	linux16 /memtest86+.bin console=ttyS0,9600
menuentry 'plain' {
	linuxefi /boot/vmlinuz root=PARTUUID=p console=tty0 console=ttyS0,115200
}
menuentry 'bare' {
	linux /vmlinuz console=tty0 console=ttyS0,115200
	initrd /i
}
`;
  test('exact result, twice', () => {
    expect(editLinuxLines(before, change)).toBe(after);
    expect(editLinuxLines(after, change)).toBe(after);
  });
  test('nothing to do changes no byte', () => {
    const none: ArgumentChange = { add: [], verbose: false, replace: (w) => w };
    fc.assert(fc.property(fc.string(), (text) => void expect(editLinuxLines(text, none)).toBe(text)));
    fc.assert(
      fc.property(fc.array(fc.string()), (words) => {
        const text = `\tlinux /vmlinuz ${words.join(' ')}\n`;
        expect(editLinuxLines(text, none)).toBe(text);
      }),
    );
  });
  test('adding to any words keeps each of them', () => {
    fc.assert(
      fc.property(fc.array(fc.stringMatching(/^[a-z]{1,9}=\S{0,9}$/)), (words) => {
        fc.pre(!words.some((w) => /["'\\]/.test(w) || /^(console|quiet|splash|rhgb)/.test(w)));
        const edited = editLinuxLines(`linux /vmlinuz ${words.join('  ')}`, { ...change, replace: (w) => w });
        expect(linuxLines(edited)[0]?.words.map((w) => w.text)).toEqual([...words, ...CONSOLES]);
      }),
    );
  });
  test('words with quotes', () => {
    expect(grubWords(`linux /k a="b c"'d e'\\ f g`).map((w) => w.text)).toEqual([
      'linux',
      '/k',
      `a="b c"'d e'\\ f`,
      'g',
    ]);
  });
  test('terminal', () => {
    const text = 'fi\nterminal_input console\nterminal_output gfxterm\nx\n';
    const serial = `fi\n${SERIAL_COMMAND}\nterminal_input console serial\nterminal_output console serial\nx\n`;
    expect(editTerminal(text, true)).toBe(serial);
    expect(editTerminal(serial, true)).toBe(serial);
    expect(editTerminal(text, false)).toBe('fi\nterminal_input console\nterminal_output console\nx\n');
    expect(editTerminal('x', true)).toBe('x');
  });
  test('timeouts', () => {
    expect(editTimeout('  set timeout=-1\nset timeout=0\nset timeout="300"\nset timeout=30')).toBe(
      '  set timeout=5\nset timeout=0\nset timeout="5"\nset timeout=30',
    );
  });
});

describe('shell variables', () => {
  test('reads what sh reads', () => {
    const text = `A=1\n# B=2\nB="x \\"y\\" \\$z"\n  export C='it''s' # c\nD=a"b"'c'\\ d\nE="$A x"\nF=\nG="two\nlines"\nH=9\n`;
    expect(parseAssignments(text).map((a) => [a.name, a.value])).toEqual([
      ['A', '1'],
      ['B', 'x "y" $z'],
      ['C', 'its'],
      ['D', 'abc d'],
      ['E', undefined],
      ['F', ''],
      ['G', 'two\nlines'],
      ['H', '9'],
    ]);
  });
  test('quoting comes back, here and in sh', () => {
    fc.assert(
      fc.property(fc.string(), (value) => {
        fc.pre(!value.includes('\0'));
        expect(lastAssignment(`X=${quoteShell(value)}`, 'X')?.value).toBe(value);
      }),
    );
    fc.assert(
      fc.property(fc.string(), (value) => {
        fc.pre(!value.includes('\0'));
        const script = `X=${quoteShell(value)}; printf %s "$X"`;
        expect(execFileSync('sh', ['-c', script]).toString()).toBe(value);
      }),
      { numRuns: 40 },
    );
  });
  test('set and unset', () => {
    const text = '# top\nMODULES=dep # why\nX="a" # c\n';
    expect(setVariable(text, 'MODULES', 'most')).toBe('# top\nMODULES=most # why\nX="a" # c\n');
    expect(setVariable(text, 'X', 'b c')).toBe('# top\nMODULES=dep # why\nX="b c" # c\n');
    expect(setVariable('A=1', 'B', 'x')).toBe('A=1\nB="x"\n');
    expect(unsetVariable(`${text}X=2\nY=1; X=3\n`, 'X')).toBe('# top\nMODULES=dep # why\nY=1; X=3\n');
  });
});

describe('debconf', () => {
  const db = `Name: grub-pc/install_devices
Template: grub-pc/install_devices
Value: /dev/disk/by-id/ata-OLD
Owners: grub-pc
Flags: seen
Variables:
 CHOICES = 
 RAW_CHOICES = 

Name: grub-pc/install_devices_empty
Template: grub-pc/install_devices_empty
Owners: grub-pc

Name: other/password
Template: other/password
Value: secret
Owners: other
`;
  test('answers', () => {
    let after = setDebconfValue(db, 'grub-pc/install_devices', '');
    after = setDebconfValue(after, 'grub-pc/install_devices_empty', 'true');
    after = setDebconfValue(after, 'grub2/new', 'true', 'grub-efi-amd64');
    after = setDebconfValue(after, 'grub2/unknown', 'true');
    expect(debconfValue(after, 'grub-pc/install_devices')).toBe('');
    expect(debconfValue(after, 'other/password')).toBe('secret');
    expect(debconfValue(after, 'grub2/unknown')).toBeUndefined();
    expect(after).toContain(
      'Name: grub-pc/install_devices_empty\nTemplate: grub-pc/install_devices_empty\nValue: true\nOwners: grub-pc\nFlags: seen\n\n',
    );
    expect(
      after.endsWith(
        '\n\nName: grub2/new\nTemplate: grub2/new\nValue: true\nOwners: grub-efi-amd64\nFlags: seen\n\n',
      ),
    ).toBe(true);
    expect(setDebconfValue(after, 'grub2/new', 'true')).toBe(after);
  });
});
