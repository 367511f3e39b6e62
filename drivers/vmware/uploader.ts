/** The way into vSphere: one template (or machine that is off) made of the OVA, by the program govc. */
import { PortError } from '../../core/errors.ts';
import { silentLog } from '../../core/log.ts';
import { shellWord } from '../../core/shell-word.ts';
import { printable } from '../../core/text.ts';
import type { Artifact } from '../../core/types.ts';
import type { CloudImage, Uploader } from '../../core/uploader.ts';
import { govcAbilities } from '../../tools/govc/run.ts';
import { type Imported, importOva, leftovers, removeLeftovers } from './import.ts';
import { vmware } from './index.ts';
import { ask, type Context, type Machine, machinesIn } from './inventory.ts';
import { noteText } from './notes.ts';
import { VmwareOptions } from './options.ts';
import { aboutServer, planImport, requireFreeName, type VmwarePlan } from './plan.ts';
import { checkMachine } from './read-back.ts';

/** One OVA holds all disks of the machine. */
function systemOva(ctx: Context): Artifact {
  const ova = ctx.artifacts.find((a) => a.disk === undefined);
  if (ova === undefined) throw new PortError('BUG', 'upload without an OVA');
  return ova;
}

/**
 * Imports under a temporary name, checks, and takes the final name last: who finds that name finds a whole image. Throws as the
 * plan, CLOUD_MISMATCH.
 */
async function upload(ctx: Context, plan: VmwarePlan): Promise<CloudImage> {
  const ova = systemOva(ctx);
  const machines = await machinesIn(ctx, plan.folder);
  const isWhole = (m: Machine) =>
    m.note?.mark === ctx.mark && m.note.state === 'complete' && m.note.file === ova.sha256;
  const done = machines.find((m) => m.name === ctx.name && isWhole(m));
  if (done !== undefined) return publish(ctx, plan, done, undefined);
  const whole = leftovers(machines, ctx.mark).find(isWhole);
  if (whole !== undefined) return publish(ctx, plan, whole, undefined);
  requireFreeName(ctx, machines);
  await removeLeftovers(ctx, plan.folder);
  const imported = await importOva(ctx, plan, ova);
  const [machine] = leftovers(await machinesIn(ctx, plan.folder), ctx.mark);
  if (machine === undefined) throw new PortError('CLOUD', 'vSphere does not show the machine it imported');
  try {
    await checkMachine(ctx, plan.folder, machine);
  } catch (error) {
    if (error instanceof PortError && error.code === 'CLOUD_MISMATCH')
      await removeLeftovers(ctx, plan.folder);
    throw error;
  }
  const note = { mark: ctx.mark, state: 'complete', file: ova.sha256, content: imported.content } as const;
  const text = noteText(ctx.name, { ...note, ...ctx.identity });
  await ask(ctx, 'vm.change', ['-vm', machine.id, '-annotation', text]);
  return publish(ctx, plan, { ...machine, note }, imported);
}

/** Template, older versions, name. Each step may have been done by a killed run. */
async function publish(
  ctx: Context,
  plan: VmwarePlan,
  machine: Machine,
  imported: Imported | undefined,
): Promise<CloudImage> {
  if (ctx.options.template && !machine.template) {
    await ask(ctx, 'vm.markastemplate', [machine.id]);
  }
  const replaced: CloudImage['replaced'] = [];
  const older = requireFreeName(ctx, await machinesIn(ctx, plan.folder), (m) => m.id === machine.id);
  if (older !== undefined) replaced.push(await makeRoom(ctx, older));
  if (machine.name !== ctx.name) await ask(ctx, 'object.rename', [machine.id, ctx.name], { anywhere: true });
  const ova = systemOva(ctx);
  const content = machine.note?.content ?? 'unverifiable';
  return {
    platform: vmware.name,
    place: placeOf(ctx),
    id: machine.id,
    name: ctx.name,
    method: 'import-ovf',
    bytes: imported?.bytes ?? ova.bytes,
    sentBytes: imported?.bytes ?? 0,
    content,
    proof:
      imported?.proof ??
      (content === 'ok'
        ? 'digests compared when an earlier run imported it'
        : 'the digests were not compared'),
    replaced,
    start: startCommand(ctx),
    disks: [],
    details: {
      server: plan.server,
      kind: ctx.options.template ? 'template' : 'virtual machine',
      datastore: ctx.options.datastore,
    },
  };
}

async function makeRoom(ctx: Context, older: Machine): Promise<CloudImage['replaced'][number]> {
  const { id, note } = older;
  if (ctx.options.onExists === 'replace' || note?.mark === ctx.mark) {
    await ask(ctx, 'object.destroy', [id], { anywhere: true });
    return { id, action: 'removed' };
  }
  const name = `${ctx.name.slice(0, 60)}-before-${ctx.mark.slice(0, 8)}`;
  await ask(ctx, 'object.rename', [id, name], { anywhere: true });
  return { id, action: `renamed to ${name}` };
}

function placeOf({ options }: Context): string {
  return `${new URL(options.url).host} ${printable(options.folder ?? options.datacenter ?? 'vm')}`;
}

/** The command that starts an instance; user data goes in as guestinfo, which cloud-init reads. One line. */
function startCommand({ name, options, userDataFile }: Context): string {
  const where = options.datacenter === undefined ? '' : ` -dc ${shellWord(options.datacenter)}`;
  const clone = `govc vm.clone${where} -vm ${shellWord(name)} -pool ${shellWord(options.pool)} -on=false NEW`;
  const data =
    userDataFile === undefined
      ? ''
      : ` && govc vm.change${where} -vm NEW -f guestinfo.userdata=${shellWord(userDataFile)}`;
  return `${clone}${data} && govc vm.power${where} -on NEW`;
}

/** vSphere: a template made of the OVA. */
export const vmwareUploader: Uploader<VmwareOptions, VmwarePlan> = {
  platform: vmware.name,
  summary: 'a template made of the OVA, by govc',
  Options: VmwareOptions,
  async login(options, signal) {
    await govcAbilities(signal);
    await aboutServer({ options, signal, log: silentLog });
  },
  plan: planImport,
  upload,
};
