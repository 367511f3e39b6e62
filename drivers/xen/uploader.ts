/** The way into XCP-ng and XenServer: a disk, and a template that starts from it, by XAPI. */
import * as z from 'zod';
import { PortError } from '../../core/errors.ts';
import { shellWord } from '../../core/shell-word.ts';
import { formatBytes, GIB } from '../../core/sizes.ts';
import { printable } from '../../core/text.ts';
import type { Artifact } from '../../core/types.ts';
import type { CloudImage, UploadContext, Uploader } from '../../core/uploader.ts';
import { XapiSession } from '../../tools/xapi/session.ts';
import { importVdi, type TransferFormat, vdiSha256 } from '../../tools/xapi/transfer.ts';
import { xen } from './index.ts';
import { XenOptions } from './options.ts';
import {
  KEYS,
  oneNamed,
  Reference,
  removeLeftovers,
  removeVm,
  storage,
  vmsNamed,
  type XenVm,
} from './pool.ts';
import { makeTemplate, type XenDisk } from './template.ts';

type Context = UploadContext<XenOptions>;

/** What will be done. */
export interface XenPlan {
  /** Name while it is made. */
  temporaryName: string;
}

const FORMATS: Readonly<Record<string, TransferFormat>> = { vpc: 'vhd', raw: 'raw', qcow2: 'qcow2' };

async function withSession<T>(
  options: XenOptions,
  signal: AbortSignal,
  use: (session: XapiSession) => Promise<T>,
): Promise<T> {
  const session = await XapiSession.open(options, signal);
  try {
    return await use(session);
  } finally {
    await session.close();
  }
}

function plan(ctx: Context): Promise<XenPlan> {
  const { options, name, virtualBytes } = ctx;
  return withSession(options, ctx.signal, async (session) => {
    const sr = await storage(session, options.sr);
    if (sr.content_type === 'iso') {
      throw new PortError('CONFIG', `xen.sr: ${printable(sr.name_label)} holds ISO images only`);
    }
    const needed = bytesOf(ctx);
    if (sr.freeBytes < needed) {
      throw new PortError(
        'CLOUD_REFUSED',
        `storage ${printable(sr.name_label)} has ${formatBytes(sr.freeBytes)} free, ${formatBytes(needed)} are needed`,
      );
    }
    if (sr.freeBytes < virtualBytes) {
      ctx.warn(`storage ${printable(sr.name_label)} has less free space than the disk may grow to`);
    }
    if (options.network !== undefined) await oneNamed(session, 'network', options.network, 'network');
    await oneNamed(session, 'VM', options.baseTemplate, 'baseTemplate');
    const older = requireFreeName(ctx, await vmsNamed(session, name));
    const place = `xapi:${new URL(options.url).host}`;
    ctx.change({
      path: `${place}/${name}`,
      action: 'create',
      why: `import into storage ${printable(sr.name_label)}${options.template ? ', as a template' : ''}`,
    });
    for (const { uuid } of older) {
      ctx.change(
        options.onExists === 'replace'
          ? { path: `${place}/${uuid}`, action: 'remove', why: 'replaced by the new image' }
          : { path: `${place}/${uuid}`, action: 'rename', why: 'an older version' },
      );
    }
    return { temporaryName: `port-image-${ctx.mark}` };
  });
}

/** Older ones of ours that have the name. Throws CLOUD_CONFLICT when it is not ours to take. */
function requireFreeName(ctx: Context, holders: readonly XenVm[]): XenVm[] {
  const older = holders.filter((vm) => vm.other_config[KEYS.mark] !== ctx.mark);
  for (const vm of older) {
    const conflict = (why: string) =>
      new PortError('CLOUD_CONFLICT', `the pool has ${ctx.name} (${vm.uuid}) ${why}`, {
        hint: 'choose another name, or rename it',
      });
    if (vm.other_config[KEYS.mark] === undefined) throw conflict('that is not of port-image');
    if (ctx.options.onExists === 'fail') throw conflict('already');
    if (vm.power_state !== 'Halted') throw conflict('that is running');
  }
  return older;
}

function upload(ctx: Context, { temporaryName }: XenPlan): Promise<CloudImage> {
  const image = ctx.artifacts.find((a) => a.disk === undefined);
  if (image === undefined) throw new PortError('BUG', 'upload without an image for Xen');
  return withSession(ctx.options, ctx.signal, async (session) => {
    const whole = (vm: XenVm) =>
      vm.other_config[KEYS.mark] === ctx.mark &&
      vm.other_config[KEYS.state] === 'complete' &&
      vm.other_config[KEYS.file] === image.sha256;
    const named = (await vmsNamed(session, ctx.name)).find(whole);
    const ready = named ?? (await vmsNamed(session, temporaryName)).find(whole);
    if (ready !== undefined) return publish(ctx, session, ready, image, undefined);
    requireFreeName(ctx, await vmsNamed(session, ctx.name));
    await removeLeftovers(session, temporaryName, ctx.mark);
    const { readBack } = ctx.options;
    const disks: XenDisk[] = [];
    for (const artifact of ctx.artifacts) {
      const vdi = await sendDisk(ctx, session, temporaryName, artifact);
      if (readBack) await compare(ctx, session, vdi, artifact);
      disks.push({ vdi, id: artifact.disk });
    }
    const content = readBack ? 'ok' : 'unverifiable';
    const vm = await makeTemplate(ctx, session, temporaryName, disks, {
      [KEYS.mark]: ctx.mark,
      [KEYS.file]: image.sha256,
      [KEYS.content]: content,
    });
    const made = (await vmsNamed(session, temporaryName)).find((m) => m.id === vm);
    if (made === undefined) throw new PortError('CLOUD', 'the pool does not show the template it made');
    return publish(ctx, session, made, image, bytesOf(ctx));
  });
}

