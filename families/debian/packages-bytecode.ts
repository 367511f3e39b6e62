/**
 * Python bytecode for packages, compiled on this machine. A .pyc depends on the Python minor version and on name, time and
 * size of its source, not on the processor, so it is the same file the package's own hook would make, minus a minute of
 * emulation. Without a matching Python here the bytecode is left out and made at the first import.
 */
import * as path from 'node:path';
import { run } from '../../core/command.ts';
import { makeDir } from '../../core/files.ts';
import { GIB } from '../../core/sizes.ts';
import { createTar, extractMatching } from '../../tools/gnu-tar.ts';

/** Folders Debian's own hooks compile. */
const PATTERNS = ['./usr/lib/python3/dist-packages/*.py', './usr/lib/python3.[0-9]*/*.py'];

/**
 * Writes a tar with the `__pycache__` folders of these packages to `target`. Returns false, and writes nothing, when
 * none has Python modules or this machine's Python does not fit.
 */
export async function makeBytecode(
  debs: readonly string[],
  installed: string | undefined,
  tree: string,
  target: string,
  signal: AbortSignal,
): Promise<boolean> {
  const wanted = pythonVersion(debs) ?? installed;
  const here = await run('python3', ['-I', '-c', 'import sys; print("%d.%d" % sys.version_info[:2])'], {
    signal,
  })
    .then((r) => r.stdout.trim())
    .catch(() => undefined);
  if (wanted === undefined || here !== wanted) return false;
  await makeDir(tree);
  for (const deb of debs) {
    await extractMatching('dpkg-deb', ['--fsys-tarfile', deb], tree, PATTERNS, signal);
    // Packages come from wherever the guest says. tar keeps one archive inside the tree, but would follow a link that an
    // earlier one left, and so write anywhere on this machine.
    await run('find', [tree, '!', '-type', 'f', '!', '-type', 'd', '-delete'], { signal });
  }
  // -s/-p: the names inside are those of the guest. Status 1: some module is not meant for this version.
  await run('python3', ['-I', '-m', 'compileall', '-q', '-j', '2', '-s', tree, '-p', '/', tree], {
    signal,
    okStatus: [0, 1],
    timeoutMs: 300_000,
    limits: { cpuSeconds: 300, memoryBytes: 2 * GIB },
  });
  return createTar(target, tree, signal, '__pycache__');
}

/** `3.11` when the set brings that Python. */
export function pythonVersion(debs: readonly string[]): string | undefined {
  for (const deb of debs) {
    const match = /(?:^|-)libpython(3\.\d+)-stdlib_/.exec(path.basename(deb));
    if (match) return match[1];
  }
  return undefined;
}
