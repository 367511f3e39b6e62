/**
 * Can this machine run guests with KVM? Asked by really running one: under nested virtualisation `/dev/kvm` may open,
 * create a machine and even run 16-bit code, and still fail at the first thing a real kernel does.
 */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import * as path from 'node:path';
import { asPortError } from '../core/errors.ts';
import { exists } from '../core/files.ts';
import { printable } from '../core/text.ts';
import { startBackground } from './background.ts';

/** Answer of the probe. */
export interface KvmProbe {
  usable: boolean;
  /** Why not, or how it was proven; one line. */
  reason: string;
}

const PROBE_MS = 3_000;
const ROM_BYTES = 64 * 1024;
/** What the ROM writes to the exit port; QEMU ends with (value << 1) | 1. */
const ROM_STATUS = (0x15 << 1) | 1;

/**
 * The guest: a ROM that goes from the reset vector through protected mode to 64-bit mode with paging, loads an IDT,
 * spins, takes an int3 through its own handler, returns by iretq and writes 0x15 to port 0xf4. Source in
 * docs/stages/verify.md; assembled with GNU as. The interrupt through the IDT is the step that hosts with emulated
 * virtualisation fail.
 */
const ROM_CODE =
  'fa2e660f011618010f20c00c010f22c066ea18000f00080066b810008ed88ec08ed0bc00700000c7050010000003200000c705041000' +
  '0000000000c7050020000003300000c7050420000000000000c7050030000083000000c70504300000000000000f20e083c8200f22e0' +
  'b8001000000f22d8b9800000c00f320d000100000f300f20c00d000000800f22c0ea94000f001800b8ed000f00bf3040000066890766' +
  'c74702180066c74704008ec1e810894706c7470a0000000066c7042500500000ff0f48c7042502500000004000000f011c2500500000' +
  'b940420f00e2fe31c0cc85c07404b015e6f4f4ebfdffc048cf0f1f80000000000000000000000000ffff0000009bcf00ffff00000093' +
  'cf00ffff0000009baf001f00f8000f00';

/** The ROM image, 64 KiB, with a near jump to its start at the reset vector. */
export function probeRom(): Buffer {
  const rom = Buffer.alloc(ROM_BYTES, 0xf4);
  Buffer.from(ROM_CODE, 'hex').copy(rom);
  const backToStart = (0x10000 - 0xfff3) & 0xffff;
  Buffer.from([0xe9, backToStart & 0xff, backToStart >> 8]).copy(rom, 0xfff0);
  return rom;
}

/** Runs the ROM under one accelerator; at most three seconds. */
export async function probeAccelerator(accelerator: 'kvm' | 'tcg', signal?: AbortSignal): Promise<KvmProbe> {
  const dir = await mkdtemp(path.join(tmpdir(), 'port-image-kvm-'));
  try {
    const rom = path.join(dir, 'rom');
    await writeFile(rom, probeRom());
    return await runRom(accelerator, rom, signal);
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
}

async function runRom(accelerator: string, rom: string, signal?: AbortSignal): Promise<KvmProbe> {
  let failed: (() => void) | undefined;
  const internalError = new Promise<'internal'>((resolve) => {
    failed = () => resolve('internal');
  });
  const machine = startBackground(
    'qemu-system-x86_64',
    // prettier-ignore
    [
      '-accel',
      accelerator,
      '-machine',
      'pc',
      '-display',
      'none',
      '-nodefaults',
      '-m',
      '16',
      '-bios',
      rom,
    ].concat(['-device', 'isa-debug-exit,iobase=0xf4,iosize=0x04', '-no-reboot']),
    // After an internal error QEMU only pauses; its message is the only sign.
    { signal, onStderr: (text) => text.includes('KVM internal error') && failed?.() },
  );
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<'late'>((resolve) => {
    timer = setTimeout(() => resolve('late'), PROBE_MS);
  });
  try {
    const end = await Promise.race([machine.exited, internalError, late]);
    if (end === 'late')
      return { usable: false, reason: `a test guest did not get to its end in ${PROBE_MS / 1000} s` };
    if (end === 'internal') {
      await machine.stop(); // The cause stands in the lines after the sign.
      const kind = machine.stderr().match(/emulation failure/)?.[0] ?? 'see dmesg';
      return { usable: false, reason: `a test guest stopped with "KVM internal error": ${kind}` };
    }
    if (end.exitCode === ROM_STATUS)
      return { usable: true, reason: 'a test guest ran 64-bit code to its end' };
    const line =
      end.stderr.split('\n').find((l) => l.trim() !== '' && !l.includes('warning:')) ?? 'no message';
    return { usable: false, reason: printable(line.replace(/^qemu-system-x86_64: /, '')).slice(0, 200) };
  } catch (error) {
    return { usable: false, reason: asPortError(error).message };
  } finally {
    clearTimeout(timer);
    await machine.stop();
  }
}

let cached: Promise<KvmProbe> | undefined;

/** The probe, once per process. PORT_IMAGE_NO_KVM=1 says no without asking. */
export function probeKvm(): Promise<KvmProbe> {
  cached ??= probeOnce();
  return cached;
}

async function probeOnce(): Promise<KvmProbe> {
  if (process.env.PORT_IMAGE_NO_KVM === '1') return { usable: false, reason: 'PORT_IMAGE_NO_KVM is set' };
  if (process.arch !== 'x64') return { usable: false, reason: `not probed on ${process.arch}` };
  if (!(await exists('/dev/kvm'))) return { usable: false, reason: '/dev/kvm does not exist' };
  return probeAccelerator('kvm');
}

/** Environment that makes libguestfs start QEMU itself, and without KVM where the probe failed. */
export function libguestfsEnvironment(probe: KvmProbe): Record<string, string> {
  return { LIBGUESTFS_BACKEND: 'direct', LIBGUESTFS_BACKEND_SETTINGS: probe.usable ? '' : 'force_tcg' };
}