/** Bytes of all disks' files. */
function bytesOf(ctx: Context): number {
  return ctx.artifacts.reduce((sum, a) => sum + a.bytes, 0);
}

async function sendDisk(ctx: Context, session: XapiSession, name: string, image: Artifact): Promise<string> {
  const format = FORMATS[image.format];
  if (format === undefined) throw new PortError('BUG', `no way to send ${image.format} to Xen`);
  const sr = await storage(session, ctx.options.sr);
  const vdi = await session.call(Reference, 'VDI.create', {
    name_label: name,
    name_description: `made by port-image for ${ctx.name}`,
    SR: sr.id,
    virtual_size: image.virtualBytes,
    type: 'user',
    sharable: false,
    read_only: false,
    other_config: { [KEYS.mark]: ctx.mark },
    xenstore_data: {},
    sm_config: {},
    tags: [],
  });
  try {
    await importVdi(session, vdi, { path: image.path, bytes: image.bytes, format }, (doneBytes) =>
      ctx.progress({ text: 'importing', doneBytes, totalBytes: image.bytes }),
    );
  } catch (error) {
    // A disk without its content is of no use; where this fails too, the next run removes it.
    await session.callLast('VDI.destroy', vdi).catch(() => {});
    throw error;
  }
  return vdi;
}

async function compare(ctx: Context, session: XapiSession, vdi: string, image: Artifact): Promise<void> {
  const wanted = await ctx.rawSha256(image);
  const totalBytes = image.virtualBytes;
  const found = await vdiSha256(session, vdi, totalBytes, (doneBytes) =>
    ctx.progress({ text: 'reading back', doneBytes, totalBytes }),
  );
  if (found === wanted) return;
  await session.callLast('VDI.destroy', vdi).catch(() => {});
  throw new PortError('CLOUD_MISMATCH', 'the disk reads back from the host as another one than was sent', {
    hint: 'the copy was removed; run the job again',
  });
}

/** Older ones make room, and last the final name. Each step may have been done by a killed run. */
async function publish(
  ctx: Context,
  session: XapiSession,
  vm: XenVm,
  image: Artifact,
  sent: number | undefined,
): Promise<CloudImage> {
  const { options, name } = ctx;
  const call = (method: string, ...args: unknown[]) => session.call(z.unknown(), method, ...args);
  const replaced: CloudImage['replaced'] = [];
  for (const older of requireFreeName(ctx, await vmsNamed(session, name))) {
    if (options.onExists === 'replace') await removeVm(session, older);
    else await call('VM.set_name_label', older.id, `${name} before ${ctx.mark.slice(0, 8)}`);
    replaced.push({ id: older.uuid, action: options.onExists === 'replace' ? 'removed' : 'renamed' });
  }
  if (!options.template && vm.is_a_template) await call('VM.set_is_a_template', vm.id, false);
  if (vm.name_label !== name) await call('VM.set_name_label', vm.id, name);
  const ok = vm.other_config[KEYS.content] === 'ok';
  return {
    platform: xen.name,
    place: new URL(options.url).host,
    id: vm.uuid,
    name,
    method: 'import-raw-vdi',
    bytes: bytesOf(ctx),
    sentBytes: sent ?? 0,
    content: ok ? 'ok' : 'unverifiable',
    proof: ok
      ? 'each disk was read back from the host; its sha256 is that of the image'
      : 'not read back, as asked by xen.readBack',
    replaced,
    start: options.template
      ? `xe vm-install template=${vm.uuid} new-name-label=NEW && xe vm-start vm=NEW`
      : `xe vm-start uuid=${shellWord(vm.uuid)}`,
    disks: [],
    details: {
      kind: options.template ? 'template' : 'virtual machine',
      storage: options.sr,
      disk: `${Math.ceil(image.virtualBytes / GIB)} GiB`,
    },
  };
}

/** XCP-ng and XenServer: a template and its disk. */
export const xenUploader: Uploader<XenOptions, XenPlan> = {
  platform: xen.name,
  summary: 'a disk and a template that starts from it, by XAPI',
  Options: XenOptions,
  login: (options, signal) => withSession(options, signal, async () => {}),
  plan,
  upload,
};
