/** qemu-img: every call names the format and gets an absolute path, so no content and no name is ever interpreted. */
import * as path from 'node:path';
import {
  type CommandOptions,
  type CommandResult,
  commandLine,
  lastLine,
  type ResourceLimits,
  run,
} from '../core/command.ts';
import { PortError } from '../core/errors.ts';
import type { Log } from '../core/log.ts';
import { GIB, MIB } from '../core/sizes.ts';
import { printable } from '../core/text.ts';

/** A disk image: where it is and, always, in which format. */
export interface ImageRef {
  /** Absolute path of a file or block device. */
  path: string;
  /** qemu-img format name. */
  format: string;
}

/** What every call may be given. */
export interface QemuImgOptions {
  signal?: AbortSignal | undefined;
  log?: Log | undefined;
  /** Done bytes of the virtual size, from `-p`; called at most about twice a second. */
  onProgress?: ((doneBytes: number, totalBytes: number) => void) | undefined;
}

/** What `qemu-img info` says. */
export interface ImageInfo {
  format: string;
  virtualBytes: number;
  /** Bytes allocated on the host. */
  allocatedBytes: number;
  backingFile: string | undefined;
  dataFile: string | undefined;
  encrypted: boolean;
}

/** A run of bytes of the virtual disk. */
export interface MapExtent {
  startBytes: number;
  lengthBytes: number;
  /** False when it reads as zeros without being stored. */
  data: boolean;
}

/** Result of `qemu-img check`. */
export interface CheckResult {
  /** False for formats qemu-img cannot check (raw, vpc). */
  supported: boolean;
  corruptions: number;
  /** Clusters that are lost but harmless. */
  leaks: number;
}

/**
 * Limits for a program that reads a header somebody else wrote. qemu starts up to 64 threads to read and write, each
 * with a stack of this size: at the usual 8 MiB they alone would reach the limit and qemu aborts.
 */
const HEADER_LIMITS: ResourceLimits = {
  cpuSeconds: 30,
  memoryBytes: GIB,
  fileBytes: 16 * MIB,
  stackBytes: MIB,
};
/** `check` holds 2 bytes of refcount per cluster: 4 GiB serve 64 TiB and more. */
const CHECK_LIMITS: ResourceLimits = {
  cpuSeconds: 1800,
  memoryBytes: 4 * GIB,
  fileBytes: 16 * MIB,
  stackBytes: MIB,
};

/** Formats `qemu-img check` knows. */
const CHECKABLE: readonly string[] = ['qcow2', 'vmdk', 'vdi', 'vhdx'];

function absolute(file: string): string {
  // a leading "/" is what keeps qemu from reading options or protocols (-rf, nbd:x, json:{}) out of a name
  if (!path.isAbsolute(file)) throw new PortError('BUG', `not an absolute path: ${printable(file)}`);
  return file;
}

function common(options: QemuImgOptions): CommandOptions {
  return {
    ...(options.signal === undefined ? {} : { signal: options.signal }),
    ...(options.log === undefined ? {} : { log: options.log }),
  };
}

/** Text of a refusal without the program's and the file's name. */
function reason(result: CommandResult): string {
  const line = lastLine(result.stderr) || lastLine(result.stdout) || 'no message';
  return line.replace(/^qemu-img: (Could not open '.*': )?/, '');
}

function parseJson(text: string, what: string): Record<string, unknown> {
  try {
    return JSON.parse(text) as Record<string, unknown>;
  } catch (cause) {
    throw new PortError('PROGRAM_FAILED', `qemu-img ${what} answered no JSON`, { cause });
  }
}

/**
 * Header facts, read under limits. The backing chain is not opened.
 * Throws DAMAGED when qemu-img cannot open it as this format, SOURCE_CHANGED when another program writes to it.
 */
export async function info(image: ImageRef, options: QemuImgOptions = {}): Promise<ImageInfo> {
  const result = await run('qemu-img', ['info', '--output=json', '-f', image.format, absolute(image.path)], {
    ...common(options),
    limits: HEADER_LIMITS,
    timeoutMs: 120_000,
    maxOutputBytes: 8 * 1024 * 1024,
    okStatus: [0, 1],
  });
  if (result.exitCode !== 0) throw cannotOpen(image, result);
  const json = parseJson(result.stdout, 'info');
  const specific = (json['format-specific'] as { data?: Record<string, unknown> } | undefined)?.data ?? {};
  return {
    format: String(json.format),
    virtualBytes: Number(json['virtual-size']),
    allocatedBytes: Number(json['actual-size'] ?? 0),
    backingFile: json['backing-filename'] === undefined ? undefined : String(json['backing-filename']),
    dataFile: specific['data-file'] === undefined ? undefined : String(specific['data-file']),
    encrypted: json.encrypted === true,
  };
}

