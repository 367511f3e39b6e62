/** Kernels and bootloader. */
import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import { PortError } from '../../core/errors.ts';
import type { Facts, Kernel } from '../../core/facts.ts';
import type { GuestSession } from '../../core/guest.ts';
import { printable } from '../../core/text.ts';
import { compareBls, parseBlsEntry } from '../../tools/grub-bls.ts';
import { type GrubConfig, type GrubEntry, parseGrubConfig, parseGrubEnv } from '../../tools/grub-config.ts';
import { listInitramfs, moduleName } from '../../tools/initramfs.ts';
import type { Bundle } from './bundle.ts';

interface BootFile {
  type: string;
  sizeBytes: number;
  link: string;
}

/** Files below /boot and links in /, by absolute path. */
export function bootFiles(bundle: Bundle): Map<string, BootFile> {
  const files = new Map<string, BootFile>();
  for (const record of [...bundle.records('boot'), ...bundle.records('top')]) {
    const [type = '', size, name = '', link = ''] = record.split('\t');
    files.set(`/${name}`, { type, sizeBytes: Number(size), link });
  }
  return files;
}

/**
 * Follows links of the listing; undefined when nothing is there. Where the kernel itself lies below /usr (SUSE), the link
 * to it counts as the file.
 */
function realFile(files: Map<string, BootFile>, name: string): string | undefined {
  let at = path.posix.resolve('/', name);
  for (let hop = 0; hop < 8; hop++) {
    const file = files.get(at);
    if (file === undefined) return undefined;
    if (file.type !== 'l') return file.type === 'f' ? at : undefined;
    if (/(?:^|\/)lib\/modules\/[^/]+\/vmlinu[xz]$/.test(file.link)) return at;
    at = path.posix.resolve(path.posix.dirname(at), file.link);
  }
  return undefined;
}

/** grub sees a separate /boot as the root of its file system. */
function inGuest(files: Map<string, BootFile>, name: string): string | undefined {
  return realFile(files, name) ?? realFile(files, `/boot${name}`);
}

/** Entries of the Boot Loader Specification, in the order of GRUB's menu. */
function blsEntries(bundle: Bundle): GrubEntry[] {
  return bundle
    .texts('/boot/loader/entries', '.conf')
    .flatMap(({ path: file, text }) => parseBlsEntry(path.posix.basename(file, '.conf'), text) ?? [])
    .sort(compareBls)
    .map(({ id, title, linux, initrd, options }, i) => ({
      title,
      id,
      position: String(i),
      linux,
      args: options,
      initrd,
    }));
}

