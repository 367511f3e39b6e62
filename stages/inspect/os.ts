/** os-release and what else says which system this is. */
import { PortError } from '../../core/errors.ts';
import type { Facts } from '../../core/facts.ts';
import type { Bundle } from './bundle.ts';

/** Reads os-release: shell-like assignments, values quoted or not. */
export function parseOsRelease(text: string): Record<string, string> {
  const fields: Record<string, string> = {};
  for (const line of text.split('\n')) {
    const match = /^\s*([A-Z][A-Z0-9_]*)=(.*)$/.exec(line);
    if (match === null) continue;
    const value = (match[2] ?? '').trim();
    const quoted = /^(["'])(.*)\1$/.exec(value);
    fields[match[1] ?? ''] = (quoted?.[2] ?? value).replace(/\\(["'$`\\])/g, '$1');
  }
  return fields;
}

const MACHINES: Readonly<Record<number, string>> = {
  3: 'i686',
  20: 'ppc',
  21: 'ppc64',
  22: 's390x',
  40: 'armv7l',
  62: 'x86_64',
  183: 'aarch64',
  243: 'riscv64',
};

/** Architecture an ELF header names, as `uname -m` says it; undefined when it is no ELF header. */
export function elfMachine(head: Buffer): string | undefined {
  if (head.length < 20 || head.readUInt32BE(0) !== 0x7f454c46) return undefined;
  const little = head[5] === 1;
  const machine = little ? head.readUInt16LE(18) : head.readUInt16BE(18);
  if (machine === 21 && little) return 'ppc64le';
  return MACHINES[machine];
}

function initOf(bundle: Bundle): Facts['os']['init'] {
  if (bundle.below('/usr/lib/systemd/system').length > 0 || bundle.below('/lib/systemd/system').length > 0) {
    return 'systemd';
  }
  if (bundle.below('/etc/runlevels').length > 0) return 'openrc';
  return bundle.text('/etc/inittab') !== undefined ? 'sysv' : 'unknown';
}

/** The operating system. Throws UNSUPPORTED_OS when its processor cannot be told. */
export function osFacts(bundle: Bundle, release: Record<string, string>, family: string): Facts['os'] {
  const arch = elfMachine(bundle.list('elf'));
  if (arch === undefined)
    throw new PortError('UNSUPPORTED_OS', 'the programs of the guest are for an unknown processor');
  const firstLine = (name: string) => (bundle.text(name) ?? '').trim().split('\n')[0]?.trim() ?? '';
  const machineId = firstLine('/etc/machine-id');
  return {
    type: 'linux',
    distro: release.ID ?? '',
    version: release.VERSION_ID ?? '',
    family,
    arch,
    productName: release.PRETTY_NAME ?? release.NAME ?? '',
    hostname: firstLine('/etc/hostname'),
    machineId: /^[0-9a-f]{32}$/.test(machineId) ? machineId : '',
    init: initOf(bundle),
  };
}

const NO_LOGIN = /\/(nologin|false|sync|halt|shutdown)$/;

/** Users of /etc/passwd. Password hashes are never read. */
export function userFacts(bundle: Bundle): Facts['users'] {
  return (bundle.text('/etc/passwd') ?? '').split('\n').flatMap((line) => {
    const [name = '', , uid, gid, , home = '', shell = ''] = line.split(':');
    if (name === '' || !/^\d+$/.test(uid ?? '') || !/^\d+$/.test(gid ?? '')) return [];
    const id = Number(uid);
    const login = shell !== '' && !NO_LOGIN.test(shell);
    const keys = home.startsWith('/') ? bundle.text(`${home}/.ssh/authorized_keys`) : undefined;
    return [
      {
        name,
        uid: id,
        gid: Number(gid),
        home,
        shell,
        human: id === 0 || (id >= 1000 && id < 65_534 && login),
        authorizedKeys: (keys ?? '').split('\n').filter((l) => /^\s*[^#\s]/.test(l)).length,
      },
    ];
  });
}
