/** Debian package files on this machine: their fields, a local index of them, and a form that unpacks cheaply. */
import { createReadStream, createWriteStream } from 'node:fs';
import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import { pipeline } from 'node:stream/promises';
import PQueue from 'p-queue';
import { run, start } from '../core/command.ts';
import { PortError } from '../core/errors.ts';
import { FILE_MODE, sha256File } from '../core/files.ts';
import { printable } from '../core/text.ts';

/** Fields of a package file that the index repeats. */
const INDEX_FIELDS = [
  'Package',
  'Version',
  'Architecture',
  'Multi-Arch',
  'Essential',
  'Protected',
  'Priority',
  'Section',
  'Installed-Size',
  'Depends',
  'Pre-Depends',
  'Provides',
  'Conflicts',
  'Breaks',
  'Replaces',
];

/** One package file of a folder. */
export interface PoolPackage {
  /** Absolute path. */
  file: string;
  name: string;
  version: string;
  architecture: string;
  bytes: number;
  sha256: string;
}

/** Control fields of a package file, names as written. Throws PACKAGES when it is not a package. */
export async function debFields(file: string, signal: AbortSignal): Promise<Map<string, string>> {
  const result = await run('dpkg-deb', ['-f', file], {
    signal,
    limits: { cpuSeconds: 60, memoryBytes: 1 << 30 },
  }).catch((cause: unknown) => {
    if (cause instanceof PortError && cause.code === 'INTERRUPTED') throw cause;
    throw new PortError('PACKAGES', `not a Debian package: ${printable(file)}`, { cause });
  });
  const fields = new Map<string, string>();
  let name = '';
  for (const line of result.stdout.split('\n')) {
    const match = /^([A-Za-z0-9-]+):\s*(.*)$/.exec(line);
    if (match) {
      name = match[1] ?? '';
      fields.set(name, match[2] ?? '');
    } else if (/^\s/.test(line) && name !== '') {
      fields.set(name, `${fields.get(name) ?? ''} ${line.trim()}`);
    }
  }
  return fields;
}

/**
 * Makes a flat repository in `repoDir` (links to the package files of `poolDir` and a `Packages` index).
 * Throws PACKAGES when the folder is missing, holds no packages, or a file is no package.
 */
export async function indexPool(
  poolDir: string,
  repoDir: string,
  signal: AbortSignal,
): Promise<PoolPackage[]> {
  const names = await fs.readdir(poolDir).catch((cause: unknown) => {
    throw new PortError('PACKAGES', `cannot read the package folder ${printable(poolDir)}`, { cause });
  });
  const debs = names.filter((n) => n.endsWith('.deb')).sort();
  if (debs.length === 0) {
    throw new PortError('PACKAGES', `no .deb files in ${printable(poolDir)}`, {
      hint: 'the folder is flat: the .deb files lie directly in it',
    });
  }
  const queue = new PQueue({ concurrency: 2 });
  const entries = await queue.addAll(
    debs.map((deb, index) => async () => {
      const file = path.join(poolDir, deb);
      const [fields, sha256, stat] = await Promise.all([
        debFields(file, signal),
        sha256File(file, signal),
        fs.stat(file),
      ]);
      const link = `p${index}.deb`;
      await fs.symlink(file, path.join(repoDir, link));
      const lines = INDEX_FIELDS.flatMap((f) => (fields.has(f) ? [`${f}: ${fields.get(f)}`] : []));
      return {
        text: `${lines.join('\n')}\nFilename: ./${link}\nSize: ${stat.size}\nSHA256: ${sha256}\nDescription: local\n`,
        pool: {
          file,
          name: fields.get('Package') ?? '',
          version: fields.get('Version') ?? '',
          architecture: fields.get('Architecture') ?? '',
          bytes: stat.size,
          sha256,
        },
      };
    }),
  );
  await fs.writeFile(path.join(repoDir, 'Packages'), entries.map((e) => e.text).join('\n'), {
    mode: FILE_MODE,
  });
  return entries.map((e) => e.pool);
}

/**
 * Writes the package again with its members uncompressed: the same package for dpkg, without the decompression
 * (which emulated processors do at a few MB/s). Returns the new size in bytes.
 */
export async function storeUncompressed(file: string, target: string, signal: AbortSignal): Promise<number> {
  const parts: { name: string; path: string }[] = [];
  try {
    for (const [name, flag] of [
      ['control.tar', '--ctrl-tarfile'],
      ['data.tar', '--fsys-tarfile'],
    ] as const) {
      const part = `${target}.${name}`;
      parts.push({ name, path: part });
      await runToFile('dpkg-deb', [flag, file], part, signal);
    }
    const out = createWriteStream(target, { mode: FILE_MODE });
    out.write('!<arch>\n');
    out.write(arHeader('debian-binary', 4));
    out.write('2.0\n');
    for (const part of parts) {
      const { size } = await fs.stat(part.path);
      out.write(arHeader(part.name, size));
      await pipeline(createReadStream(part.path, { highWaterMark: 1 << 20 }), out, { end: false, signal });
      if (size % 2 === 1) out.write('\n');
    }
    await new Promise<void>((resolve, reject) => {
      out.once('error', reject);
      out.end(() => resolve());
    });
    return (await fs.stat(target)).size;
  } finally {
    for (const part of parts) await fs.rm(part.path, { force: true });
  }
}

async function runToFile(program: string, args: readonly string[], target: string, signal: AbortSignal) {
  const child = await start(program, args, { signal, pipes: true });
  child.stdin.end();
  await pipeline(child.stdout, createWriteStream(target, { mode: FILE_MODE }));
  const { exitCode } = await child.exited;
  if (signal.aborted) throw new PortError('INTERRUPTED', `${program} stopped`);
  if (exitCode !== 0)
    throw new PortError('PACKAGES', `${program} cannot read ${printable(args.at(-1) ?? '')}`);
}

/** One `ar` member header (mtime 0, owner 0, mode 100644). */
export function arHeader(name: string, size: number): string {
  return `${name.padEnd(16)}${'0'.padEnd(12)}${'0'.padEnd(6)}${'0'.padEnd(6)}${'100644'.padEnd(8)}${String(size).padEnd(10)}\`\n`;
}
