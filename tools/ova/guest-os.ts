/** What vSphere calls the systems we know. */

/** A system as OVF and vSphere name it. */
export interface GuestOs {
  /** Value of CIM_OperatingSystem.OsType (DMTF CIM schema). */
  cimId: number;
  /** vSphere's VirtualMachineGuestOsIdentifier. */
  vmwareId: string;
}

/** CIM_OperatingSystem.OsType 101: LINUX 64-Bit. */
const OTHER: GuestOs = { cimId: 101, vmwareId: 'other3xLinux64Guest' };

interface Rule extends GuestOs {
  distro: readonly string[];
  /** First major version it is for. */
  from?: number;
}

/**
 * First match counts. Only identifiers that vSphere 6.5 knows, the oldest with our hardware version: an identifier a host does
 * not know becomes "Other (32-bit)", a slightly old one changes nothing that a Linux guest would notice.
 */
const RULES: readonly Rule[] = [
  { distro: ['debian'], from: 10, cimId: 96, vmwareId: 'debian10_64Guest' },
  { distro: ['debian'], from: 9, cimId: 96, vmwareId: 'debian9_64Guest' },
  { distro: ['debian'], from: 8, cimId: 96, vmwareId: 'debian8_64Guest' },
  { distro: ['ubuntu'], cimId: 94, vmwareId: 'ubuntu64Guest' },
  { distro: ['rhel', 'rocky', 'almalinux'], from: 7, cimId: 80, vmwareId: 'rhel7_64Guest' },
  { distro: ['centos'], from: 7, cimId: 107, vmwareId: 'centos7_64Guest' },
  { distro: ['oraclelinux'], from: 7, cimId: 109, vmwareId: 'oracleLinux7_64Guest' },
  { distro: ['sles'], from: 12, cimId: 85, vmwareId: 'sles12_64Guest' },
  { distro: ['opensuse'], cimId: 83, vmwareId: 'opensuse64Guest' },
  { distro: ['fedora'], cimId: 101, vmwareId: 'fedora64Guest' },
];

/** The identifier of a system; that of any 64-bit Linux when there is none of its own. */
export function guestOsOf(os: { distro: string; version: string }): GuestOs {
  const major = Number.parseInt(os.version, 10) || 0;
  const rule = RULES.find((r) => r.distro.includes(os.distro) && major >= (r.from ?? 0));
  return rule === undefined ? OTHER : { cimId: rule.cimId, vmwareId: rule.vmwareId };
}