/** Folders of grub.cfg; on UEFI older releases of the RHEL family have it beside the loader. */
function grubFolders(bundle: Bundle): string[] {
  const beside = bundle
    .below('/boot/efi/EFI')
    .filter((p) => p.endsWith('/grub.cfg') && !/\/EFI\/BOOT\//i.test(p))
    .map((p) => path.posix.dirname(p));
  return ['/boot/grub', '/boot/grub2', ...beside];
}

/** Path of grub.cfg and what it says; `blscfg` in it stands for the entries in /boot/loader/entries. */
export function grubConfig(bundle: Bundle): { config: string; grub: GrubConfig } | undefined {
  for (const dir of grubFolders(bundle)) {
    const text = bundle.text(`${dir}/grub.cfg`);
    if (text === undefined) continue;
    const saved = parseGrubEnv(bundle.text(`${dir}/grubenv`) ?? '').get('saved_entry');
    const config = `${dir}/grub.cfg`;
    const grub = parseGrubConfig(text, saved);
    if (!/^[ \t]*blscfg\b/m.test(text)) return { config, grub };
    const entries = [...blsEntries(bundle), ...grub.entries];
    const chosen = entries.find((e) => e.id === saved || e.title === saved);
    const numbered = /^\d+$/.test(saved ?? '') ? entries[Number(saved)] : undefined;
    return { config, grub: { entries, defaultEntry: chosen ?? numbered ?? entries[0] } };
  }
  return undefined;
}

/** The bootloader. */
export function bootloaderFacts(bundle: Bundle, mounts: Facts['mounts']): Facts['bootloader'] {
  const found = grubConfig(bundle);
  const espMount = mounts.find((m) => ['/boot/efi', '/efi', '/boot/EFI'].includes(m.path))?.path;
  const efiLoaders =
    espMount === undefined
      ? []
      : [...bootFiles(bundle)]
          .filter(([name, f]) => f.type === 'f' && name.startsWith(`${espMount}/`) && /\.efi$/i.test(name))
          .map(([name]) => name.slice(espMount.length + 1))
          .sort();
  const defaults = bundle.text('/etc/default/grub') === undefined ? undefined : '/etc/default/grub';
  return {
    kind: found === undefined ? 'none' : 'grub2',
    ...(found === undefined ? {} : { config: found.config }),
    ...(defaults === undefined ? {} : { defaults }),
    efiLoaders,
    fallbackLoader: efiLoaders.some((l) => /^EFI\/BOOT\/BOOT(X64|IA32|AA64|ARM|RISCV64)\.EFI$/i.test(l)),
    ...(espMount === undefined ? {} : { espMount }),
  };
}

/** Names of modules in modules.dep or modules.builtin, with `_`, sorted. */
export function moduleNames(text: string): string[] {
  const names = new Set<string>();
  for (const line of text.split('\n')) {
    const name = moduleName(line.split(':')[0] ?? '');
    if (name !== undefined) names.add(name);
  }
  return [...names].sort();
}

const IMAGE = /^\/boot\/(?:vmlinuz|vmlinux|kernel|Image)-([^/]+)$/;

function compareVersions(a: string, b: string): number {
  return a.localeCompare(b, 'en', { numeric: true });
}

/**
 * Version of a kernel by its image's name. Arch names the image by package (`linux`), which a file in the modules' folder
 * tells; Alpine by flavour (`virt`), with which the version ends.
 */
function versionOf(bundle: Bundle, versions: ReadonlySet<string>, name: string): string | undefined {
  if (versions.has(name)) return name;
  const named = [...versions].filter(
    (v) => bundle.text(`/usr/lib/modules/${v}/pkgbase`)?.trim() === name || v.endsWith(`-${name}`),
  );
  return named.sort((a, b) => compareVersions(b, a))[0];
}

/** Kernels on the disk, the newest first; initramfs contents are not filled in yet. */
export function kernelFacts(bundle: Bundle): Kernel[] {
  const files = bootFiles(bundle);
  const grub = grubConfig(bundle)?.grub;
  const versions = new Set(bundle.records('modules'));
  const kernels = new Map<string, Kernel>();
  const add = (image: string, initramfs: string | undefined, inBootMenu: boolean, isDefault: boolean) => {
    const version = versionOf(bundle, versions, IMAGE.exec(image)?.[1] ?? '');
    if (version === undefined) return;
    const known = kernels.get(version);
    const file = initramfs ?? known?.initramfs;
    kernels.set(version, {
      version,
      image,
      ...(file === undefined ? {} : { initramfs: file, initramfsBytes: files.get(file)?.sizeBytes ?? 0 }),
      inBootMenu: inBootMenu || (known?.inBootMenu ?? false),
      isDefault: isDefault || (known?.isDefault ?? false),
      builtin: known?.builtin ?? moduleNames(bundle.text(`/lib/modules/${version}/modules.builtin`) ?? ''),
      modules: known?.modules ?? moduleNames(bundle.text(`/lib/modules/${version}/modules.dep`) ?? ''),
      initramfsModules: [],
    });
  };
  for (const entry of grub?.entries ?? []) {
    const image = inGuest(files, entry.linux);
    if (image === undefined) continue;
    const initrd = entry.initrd.filter((i) => !/ucode/.test(i)).at(-1);
    add(image, initrd === undefined ? undefined : inGuest(files, initrd), true, entry === grub?.defaultEntry);
  }
  for (const name of files.keys()) {
    const label = IMAGE.exec(name)?.[1];
    if (label === undefined || realFile(files, name) === undefined) continue;
    const initramfs = [
      `/boot/initrd.img-${label}`,
      `/boot/initramfs-${label}.img`,
      `/boot/initrd-${label}`,
      `/boot/initramfs-${label}`,
    ].find((i) => realFile(files, i) !== undefined);
    const version = versionOf(bundle, versions, label);
    add(name, (version && kernels.get(version)?.initramfs) ?? initramfs, false, false);
  }
  return [...kernels.values()].sort((a, b) => compareVersions(b.version, a.version));
}

/** Fills in what the initramfs of each kernel in the boot menu holds. A broken one is told through `warn`. */
export async function listKernelInitramfs(
  guest: GuestSession,
  kernels: readonly Kernel[],
  tmpDir: string,
  signal: AbortSignal,
  warn: (text: string) => void,
): Promise<Kernel[]> {
  const listed: Kernel[] = [];
  for (const kernel of kernels) {
    if (kernel.initramfs === undefined || !kernel.inBootMenu) {
      listed.push(kernel);
      continue;
    }
    const file = path.join(tmpDir, `initramfs.${listed.length}`);
    try {
      await guest.download(kernel.initramfs, file);
      const { modules, compression, bytes } = await listInitramfs(file, signal);
      listed.push({
        ...kernel,
        initramfsModules: modules,
        initramfsCompression: compression,
        initramfsBytes: bytes,
      });
    } catch (error) {
      if (!(error instanceof PortError) || error.code !== 'GUEST_BROKEN') throw error;
      warn(`${printable(kernel.initramfs)} cannot be read and will be rebuilt: ${error.message}`);
      listed.push(kernel);
    } finally {
      await fs.rm(file, { force: true });
    }
  }
  return listed;
}
