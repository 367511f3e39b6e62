/** The images a finished conversion left in its job folder, one for each disk. */
import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import type { Contract } from '../../../core/contract.ts';
import { asPortError, PortError } from '../../../core/errors.ts';
import { Facts } from '../../../core/facts.ts';
import { exists, sha256File } from '../../../core/files.ts';
import type { JobPaths, StageName } from '../../../core/stage.ts';
import { isoDate } from '../../../core/sync/dates.ts';
import type { SyncImage } from '../../../core/sync/types.ts';
import { printable } from '../../../core/text.ts';
import type { Artifact, Verification } from '../../../core/types.ts';
import { fileId } from '../../../core/work-disks.ts';
import { parseContract } from '../../contract/image.ts';
import { openJob } from '../../job.ts';
import { type JobState, parseJournal, replay } from '../../journal.ts';
import { contractImage, gibOf } from './about.ts';

/** Platforms whose image is taken, the best first: a qcow2 is small, and every reader of disks knows it. */
const PREFERENCE = ['openstack', 'qemu'];
const FORMAT_PREFERENCE = ['qcow2', 'raw'];

/**
 * Images of a job, that of the system first. Reads the journal and small files, no image. Throws JOB_UNKNOWN, JOB_TAMPERED,
 * CONFIG (not finished, no plain disk image), VERIFY_FAILED, NO_CONTRACT, HOST_IO.
 */
export async function jobImages(dir: string): Promise<SyncImage[]> {
  const { paths, request } = await openJob(dir);
  const state = await readJournal(paths);
  const name = printable(paths.dir);
  if (!state.finished || !state.done.has('upload')) {
    throw new PortError('CONFIG', `the conversion in ${name} is not finished`, {
      hint: `port-image resume ${name}`,
    });
  }
  const result = <T>(stage: StageName): T | undefined => state.done.get(stage)?.result as T | undefined;
  const verifications = result<Verification[]>('verify') ?? [];
  const failed = verifications.find((one) => !one.verified);
  if (failed !== undefined || (request.verify && verifications.length === 0)) {
    throw new PortError('VERIFY_FAILED', `the image in ${name} did not prove itself in its boot`, {
      hint: `see the report there, then: port-image resume ${name}`,
    });
  }
  const chosen = chooseArtifacts(result<Artifact[]>('encode') ?? []);
  const [system] = chosen;
  if (system === undefined || system.disk !== undefined) {
    throw new PortError('CONFIG', `the conversion in ${name} left no plain disk image`, {
      hint: 'convert with --to qemu or --to openstack too; an OVA or tar.gz is no disk',
    });
  }
  const { contract, sha256 } = await contractOf(paths);
  const facts = await factsOf(paths, state);
  const installed = result<{ packages: { name: string }[] }>('cloud-init')?.packages ?? [];
  const images: SyncImage[] = [];
  for (const artifact of chosen) {
    const file = path.join(paths.out, path.basename(artifact.path));
    await requireSize(file, artifact.bytes);
    const about = contractImage(contract, {
      facts,
      agentAdded: installed.some((p) => p.name === 'qemu-guest-agent'),
      contractSha256: sha256,
      virtualBytes: artifact.virtualBytes,
      disk: artifact.disk === undefined ? undefined : fileId(artifact.disk),
    });
    images.push({
      ...about,
      ref: file,
      name: about.series,
      fileDigest: `sha256:${artifact.sha256}`,
      format: artifact.format,
      fileBytes: artifact.bytes,
      virtualBytes: artifact.virtualBytes,
      createdAt: isoDate(new Date(state.done.get('encode')?.at ?? 0)),
      minDiskGib: Math.max(about.minDiskGib, gibOf(artifact.virtualBytes)),
    });
  }
  return images;
}

/** Read only: another run may be at it, which then is not finished. */
async function readJournal(paths: JobPaths): Promise<JobState> {
  try {
    return replay(parseJournal(await fs.readFile(paths.journal, 'utf8')));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return replay([]);
    throw asPortError(error);
  }
}

/** One for each disk, that of the system first. */
function chooseArtifacts(artifacts: readonly Artifact[]): Artifact[] {
  const order = (list: readonly string[], word: string) => {
    const at = list.indexOf(word);
    return at < 0 ? list.length : at;
  };
  const plain = artifacts
    .filter((one) => one.container === undefined)
    .sort(
      (a, b) =>
        order(FORMAT_PREFERENCE, a.format) - order(FORMAT_PREFERENCE, b.format) ||
        order(PREFERENCE, a.platform) - order(PREFERENCE, b.platform),
    );
  const byDisk = new Map<string | undefined, Artifact>();
  for (const one of plain) if (!byDisk.has(one.disk)) byDisk.set(one.disk, one);
  return [...byDisk.values()].sort((a, b) => Number(a.disk !== undefined) - Number(b.disk !== undefined));
}

async function contractOf(paths: JobPaths): Promise<{ contract: Contract; sha256: string }> {
  for (const dir of [paths.data, paths.out]) {
    const file = path.join(dir, 'contract.json');
    if (!(await exists(file))) continue;
    return { contract: parseContract(await fs.readFile(file, 'utf8'), file), sha256: await sha256File(file) };
  }
  throw new PortError('NO_CONTRACT', `there is no contract in ${printable(paths.dir)}`, {
    hint: 'convert again with this version',
  });
}

async function factsOf(paths: JobPaths, state: JobState): Promise<Facts> {
  const digest = state.done.get('inspect')?.digest;
  const text = await fs.readFile(paths.facts, 'utf8').catch((error: unknown) => {
    throw asPortError(error);
  });
  if (digest !== undefined && (await sha256File(paths.facts)) !== digest) throw tampered(paths.facts);
  try {
    return Facts.parse(JSON.parse(text));
  } catch {
    throw tampered(paths.facts);
  }
}

/** Its digest is looked at when it is taken; a run that finds nothing to do reads no image. */
async function requireSize(file: string, bytes: number): Promise<void> {
  const stat = await fs.lstat(file).catch((error: unknown) => {
    throw asPortError(error);
  });
  if (!stat.isFile() || stat.size !== bytes) throw tampered(file);
}

function tampered(file: string): PortError {
  return new PortError('JOB_TAMPERED', `${printable(file)} is not what the conversion left`, {
    hint: 'convert again into a new folder',
  });
}
