/** Sources that are read through a connection, by kind. */
import type { DiskSource } from '../../core/disk-source.ts';
import type { Source } from '../../core/source.ts';
import { printable } from '../../core/text.ts';
import { openNbdSource } from '../../tools/disk-sources/nbd.ts';
import { openEbsSnapshot } from '../../tools/ebs/index.ts';
import type { CaptureContext } from './context.ts';
import type { LiveSource } from './live.ts';
import { openMachineSource } from './machine.ts';

/** A source that is copied block by block. */
export type LiveKind = Extract<Source, { kind: 'ssh' | 'host' | 'nbd' | 'ebs' }>;

/** Whether a source is copied block by block. */
export function isLive(source: Source): source is LiveKind {
  return source.kind === 'ssh' || source.kind === 'host' || source.kind === 'nbd' || source.kind === 'ebs';
}

/** One disk that a server shows as it is at one moment, whatever that was: nothing more can be known or asked here. */
async function oneDisk(name: string, open: () => Promise<DiskSource>): Promise<LiveSource> {
  const disk = await open();
  const { sizeBytes } = disk;
  await disk.close();
  return {
    name,
    disks: [{ id: 'disk0', device: name, sizeBytes, open }],
    inventory: undefined,
    consistency: async () => 'crash-consistent',
    close: async () => {},
  };
}

/** Opens a live source; the caller closes it. Throws SOURCE_REMOTE. */
export async function openLiveSource(ctx: CaptureContext, source: LiveKind): Promise<LiveSource> {
  if (source.kind === 'ssh' || source.kind === 'host') return openMachineSource(ctx, source);
  if (source.kind === 'nbd') return oneDisk(printable(source.url), () => openNbdSource(source, ctx));
  const name = printable(`ebs://${source.region}/${source.snapshot}`);
  return { ...(await oneDisk(name, () => openEbsSnapshot(source, ctx))), immutable: true };
}
