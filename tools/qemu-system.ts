/** qemu-system-x86_64: a throw-away virtual machine that can reach one port of ours and nothing else. */
import { createWriteStream } from 'node:fs';
import { copyFile, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import * as path from 'node:path';
import { fileURLToPath } from 'node:url';
import { run } from '../core/command.ts';
import { PortError } from '../core/errors.ts';
import { exists } from '../core/files.ts';
import { type Log, silentLog } from '../core/log.ts';
import type { BootProfile, DiskBus } from '../core/platform.ts';
import { MIB } from '../core/sizes.ts';
import { type Background, startBackground } from './background.ts';
import { JsonRequests, listenUnix, onLines, type UnixListener } from './line-socket.ts';
import { GUEST_NETWORKS, type GuestNetwork } from './metadata/network.ts';

/** OVMF builds by preference: Debian 12 and later ship the 4M one, others the 2M one (package ovmf). */
export const OVMF_FILES = [
  { code: '/usr/share/OVMF/OVMF_CODE_4M.fd', vars: '/usr/share/OVMF/OVMF_VARS_4M.fd' },
  { code: '/usr/share/OVMF/OVMF_CODE.fd', vars: '/usr/share/OVMF/OVMF_VARS.fd' },
] as const;

/** Most bytes of console kept; a guest may write for ever. */
const CONSOLE_KEEP_BYTES = 8 * MIB;

/** What to boot and how. */
export interface MachineOptions {
  image: { path: string; format: string };
  /** Further disks; the machine starts from `image`. */
  moreImages?: readonly { path: string; format: string }[];
  /** Size of the disk the guest sees, at least the image's; the cloud's disk is usually larger than the image. */
  diskBytes: number;
  firmware: 'bios' | 'uefi';
  boot: BootProfile;
  accelerator: 'kvm' | 'tcg';
  cpus?: number;
  memoryMib?: number;
  /** ISO with the metadata, put into a CD drive. */
  seed?: string;
  /** Unix socket of an HTTP server the guest may reach at the store's address of the network. */
  storeSocket?: string;
  /** Unix socket of an HTTP server the guest may reach at each metadata address of the network. */
  metadataSocket?: string;
  /** Addresses the guest sees; default those of a config drive. */
  network?: GuestNetwork;
  /** Folder for the overlay; default a temporary one. `stop` removes it. */
  scratch?: string;
  /** File that receives the first serial port. */
  consoleLog: string;
  /** Called for each line on the second serial port. */
  onReportLine: (line: string) => void;
  /** Called with each piece of console text. */
  onConsole?: (text: string) => void;
  /** Called with each QMP event, such as RESET. */
  onEvent?: (name: string) => void;
  /** Boots this kernel instead of the disk's loader (development only). */
  directKernel?: { kernel: string; initrd: string; append: string };
  signal?: AbortSignal | undefined;
  log?: Log;
}

/** A running machine. */
export interface Machine {
  /** True when the guest's DHCP names a gateway (see userNetwork). */
  readonly hasGateway: boolean;
  readonly exited: Background['exited'];
  readonly qmp: JsonRequests;
  /** Talks to the guest agent on its virtio port. */
  readonly agent: JsonRequests;
  /** Writes the screen as PNG. */
  screenshot(file: string): Promise<void>;
  /** Ends the machine at once and removes its scratch files. */
  stop(): Promise<void>;
}

/** QEMU's option strings split at commas; a doubled comma is a literal one. */
function qemuValue(text: string): string {
  return text.replaceAll(',', ',,');
}

/** Starts a machine. Nothing of it outlives this process. Throws PROGRAM_MISSING, PROGRAM_FAILED, HOST_IO. */
export async function startMachine(options: MachineOptions): Promise<Machine> {
  const dir = await mkdtemp(path.join(shortTmpdir(), 'port-image-vm-'));
  const listeners: UnixListener[] = [];
  let child: Background | undefined;
  const overlay = path.join(options.scratch ?? dir, `vm-${path.basename(dir)}.qcow2`);
  const more = (options.moreImages ?? []).map((image, i) => ({
    image,
    overlay: overlay.replace(/\.qcow2$/, `-${i + 1}.qcow2`),
  }));
  const stop = async () => {
    await child?.stop();
    for (const file of [overlay, ...more.map((m) => m.overlay)]) await rm(file, { force: true });
    for (const listener of listeners) listener.close();
    await rm(dir, { recursive: true, force: true });
  };
  try {
    const listen = async (name: string) => {
      const listener = await listenUnix(path.join(dir, name));
      listeners.push(listener);
      return listener;
    };
    const console1 = await listen('console');
    const report = await listen('report');
    const monitor = await listen('qmp');
    const agentPort = await listen('agent');
    const firmware = await listen('firmware');
    keepConsole([console1, firmware], options);
    report.connected.then((socket) => onLines(socket, options.onReportLine));
    await makeOverlay(overlay, options.image, options);
    for (const disk of more) await makeOverlay(disk.overlay, disk.image, { signal: options.signal });
    const isolated = await canIsolateNetwork();
    const args = await machineArguments(dir, [overlay, ...more.map((m) => m.overlay)], isolated, options);
    const [program, ...words] = [...(isolated ? ISOLATE : []), 'qemu-system-x86_64', ...args];
    child = startBackground(program ?? '', words, {
      signal: options.signal,
      log: options.log ?? silentLog,
    });
    const started = await Promise.race([
      Promise.all([monitor.connected, agentPort.connected]),
      child.exited.then((end) => {
        throw new PortError(
          'PROGRAM_FAILED',
          `qemu-system-x86_64 did not start: ${end.stderr.trim().slice(-500)}`,
        );
      }),
    ]);
    const qmp = new JsonRequests(started[0], (event) => {
      if (typeof event.event === 'string') options.onEvent?.(event.event);
    });
    await qmp.request('qmp_capabilities');
    return {
      hasGateway: isolated,
      exited: child.exited,
      qmp,
      agent: new JsonRequests(started[1]),
      screenshot: async (file) => {
        await qmp.request('screendump', { filename: file, format: 'png' });
      },
      stop,
    };
  } catch (error) {
    await stop();
    if (options.signal?.aborted) throw new PortError('INTERRUPTED', 'the virtual machine was stopped');
    throw error;
  }
}

/** A folder for sockets: their paths are limited to 107 bytes, and TMPDIR may be long. */
export function shortTmpdir(): string {
  return Buffer.byteLength(tmpdir()) > 60 ? '/tmp' : tmpdir();
}

/** The console log gets the serial port and, for BIOS, the firmware's own messages ("No bootable device"). */
function keepConsole(from: readonly UnixListener[], options: MachineOptions): void {
  const file = createWriteStream(options.consoleLog, { mode: 0o600 });
  file.on('error', (error) => (options.log ?? silentLog).warn('console log', { error: error.message }));
  let kept = 0;
  for (const listener of from) {
    listener.connected.then((socket) => {
      socket.on('data', (chunk: Buffer) => {
        options.onConsole?.(chunk.toString('latin1'));
        if (kept < CONSOLE_KEEP_BYTES) file.write(chunk.subarray(0, CONSOLE_KEEP_BYTES - kept));
        kept += chunk.length;
      });
    });
  }
}

/** The image itself is never written: all writes go to an overlay that vanishes with the machine. */
async function makeOverlay(
  overlay: string,
  { path: image, format }: MachineOptions['image'],
  options: { diskBytes?: number; signal?: AbortSignal | undefined },
): Promise<void> {
  await run(
    'qemu-img',
    [
      'create',
      '-q',
      '-f',
      'qcow2',
      '-b',
      path.resolve(image),
      '-F',
      format,
      overlay,
      ...(options.diskBytes === undefined ? [] : [String(options.diskBytes)]),
    ],
    { signal: options.signal, timeoutMs: 60_000 },
  );
}

async function machineArguments(
  dir: string,
  overlays: readonly string[],
  isolated: boolean,
  options: MachineOptions,
): Promise<string[]> {
  const { boot } = options;
  const q35 = boot.machine[options.firmware].startsWith('q35');
  const bus = typeof boot.disk === 'string' ? boot.disk : boot.disk[options.firmware];
  const socket = (id: string) => ['-chardev', `socket,id=${id},path=${qemuValue(path.join(dir, id))}`];
  const node = (name: string, file: string, format: string, readOnly: boolean) => [
    '-blockdev',
    JSON.stringify({
      'node-name': name,
      driver: format,
      'read-only': readOnly,
      ...(readOnly ? {} : { discard: 'unmap' }),
      // Thrown away in the end, so flushes to the host's disk would only cost time.
      file: { driver: 'file', filename: file, cache: { 'no-flush': true } },
    }),
  ];
  const args = ['-nodefaults', '-no-user-config', '-display', 'none', '-name', 'port-image-verify'];
  args.push('-machine', boot.machine[options.firmware], ...cpuArguments(options));
  args.push('-m', String(options.memoryMib ?? 2048), '-smp', String(options.cpus ?? 2));
  // Not elevateprivileges=deny: it forbids setsid, which QEMU's forwards call before they start the relay.
  args.push('-sandbox', 'on,obsolete=deny');
  args.push(...(await firmwareArguments(dir, options)));
  args.push(...smbiosArguments(boot.smbios));
  args.push(
    ...socket('console'),
    '-serial',
    'chardev:console',
    ...socket('report'),
    '-serial',
    'chardev:report',
  );
  if (options.firmware === 'bios') {
    // SeaBIOS tells its story on port 0x402; it says nothing on the serial port while there is a screen.
    args.push(...socket('firmware'), '-device', 'isa-debugcon,iobase=0x402,chardev=firmware');
  }
  args.push(...socket('qmp'), '-mon', 'chardev=qmp,mode=control');
  args.push('-device', 'virtio-serial-pci', ...socket('agent'));
  args.push('-device', 'virtserialport,chardev=agent,name=org.qemu.guest_agent.0');
  args.push('-device', 'virtio-rng-pci', '-device', 'VGA');
  for (const [i, overlay] of overlays.entries()) {
    args.push(...node(i === 0 ? 'disk' : `disk${i}`, overlay, 'qcow2', false));
    args.push(...(i === 0 ? diskArguments(bus) : moreDiskArguments(bus, i)));
  }
  if (options.seed !== undefined) {
    args.push(...node('seed', path.resolve(options.seed), 'raw', true));
    args.push('-device', `ide-cd,drive=seed,bus=${q35 ? 'ide.1' : 'ide.0'}`);
  }
  args.push(
    '-netdev',
    userNetwork(options, isolated),
    '-device',
    // No boot ROM: trying the network costs seconds and is not how an image boots.
    `${boot.nic},netdev=net,mac=52:54:00:12:34:56,romfile=`,
  );
  if (options.directKernel !== undefined) {
    const { kernel, initrd, append } = options.directKernel;
    args.push('-kernel', kernel, '-initrd', initrd, '-append', append);
  }
  return args;
}

function cpuArguments(options: MachineOptions): string[] {
  // Five-level page tables only make software emulation slower; everything else of `max` is what RHEL 9 and newer need.
  return options.accelerator === 'kvm'
    ? ['-accel', 'kvm', '-cpu', 'host']
    : ['-accel', 'tcg,thread=multi,tb-size=512', '-cpu', 'max,la57=off'];
}

/** Structure types of SMBIOS by our names. */
const SMBIOS_TYPE = { bios: 0, system: 1, board: 2, chassis: 3 } as const;

function smbiosArguments(smbios: BootProfile['smbios']): string[] {
  return Object.entries(smbios).flatMap(([structure, strings]) => {
    const type = SMBIOS_TYPE[structure as keyof typeof SMBIOS_TYPE];
    const pairs = Object.entries(strings as Record<string, string>).map(
      ([key, value]) => `${key}=${qemuValue(value)}`,
    );
    return ['-smbios', [`type=${type}`, ...pairs].join(',')];
  });
}

async function firmwareArguments(dir: string, options: MachineOptions): Promise<string[]> {
  if (options.firmware === 'bios') return [];
  for (const { code, vars } of OVMF_FILES) {
    if (!(await exists(code)) || !(await exists(vars))) continue;
    // A copy of the template is NVRAM without boot entries, as on a cloud: only the fallback loader can boot.
    const own = path.join(dir, 'vars');
    await copyFile(vars, own);
    return [
      '-drive',
      `if=pflash,unit=0,format=raw,readonly=on,file=${code}`,
      '-drive',
      `if=pflash,unit=1,format=raw,file=${qemuValue(own)}`,
    ];
  }
  throw new PortError('PROGRAM_MISSING', 'no UEFI firmware for virtual machines is installed', {
    hint: 'apt-get install ovmf',
  });
}

function diskArguments(bus: DiskBus): string[] {
  switch (bus) {
    case 'virtio-blk':
      return ['-device', 'virtio-blk-pci,drive=disk,bootindex=1'];
    case 'virtio-scsi':
      return ['-device', 'virtio-scsi-pci,id=scsi', '-device', 'scsi-hd,drive=disk,bus=scsi.0,bootindex=1'];
    case 'pvscsi':
      return ['-device', 'pvscsi,id=scsi', '-device', 'scsi-hd,drive=disk,bus=scsi.0,bootindex=1'];
    case 'nvme':
      return ['-device', 'nvme,drive=disk,serial=port-image,bootindex=1'];
    case 'ahci':
      return ['-device', 'ahci,id=ahci', '-device', 'ide-hd,drive=disk,bus=ahci.0,bootindex=1'];
    case 'ide':
      return ['-device', 'ide-hd,drive=disk,bus=ide.1,bootindex=1'];
  }
}

/** Another disk on the bus of the first. An IDE bus takes what its cables can: the CD has the first place of one. */
function moreDiskArguments(bus: DiskBus, index: number): string[] {
  const drive = `drive=disk${index}`;
  switch (bus) {
    case 'virtio-blk':
      return ['-device', `virtio-blk-pci,${drive}`];
    case 'virtio-scsi':
    case 'pvscsi':
      return ['-device', `scsi-hd,${drive},bus=scsi.0`];
    case 'nvme':
      return ['-device', `nvme,${drive},serial=port-image-${index}`];
    case 'ahci':
      return ['-device', `ide-hd,${drive},bus=ahci.${index}`];
    case 'ide':
      return ['-device', `ide-hd,${drive}`];
  }
}

/**
 * The user-mode network. In a network namespace of its own the machine can have DHCP with a gateway, as on a cloud, and
 * still reach nothing; without one `restrict=on` does the cutting, but then DHCP names no gateway (libslirp bootp.c).
 */
function userNetwork(options: MachineOptions, isolated: boolean): string {
  const { network = GUEST_NETWORKS['config-drive'], storeSocket, metadataSocket } = options;
  const { net, host, dhcpStart, dns, store, metadata } = network;
  const addresses = `net=${net},host=${host},dhcpstart=${dhcpStart},dns=${dns}`;
  const relay = fileURLToPath(import.meta.url).replace(/qemu-system(\.[a-z]+)$/, 'relay$1');
  const forward = (address: string, socket: string) => {
    // QEMU splits the command with shell quoting rules but starts it without a shell.
    const words = [process.execPath, relay, socket].map((w) => `'${w.replaceAll("'", "'\\''")}'`);
    return `guestfwd=tcp:${address}:80-cmd:${qemuValue(words.join(' '))}`;
  };
  return [
    `user,id=net,ipv6=off,restrict=${isolated ? 'off' : 'on'},${addresses}`,
    ...(storeSocket === undefined ? [] : [forward(store, storeSocket)]),
    ...(metadataSocket === undefined ? [] : metadata.map((address) => forward(address, metadataSocket))),
  ].join(',');
}

/** Starts a program in an empty network: only the loopback, which QEMU needs for its forwards. */
const ISOLATE = ['unshare', '--net', '--', 'sh', '-c', 'ip link set lo up && exec "$@"', 'sh'] as const;

let isolation: Promise<boolean> | undefined;

/** True when this machine lets us start programs in a network of their own; asked once. */
function canIsolateNetwork(): Promise<boolean> {
  isolation ??= run(ISOLATE[0], [...ISOLATE.slice(1), 'true'], { timeoutMs: 10_000 }).then(
    () => true,
    () => false,
  );
  return isolation;
}
