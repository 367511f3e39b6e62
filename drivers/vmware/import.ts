/** The bytes: the OVA's files go to a host, which computes digests of what it receives. */
import * as path from 'node:path';
import { PortError } from '../../core/errors.ts';
import { requireFreeSpace, writeJson } from '../../core/files.ts';
import { pause } from '../../core/pause.ts';
import type { Artifact } from '../../core/types.ts';
import { type HostDigest, type OvaFolder, unpackOva } from '../../tools/govc/ova-folder.ts';
import { ask, type Context, type Machine, machinesIn } from './inventory.ts';
import { isTemporaryName, noteText, temporaryName } from './notes.ts';
import type { VmwarePlan } from './plan.ts';

/** Two days: a large disk over a slow line. */
const IMPORT_MS = 48 * 3600_000;
/** A lease whose client was killed ends by itself after five minutes (HttpNfcLeaseInfo.leaseTimeout); until then it may hold the machine. */
const LEASE_MS = 6 * 60_000;
const LEASE_POLL_MS = 10_000;

/** What became of the bytes. */
export interface Imported {
  bytes: number;
  content: 'ok' | 'unverifiable';
  proof: string;
}

/** Imports under the temporary name, marked as ours. Throws as govc, CLOUD_MISMATCH when the host received something else. */
export async function importOva(ctx: Context, plan: VmwarePlan, ova: Artifact): Promise<Imported> {
  const folder = path.join(ctx.tmp, 'vmware-ova');
  await requireFreeSpace(ctx.tmp, ova.bytes, 'the unpacked OVA');
  const unpacked = await unpackOva(ova.path, folder, {
    signal: ctx.signal,
    onBytes: (doneBytes) => ctx.progress({ text: 'computing digests', doneBytes, totalBytes: ova.bytes }),
  });
  const options = path.join(folder, 'import-options.json');
  await writeJson(options, {
    DiskProvisioning: ctx.options.provisioning,
    MarkAsTemplate: false,
    PowerOn: false,
    NetworkMapping: unpacked.networks.map((Name) => ({ Name, Network: ctx.options.network ?? '' })),
    Annotation: noteText(ctx.name, {
      mark: ctx.mark,
      state: 'importing',
      file: ova.sha256,
      content: 'unverifiable',
      ...ctx.identity,
    }),
  });
  const send = (digest: HostDigest | undefined) =>
    sendFiles(ctx, plan, unpacked, [temporaryName(ctx.mark, ova.sha256), options], digest);
  if (!plan.checksums) {
    await send(undefined);
    return { bytes: unpacked.bytes, content: 'unverifiable', proof: 'this govc cannot compare digests' };
  }
  // Every host has the SHA-1 field; some leave it empty and have SHA-256 instead, which the host tells only afterwards.
  for (const digest of ['sha1', 'sha256'] as const) {
    try {
      await send(digest);
      const kind = digest === 'sha1' ? 'SHA-1' : 'SHA-256';
      return {
        bytes: unpacked.bytes,
        content: 'ok',
        proof: `the host computed the ${kind} of each file it received, and it is ours`,
      };
    } catch (error) {
      if (!otherDigest(error)) throw error;
      ctx.warn(
        `the host does not tell the ${digest} of what it received; the import starts again without it`,
      );
      await removeLeftovers(ctx, plan.folder);
    }
  }
  await send(undefined);
  return {
    bytes: unpacked.bytes,
    content: 'unverifiable',
    proof: 'the host tells no digest of what it received',
  };
}

/**
 * True when govc failed because the host gave no digest of this kind, not another digest: `… mismatch with uploaded checksum
 *  for file …` with nothing between, `checksum type …`, or no entry (govmomi, ovf/importer ValidateChecksum).
 */
export function otherDigest(error: unknown): boolean {
  return (
    error instanceof PortError &&
    error.code === 'CLOUD_MISMATCH' &&
    /mismatch with uploaded checksum {1,2}for|checksum type .* mismatch|missing manifest entry on server/.test(
      error.message,
    )
  );
}

async function sendFiles(
  ctx: Context,
  { folder }: VmwarePlan,
  ova: OvaFolder,
  [name, options]: readonly [name: string, optionsFile: string],
  digest: HostDigest | undefined,
): Promise<void> {
  if (digest !== undefined) await ova.useManifest(digest);
  const { datastore, pool } = ctx.options;
  const args = ['-ds', datastore, '-pool', pool, '-folder', folder, '-name', name];
  ctx.progress({ text: 'importing', doneBytes: 0, totalBytes: ova.bytes });
  await ask(
    ctx,
    'import.ovf',
    [...(digest === undefined ? [] : ['-m']), ...args, '-options', options, ova.ovf],
    {
      timeoutMs: IMPORT_MS,
      onStdout: (text) => {
        const percent = percentOf(text);
        if (percent === undefined) return;
        ctx.progress({
          text: 'importing',
          doneBytes: Math.round((percent / 100) * ova.bytes),
          totalBytes: ova.bytes,
        });
      },
    },
  );
}

/** The last `(NN%` in what govc wrote about its progress. */
export function percentOf(text: string): number | undefined {
  const last = [...text.matchAll(/\((\d{1,3})%/g)].at(-1)?.[1];
  return last === undefined ? undefined : Math.min(100, Number(last));
}

/** A machine of this job under its temporary name; clones of its image have other names. */
export function leftovers(machines: readonly Machine[], mark: string): Machine[] {
  return machines.filter((m) => isTemporaryName(m.name, mark) && m.note?.mark === mark);
}

/**
 * Removes half-made machines of this job. One that a dead import still holds is waited for: vSphere ends its lease, and may
 * remove the machine itself. Throws as govc.
 */
export async function removeLeftovers(ctx: Context, folder: string): Promise<void> {
  const giveUp = performance.now() + LEASE_MS;
  for (;;) {
    const [left] = leftovers(await machinesIn(ctx, folder), ctx.mark);
    if (left === undefined) return;
    try {
      await ask(ctx, 'object.destroy', [left.id], { anywhere: true });
      ctx.log.info('removed what an earlier run left', { machine: left.id });
    } catch (error) {
      const gone = error instanceof PortError && error.code === 'CONFIG';
      if (!gone && performance.now() > giveUp) throw error;
      if (!gone) {
        ctx.progress({ text: 'waiting for the end of an import that was broken off' });
        await pause(LEASE_POLL_MS, ctx.signal);
      }
    }
  }
}
