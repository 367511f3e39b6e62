/** Writes the images: to temporary names, checked, compared, summed, and only then under their own names. */
import * as fs from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import * as path from 'node:path';
import PQueue from 'p-queue';
import { asPortError, type PortError } from '../../core/errors.ts';
import {
  fileDigests,
  fsyncPath,
  makeDir,
  renameDurable,
  temporaryName,
  writeJson,
} from '../../core/files.ts';
import type { Artifact } from '../../core/types.ts';
import { PROGRAM_VERSION } from '../../core/version.ts';
import { writers } from './containers.ts';
import type { EncodeJob } from './job.ts';
import type { Output } from './plan.ts';
import { prove } from './prove.ts';
import { PaddedDisks } from './source.ts';

/** Removes what a killed run left: temporary names of this output. */
async function removeLeftovers(dir: string, file: string): Promise<void> {
  const names = await fs.readdir(dir);
  const stale = names.filter((name) => name.startsWith(`.${file}.`) && name.endsWith('.tmp'));
  await Promise.all(stale.map((name) => fs.rm(path.join(dir, name), { force: true })));
}

/** Writes one output and its `.json`, and returns one artifact per platform that uses it. */
async function encodeOutput(job: EncodeJob, output: Output, padded: PaddedDisks): Promise<Artifact[]> {
  const target = path.join(job.paths.out, output.file);
  const temporary = temporaryName(target);
  await removeLeftovers(job.paths.out, output.file);
  try {
    // created by us first, so that the mode is private from the first byte on
    await (await fs.open(temporary, 'wx', 0o600)).close();
    const disks = await writers[output.container ?? 'none'](job, output, padded, temporary);
    await fsyncPath(temporary);
    // both read the same pages, one core each
    const [[sha256 = '', sha512]] = await Promise.all([
      fileDigests(temporary, output.sha512 ? ['sha256', 'sha512'] : ['sha256'], job.signal),
      prove(job, output, temporary, disks),
    ]);
    const { size: bytes } = await fs.stat(temporary);
    const virtualBytes = disks[0]?.source.virtualBytes ?? 0;
    const members = disks.flatMap(({ member }) => (member === undefined ? [] : [member]));
    const about = {
      ...(output.disk === undefined ? {} : { disk: output.disk }),
      format: output.format,
      ...(output.container === undefined ? {} : { container: output.container }),
      ...(members.length === 0 ? {} : { members }),
      bytes,
      virtualBytes,
      sha256,
    };
    job.signal.throwIfAborted();
    await renameDurable(temporary, target);
    await writeJson(`${target}.json`, {
      schema: 'port-image/artifact/1',
      file: output.file,
      platforms: output.platforms,
      ...about,
      options: output.formatOptions,
      compared: job.request.compare,
      tool: `port-image ${PROGRAM_VERSION}`,
    });
    return output.platforms.map((platform) => ({
      platform,
      path: target,
      ...about,
      ...(sha512 === undefined ? {} : { sha512 }),
    }));
  } catch (error) {
    await fs.rm(temporary, { force: true });
    throw error;
  }
}

/** How long an output takes, roughly: zlib is the slowest, raw forms only copy. */
function weight({ container, compress, formatOptions }: Output): number {
  if (container !== undefined) return 3;
  if (!compress) return 0;
  return formatOptions.compression_type === 'zlib' ? 2 : 1;
}

/**
 * Writes all outputs beside each other, as many as there are cores, the slowest first. One that fails stops the others; what is
 * half written is removed and the first failure thrown. The artifacts are in the order of the outputs.
 */
export async function encodeAll(
  job: Omit<EncodeJob, 'scratch'>,
  outputs: readonly Output[],
): Promise<Artifact[]> {
  await makeDir(job.paths.tmp);
  const scratch = await fs.mkdtemp(path.join(job.paths.tmp, 'encode-'));
  const stop = new AbortController();
  const running: EncodeJob = { ...job, scratch, signal: AbortSignal.any([job.signal, stop.signal]) };
  const padded = new PaddedDisks(running);
  const queue = new PQueue({ concurrency: availableParallelism() });
  let failure: PortError | undefined;
  const made = new Map<Output, Artifact[]>();
  const encode = async (output: Output) => {
    if (failure !== undefined) return;
    try {
      made.set(output, await encodeOutput(running, output, padded));
    } catch (error) {
      failure ??= asPortError(error);
      stop.abort();
    }
  };
  try {
    await Promise.all(outputs.map((output) => queue.add(() => encode(output), { priority: weight(output) })));
  } finally {
    await fs.rm(scratch, { recursive: true, force: true });
  }
  if (failure !== undefined) throw failure as PortError;
  return outputs.flatMap((output) => made.get(output) ?? []);
}
