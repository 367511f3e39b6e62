/** `.PKGINFO` of package files of Alpine (.apk: gzip) and Arch (.pkg.tar.zst, .xz, .gz), read without their tools. */
import { createReadStream } from 'node:fs';
import { createGunzip, createZstdDecompress } from 'node:zlib';
import { extract } from 'tar-stream';
import { PortError } from '../core/errors.ts';

/** What a package says about itself; dependencies without version conditions, conflicts left out. */
interface PkgInfo {
  name: string;
  version: string;
  architecture: string;
  requires: string[];
  provides: string[];
}

const MAX_INFO_BYTES = 1024 * 1024;

/** Name of a dependency without its version condition. */
function bare(word: string): string {
  return word.replace(/[<>=~].*$/, '').trim();
}

/** Reads the text of `.PKGINFO`; undefined when it names no package. */
function parsePkgInfo(text: string): PkgInfo | undefined {
  const values = (key: string) =>
    text.split('\n').flatMap((line) => {
      const match = /^([a-z_]+) = (.*)$/.exec(line);
      return match !== null && match[1] === key ? [(match[2] ?? '').trim()] : [];
    });
  const name = values('pkgname')[0] ?? '';
  const version = values('pkgver')[0] ?? '';
  if (!/^[a-z0-9@_][\w.@+-]*$/i.test(name) || version === '') return undefined;
  return {
    name,
    version,
    architecture: values('arch')[0] ?? '',
    requires: values('depend')
      .flatMap((d) => d.split(/\s+/))
      .filter((d) => d !== '' && !d.startsWith('!'))
      .map(bare),
    provides: [
      name,
      ...values('provides')
        .flatMap((p) => p.split(/\s+/))
        .filter((p) => p !== '')
        .map(bare),
    ],
  };
}

/** Reads a package file. Throws PACKAGES when it is none. */
export async function readPkgInfo(file: string): Promise<PkgInfo> {
  const stream = createReadStream(file);
  const unpack = file.endsWith('.zst') ? createZstdDecompress() : createGunzip();
  const tar = extract();
  const failed = (error: Error) => tar.destroy(error);
  stream.on('error', failed);
  unpack.on('error', failed);
  stream.pipe(unpack).pipe(tar);
  try {
    for await (const entry of tar) {
      if (entry.header.name.replace(/^\.\//, '') !== '.PKGINFO') {
        entry.resume();
        continue;
      }
      const chunks: Buffer[] = [];
      let bytes = 0;
      for await (const chunk of entry) {
        const part = Buffer.from(chunk as Uint8Array);
        bytes += part.length;
        if (bytes > MAX_INFO_BYTES)
          throw new PortError('PACKAGES', `${file}: its .PKGINFO is absurdly large`);
        chunks.push(part);
      }
      const info = parsePkgInfo(Buffer.concat(chunks).toString('utf8'));
      if (info !== undefined) return info;
    }
  } catch (error) {
    if (error instanceof PortError) throw error;
    throw new PortError('PACKAGES', `${file} is no usable package`, { cause: error });
  } finally {
    stream.destroy();
    unpack.destroy();
    tar.destroy();
  }
  throw new PortError('PACKAGES', `${file} is no usable package: it has no .PKGINFO`);
}