function cannotOpen(image: ImageRef, result: CommandResult): PortError {
  const why = reason(result);
  const name = printable(image.path);
  if (/Failed to get .*lock/.test(result.stderr)) {
    return new PortError('SOURCE_CHANGED', `${name} is open for writing in another program: ${why}`, {
      hint: 'shut the virtual machine down, or give a snapshot of the disk',
    });
  }
  if (/log that needs to be replayed/.test(result.stderr)) {
    return new PortError('DAMAGED', `${name} was not closed cleanly: its log must be replayed first`, {
      hint: 'attach the disk once in Hyper-V, or run qemu-img check -r all on a copy',
    });
  }
  return new PortError('DAMAGED', `${name} cannot be opened as ${image.format}: ${why}`);
}

/**
 * Checks the metadata; changes nothing. Throws DAMAGED when it cannot be opened or checked. Corruptions are counted,
 * not thrown: the caller knows what the image means.
 */
export async function check(image: ImageRef, options: QemuImgOptions = {}): Promise<CheckResult> {
  if (!CHECKABLE.includes(image.format)) return { supported: false, corruptions: 0, leaks: 0 };
  const args = ['check', '--output=json', '-f', image.format, absolute(image.path)];
  const result = await run('qemu-img', args, {
    ...common(options),
    limits: CHECK_LIMITS,
    okStatus: [0, 1, 2, 3, 63],
  });
  if (result.exitCode === 63) return { supported: false, corruptions: 0, leaks: 0 };
  if (result.exitCode === 1) throw cannotOpen(image, result);
  const json = parseJson(result.stdout, 'check');
  const corruptions = Number(json.corruptions ?? 0) + Number(json['check-errors'] ?? 0);
  return {
    supported: true,
    corruptions: result.exitCode === 2 ? Math.max(1, corruptions) : corruptions,
    leaks: Number(json.leaks ?? 0),
  };
}

/** Creates a qcow2 overlay that stands on `base`; only the overlay is ever written. */
export async function createOverlay(
  base: ImageRef,
  target: string,
  options: QemuImgOptions = {},
): Promise<void> {
  const args = [
    'create',
    '-q',
    '-f',
    'qcow2',
    '-F',
    base.format,
    '-b',
    absolute(base.path),
    absolute(target),
  ];
  await run('qemu-img', args, common(options));
}

/**
 * Creates a qcow2 overlay on an image that lies inside another file, such as a member of a tar archive: nothing is copied.
 * Only the overlay is ever written.
 */
export async function createOverlayInside(
  base: ImageRef,
  window: { offsetBytes: number; sizeBytes: number },
  target: string,
  options: QemuImgOptions = {},
): Promise<void> {
  const file = { driver: 'file', filename: absolute(base.path) };
  const part = { driver: 'raw', offset: window.offsetBytes, size: window.sizeBytes, file };
  const backing = `json:${JSON.stringify({ driver: base.format, file: part })}`;
  const args = ['create', '-q', '-f', 'qcow2', '-F', base.format, '-b', backing, absolute(target)];
  await run('qemu-img', args, common(options));
}

/** How to convert. */
export interface ConvertOptions extends QemuImgOptions {
  /** Compress (`-c`). */
  compress?: boolean;
  /** `-o` options, such as `compression_type: 'zstd'`. Only constants of ours. */
  formatOptions?: Readonly<Record<string, string>>;
  /** Parallel requests, 1 to 16; default 8. */
  coroutines?: number;
}

function progressReader(
  totalBytes: number,
  onProgress: (doneBytes: number, totalBytes: number) => void,
): (text: string) => void {
  let last = 0;
  return (text) => {
    const now = performance.now();
    const percent = [...text.matchAll(/\(([\d.]+)\/100%\)/g)].at(-1)?.[1];
    if (percent === undefined || (now - last < 500 && percent !== '100.00')) return;
    last = now;
    onProgress(Math.round((Number(percent) / 100) * totalBytes), totalBytes);
  };
}

/**
 * Copies `source` (with its backing chain) into a new image. Progress counts bytes of the virtual disk.
 * Throws DISK_SPACE, PROGRAM_FAILED; what was written of `target` stays for the caller to remove.
 */
export async function convert(
  source: ImageRef,
  target: ImageRef,
  options: ConvertOptions = {},
): Promise<void> {
  const formatOptions = Object.entries(options.formatOptions ?? {}).map(([key, value]) => `${key}=${value}`);
  const args = [
    'convert',
    ...(options.onProgress ? ['-p'] : []),
    ...(options.compress ? ['-c'] : []),
    // order of clusters does not matter for a local file, and waiting for it costs the second core
    '-W',
    ...['-m', String(options.coroutines ?? 8), '-f', source.format, '-O', target.format],
    ...(formatOptions.length > 0 ? ['-o', formatOptions.join(',')] : []),
    absolute(source.path),
    absolute(target.path),
  ];
  const totalBytes = options.onProgress ? (await info(source, options)).virtualBytes : 0;
  const result = await run('qemu-img', args, {
    ...common(options),
    timeoutMs: 24 * 3_600_000,
    okStatus: [0, 1],
    ...(options.onProgress ? { onStdout: progressReader(totalBytes, options.onProgress) } : {}),
  });
  if (result.exitCode === 0) return;
  if (/No space left|Disk quota/.test(result.stderr)) {
    throw new PortError('DISK_SPACE', `no space left for ${printable(target.path)}`, {
      hint: 'free some space, then resume the job',
    });
  }
  throw new PortError('PROGRAM_FAILED', `qemu-img could not convert the disk: ${reason(result)}`, {
    hint: `command: ${commandLine('qemu-img', args)}`,
  });
}

