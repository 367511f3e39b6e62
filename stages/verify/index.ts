/** verify: boots each image on its platform's hardware; an image that does not prove itself fails the conversion. */
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import * as z from 'zod';
import type { DataSetSummary } from '../../core/data-set.ts';
import { PortError } from '../../core/errors.ts';
import { Request } from '../../core/request.ts';
import type { Stage, StageContext } from '../../core/stage.ts';
import type { Artifact, ModuleListing, Verification } from '../../core/types.ts';
import { useOf } from '../../core/work-disks.ts';
import { withStore } from '../../drivers/stores/index.ts';
import { provisionIfAble } from '../../drivers/stores/provision.ts';
import type { Store } from '../../drivers/stores/store.ts';
import { type ContainerDisk, diskOf } from '../../tools/container-disk.ts';
import { OVMF_FILES } from '../../tools/qemu-system.ts';
import type { ExpectedDataSet } from './data-check.ts';
import type { VerifyRequest } from './request.ts';
import { verifyFailed, verifyImage } from './verify-image.ts';

const Options = z.object({
  verify: Request.shape.verify,
  network: Request.shape.network,
  store: Request.shape.store,
  storeCloud: Request.shape.storeCloud,
});

/** What will be booted. */
export interface VerifyPlan {
  boots: { platform: string; firmware: 'bios' | 'uefi' }[];
}

async function plan(ctx: StageContext): Promise<VerifyPlan> {
  if (ctx.facts.firmware === 'uefi' && !OVMF_FILES.some(({ code }) => existsSync(code))) {
    throw new PortError('PROGRAM_MISSING', 'no UEFI firmware for the verification boot is installed', {
      hint: 'apt-get install ovmf, or use --no-verify',
    });
  }
  return { boots: ctx.platforms.map((p) => ({ platform: p.name, firmware: ctx.facts.firmware })) };
}

/** The data sets the strip stage took out of the image. */
function expectedDataSets(ctx: StageContext): ExpectedDataSet[] {
  const taken = ctx.result<DataSetSummary[]>('strip') ?? [];
  return taken.map(({ id, path, mode, neededBy }) => ({ id, path, mode, neededBy }));
}

/** Mount points on disks beside the one the firmware starts from. */
function moreMounts({ facts }: StageContext): string[] {
  return facts.mounts
    .filter((m) => m.atBoot !== false)
    .filter(({ device }) => {
      const filesystem = facts.filesystems.find((f) => f.device === device);
      const disks = filesystem?.disks ?? [];
      return (
        filesystem !== undefined &&
        useOf(facts, filesystem) !== 'data' &&
        disks.some((d) => d !== facts.bootDisk)
      );
    })
    .map((m) => m.path);
}

/** A document for this boot must outlive it, and be worthless soon after. */
const MINTED_FOR_MS = 2 * 60 * 60 * 1000;

/** What a boot is given of the store. */
type DataOf = Pick<VerifyRequest, 'store' | 'provision' | 'relay'>;

/** The machine reads the real store by a minted document where the store can sign one, else through us. */
async function dataOf(
  ctx: StageContext,
  dataSets: readonly ExpectedDataSet[],
  store: Store,
): Promise<DataOf> {
  const ids = dataSets.map((d) => d.id);
  const options = { lifeMs: MINTED_FOR_MS, signal: ctx.signal };
  const minted = await provisionIfAble(store, ids, options, (text) => ctx.warn(text));
  if (minted === undefined) return { store };
  const { document, upstream, caFile } = minted;
  const ca = caFile === undefined ? undefined : await readFile(caFile, 'utf8');
  return { provision: document, relay: { upstream, ca } };
}

function run(ctx: StageContext, plan: VerifyPlan): Promise<Verification[]> {
  return withStore(ctx.request, ctx.signal, (store) => bootAll(ctx, plan, store));
}

async function bootAll(ctx: StageContext, { boots }: VerifyPlan, store: Store): Promise<Verification[]> {
  const artifacts = ctx.result<Artifact[]>('encode') ?? [];
  const dataSets = expectedDataSets(ctx);
  const removed = new Set(ctx.facts.agents.map((a) => a.package));
  const services = ctx.facts.services
    .filter((s) => s.enabled && s.unit.endsWith('.service') && !s.unit.includes('@.'))
    .filter((s) => !removed.has(s.unit.replace(/\.service$/, '')))
    .map((s) => s.unit);
  const results: Verification[] = [];
  // One after the other: under emulation a second machine would only make both slower than their limits.
  for (const { platform: name, firmware } of boots) {
    const images = artifacts.filter((a) => a.platform === name);
    const artifact = images.find((a) => a.disk === undefined);
    const platform = ctx.platforms.find((p) => p.name === name);
    if (artifact === undefined || platform === undefined) {
      throw new PortError('BUG', `no image was encoded for ${name}`);
    }
    ctx.progress({ text: `booting as ${platform.title}` });
    const disks = await openDisks(ctx, artifact, images);
    try {
      const [disk, ...moreImages] = disks;
      if (disk === undefined) throw new PortError('BUG', `no disk to boot for ${name}`);
      results.push(
        await verifyImage({
          image: disk.path,
          format: disk.format,
          moreImages,
          listings: ctx.result<{ listings?: ModuleListing[] }>('guest-drivers')?.listings ?? [],
          mounts: moreMounts(ctx),
          platform,
          firmware,
          logs: ctx.paths.logs,
          scratch: ctx.paths.tmp,
          ...(dataSets.length === 0 ? {} : await dataOf(ctx, dataSets, store)),
          dataSets,
          services,
          pages: ctx.facts.pages,
          hostname: ctx.facts.os.hostname.split('.')[0] ?? '',
          dhcp: ctx.request.network === 'dhcp',
          signal: ctx.signal,
          log: ctx.log,
          onProgress: (text) => ctx.progress({ text: `booted as ${platform.title}: ${text}` }),
        }),
      );
    } finally {
      for (const opened of disks) await opened.close();
    }
  }
  const failed = results.filter((v) => !v.verified);
  if (failed.length > 0) throw verifyFailed(failed);
  return results;
}

/** The disks of a machine as QEMU can open them, that of the system first, whatever they travel in. */
async function openDisks(
  { paths, signal }: StageContext,
  main: Artifact,
  images: readonly Artifact[],
): Promise<ContainerDisk[]> {
  const wanted = [
    ...(main.members ?? [undefined]).map((m) => ({ artifact: main, member: m?.name })),
    ...images.flatMap((artifact) => (artifact.disk === undefined ? [] : [{ artifact, member: undefined }])),
  ];
  const opened: ContainerDisk[] = [];
  try {
    for (const { artifact, member } of wanted) {
      const options = { signal, ...(member === undefined ? {} : { member }) };
      opened.push(await diskOf(artifact, paths.tmp, options));
    }
    return opened;
  } catch (error) {
    for (const disk of opened) await disk.close();
    throw error;
  }
}

/** Boots every encoded image and checks what it reports. Result: one verification per platform. */
export const stage: Stage<VerifyPlan, Verification[]> = {
  name: 'verify',
  summary: 'boot each image on its platform and let it prove itself',
  needs: ['inspect', 'encode'],
  inGuest: false,
  Options,
  plan,
  run,
};
