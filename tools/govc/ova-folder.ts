/** An OVA as a folder, with a manifest of the kind a host's answer can be compared with. */
import { createHash } from 'node:crypto';
import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import { PortError } from '../../core/errors.ts';
import { FILE_MODE, makeDir, writeFileAtomic } from '../../core/files.ts';
import { MIB } from '../../core/sizes.ts';
import { fileSource } from '../image-format/reader.ts';
import { MAX_MANIFEST_BYTES, parseManifest } from '../packed/manifest.ts';
import { readTar, type TarMember } from '../packed/tar-reader.ts';
import { MAX_XML_BYTES, parseXml } from '../packed/xml.ts';

/** Digests a host may compute of what it receives (HttpNfcLeaseManifestEntry of the vSphere API: `sha1`, `checksumType`). */
export type HostDigest = 'sha1' | 'sha256';

/** An unpacked OVA. */
export interface OvaFolder {
  /** Absolute path of the descriptor. */
  ovf: string;
  /** Bytes of the disks: what travels. */
  bytes: number;
  /** Names of the networks the descriptor connects cards to. */
  networks: string[];
  /** Writes the manifest beside the descriptor, with digests of this kind. */
  useManifest(digest: HostDigest): Promise<void>;
}

interface FileDigests {
  name: string;
  sha1: string;
  sha256: string;
}

/**
 * Unpacks an OVA of ours, which is checked against its own manifest on the way. Throws OUTPUT_DIFFERS when it is not what
 * its manifest says, UNSAFE_IMAGE for an archive that is no plain OVA, HOST_IO, DISK_SPACE.
 */
export async function unpackOva(
  ova: string,
  folder: string,
  options: { signal: AbortSignal; onBytes?: (doneBytes: number) => void },
): Promise<OvaFolder> {
  await makeDir(folder);
  const handle = await fs.open(ova, 'r');
  try {
    const name = path.basename(ova);
    const source = fileSource(handle, name, (await handle.stat()).size);
    const members = await readTar(source);
    const descriptor = members.find((m) => m.name.endsWith('.ovf'));
    if (descriptor === undefined || descriptor.sizeBytes > MAX_XML_BYTES) {
      throw new PortError('BUG', `${name} has no OVF descriptor`);
    }
    const files: FileDigests[] = [];
    let done = 0;
    for (const member of members) {
      if (member.name.endsWith('.mf')) continue;
      files.push(
        await copyMember(handle, member, folder, options.signal, (bytes) => {
          done += bytes;
          options.onBytes?.(done);
        }),
      );
    }
    await compare(handle, members, files, name);
    const ovf = path.join(folder, descriptor.name);
    const envelope = parseXml(descriptor.name, await fs.readFile(ovf)).first('Envelope');
    const networks = envelope?.first('NetworkSection')?.all('Network') ?? [];
    return {
      ovf,
      bytes: members.filter((m) => m.name.endsWith('.vmdk')).reduce((sum, m) => sum + m.sizeBytes, 0),
      networks: networks.flatMap((n) => n.attribute('name') ?? []),
      useManifest: (digest) =>
        writeFileAtomic(
          ovf.replace(/\.ovf$/, '.mf'),
          files.map((f) => `${digest.toUpperCase()}(${f.name})= ${f[digest]}\n`).join(''),
        ),
    };
  } finally {
    await handle.close();
  }
}

async function copyMember(
  from: fs.FileHandle,
  member: TarMember,
  folder: string,
  signal: AbortSignal,
  onBytes: (bytes: number) => void,
): Promise<FileDigests> {
  if (path.basename(member.name) !== member.name || member.name === '..') {
    throw new PortError('UNSAFE_IMAGE', `a file of the OVA lies in a folder: ${member.name}`);
  }
  const sha1 = createHash('sha1');
  const sha256 = createHash('sha256');
  const buffer = Buffer.allocUnsafeSlow(MIB);
  const to = await fs.open(path.join(folder, member.name), 'w', FILE_MODE);
  try {
    for (let at = 0; at < member.sizeBytes; ) {
      signal.throwIfAborted();
      const length = Math.min(MIB, member.sizeBytes - at);
      const { bytesRead } = await from.read(buffer, 0, length, member.offsetBytes + at);
      if (bytesRead === 0) throw new PortError('DAMAGED', `the OVA ends within ${member.name}`);
      const piece = buffer.subarray(0, bytesRead);
      sha1.update(piece);
      sha256.update(piece);
      await to.writeFile(piece);
      at += bytesRead;
      onBytes(bytesRead);
    }
  } finally {
    await to.close();
  }
  return { name: member.name, sha1: sha1.digest('hex'), sha256: sha256.digest('hex') };
}

/** Throws OUTPUT_DIFFERS for a file that is not what the archive's own manifest says. */
async function compare(
  handle: fs.FileHandle,
  members: readonly TarMember[],
  files: readonly FileDigests[],
  ova: string,
): Promise<void> {
  const manifest = members.find((m) => m.name.endsWith('.mf'));
  if (manifest === undefined || manifest.sizeBytes > MAX_MANIFEST_BYTES) {
    throw new PortError('OUTPUT_DIFFERS', `${ova} has no manifest`);
  }
  const text = Buffer.alloc(manifest.sizeBytes);
  await handle.read(text, 0, manifest.sizeBytes, manifest.offsetBytes);
  const expected = parseManifest(text.toString('utf8'), () => {});
  for (const file of files) {
    const digests = expected.get(file.name) ?? [];
    const known = digests.filter((d) => d.algorithm !== 'sha512');
    if (known.length === 0 || known.some((d) => d.algorithm !== 'sha512' && d.hex !== file[d.algorithm])) {
      throw new PortError('OUTPUT_DIFFERS', `${file.name} in ${ova} is not what its manifest says`, {
        hint: 'the OVA changed after it was made: run the job again',
      });
    }
  }
}