/** Compares what two images show to a guest; a longer tail of zeros counts as equal. */
export async function compare(a: ImageRef, b: ImageRef, options: QemuImgOptions = {}): Promise<boolean> {
  const args = ['compare', ...(options.onProgress ? ['-p'] : ['-q']), '-f', a.format, '-F', b.format];
  const totalBytes = options.onProgress ? (await info(a, options)).virtualBytes : 0;
  const result = await run('qemu-img', [...args, absolute(a.path), absolute(b.path)], {
    ...common(options),
    timeoutMs: 24 * 3_600_000,
    okStatus: [0, 1],
    ...(options.onProgress ? { onStdout: progressReader(totalBytes, options.onProgress) } : {}),
  });
  return result.exitCode === 0;
}

/** Grows the virtual disk; never shrinks. */
export async function grow(
  image: ImageRef,
  virtualBytes: number,
  options: QemuImgOptions = {},
): Promise<void> {
  const args = ['resize', '-q', '-f', image.format, absolute(image.path), String(virtualBytes)];
  await run('qemu-img', args, common(options));
}

/** Which parts of the disk hold data, in order, neighbours joined; read as it comes, so memory stays flat. */
export async function map(image: ImageRef, options: QemuImgOptions = {}): Promise<MapExtent[]> {
  const extents: MapExtent[] = [];
  let rest = '';
  const line = /"start": (\d+), "length": (\d+),.*"zero": (true|false), "data": (true|false)/;
  const take = (text: string) => {
    const lines = (rest + text).split('\n');
    rest = lines.pop() ?? '';
    for (const entry of lines) addExtent(extents, line.exec(entry));
  };
  await run('qemu-img', ['map', '--output=json', '-f', image.format, absolute(image.path)], {
    ...common(options),
    onStdout: take,
  });
  take('\n');
  return extents;
}

/**
 * Parts of the disk an overlay itself stores, its backing file left out. Throws PROGRAM_FAILED.
 */
export async function ownData(
  overlay: ImageRef,
  options: QemuImgOptions = {},
): Promise<{ startBytes: number; lengthBytes: number }[]> {
  const args = ['map', '--output=json', '-f', overlay.format, absolute(overlay.path)];
  const extents: { startBytes: number; lengthBytes: number }[] = [];
  let rest = '';
  const line = /"start": (\d+), "length": (\d+), "depth": 0,.*"data": true/;
  const take = (text: string) => {
    const lines = (rest + text).split('\n');
    rest = lines.pop() ?? '';
    for (const entry of lines) {
      const found = line.exec(entry);
      if (found) extents.push({ startBytes: Number(found[1]), lengthBytes: Number(found[2]) });
    }
  };
  await run('qemu-img', args, { ...common(options), onStdout: take });
  take('\n');
  return extents;
}

function addExtent(extents: MapExtent[], found: RegExpExecArray | null): void {
  if (!found) return;
  const startBytes = Number(found[1]);
  const lengthBytes = Number(found[2]);
  const data = found[3] === 'false';
  const last = extents.at(-1);
  if (last && last.data === data && last.startBytes + last.lengthBytes === startBytes) {
    last.lengthBytes += lengthBytes;
  } else {
    extents.push({ startBytes, lengthBytes, data });
  }
}

/**
 * Copies a part of what a guest would see into a raw file; must lie inside the disk, on whole sectors. The backing chain is
 * read too. Throws PROGRAM_FAILED.
 */
export async function readRange(
  image: ImageRef,
  range: { startBytes: number; lengthBytes: number },
  target: string,
  options: QemuImgOptions = {},
): Promise<void> {
  const part = `driver=raw,offset=${range.startBytes},size=${range.lengthBytes}`;
  const disk = `file.driver=${image.format},file.file.driver=file,file.file.filename=${absolute(image.path).replaceAll(',', ',,')}`;
  const args = ['convert', '--image-opts', '-O', 'raw', `${part},${disk}`, absolute(target)];
  await run('qemu-img', args, common(options));
}

/**
 * Copies the first bytes a guest would see into a raw file, to look at them without trusting the container.
 * Throws DAMAGED when the image cannot be read there.
 */
export async function readStart(
  image: ImageRef,
  bytes: number,
  target: string,
  options: QemuImgOptions = {},
): Promise<void> {
  const block = 64 * 1024;
  // dd knows no protection against commas in its operands other than the image options, where they are doubled
  const operand = (file: string) => absolute(file).replaceAll(',', ',,');
  const args = [
    ...['dd', '--image-opts', '-O', 'raw', `bs=${block}`, `count=${Math.ceil(bytes / block)}`],
    `if=driver=${image.format},file.filename=${operand(image.path)}`,
    `of=${absolute(target)}`,
  ];
  const result = await run('qemu-img', args, { ...common(options), limits: HEADER_LIMITS, okStatus: [0, 1] });
  if (result.exitCode !== 0) throw cannotOpen(image, result);
}
