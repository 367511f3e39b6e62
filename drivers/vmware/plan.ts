/** Proves that an import can work; nothing is made. */
import { PortError } from '../../core/errors.ts';
import { formatBytes } from '../../core/sizes.ts';
import { printable } from '../../core/text.ts';
import { About, Datastores, Pools, parseAnswer } from '../../tools/govc/json.ts';
import { govcAbilities } from '../../tools/govc/run.ts';
import { ask, type Context, folderOf, type Machine, machinesIn } from './inventory.ts';
import { isTemporaryName } from './notes.ts';

/** Longest name of a virtual machine (vSphere API, VirtualMachineConfigSpec.name). */
const MAX_NAME = 80;

/** What will be done. */
export interface VmwarePlan {
  /** Product and version, for people. */
  server: string;
  /** `Folder:group-v3`. */
  folder: string;
  /** The host's digests can be compared. */
  checksums: boolean;
}

/** Throws CONFIG, CLOUD_LOGIN, CLOUD_REFUSED, CLOUD_CONFLICT, CLOUD, PROGRAM_MISSING. */
export async function planImport(ctx: Context): Promise<VmwarePlan> {
  const { options, name } = ctx;
  if (name.length > MAX_NAME) {
    throw new PortError('CONFIG', `vSphere names have at most ${MAX_NAME} characters: ${name}`, {
      hint: 'give a shorter one with --name',
    });
  }
  const { checksums } = await govcAbilities(ctx.signal);
  const about = await aboutServer(ctx);
  if (options.template && about.apiType !== 'VirtualCenter') {
    throw new PortError('CONFIG', 'an ESXi host without vCenter has no templates', {
      hint: 'leave a virtual machine: --set vmware.template=false',
    });
  }
  await requireRoom(ctx);
  await requirePlaces(ctx);
  const folder = await folderOf(ctx);
  const machines = await machinesIn(ctx, folder);
  const older = requireFreeName(ctx, machines);
  announce(ctx, machines, older);
  if (!checksums) ctx.warn('this govc cannot compare the digests of the host: the content stays unproven');
  return { server: printable(about.fullName), folder, checksums };
}

/** Logs in. Throws as govc. */
export async function aboutServer(ctx: Pick<Context, 'options' | 'signal' | 'log'>) {
  return parseAnswer(About, 'about', await ask(ctx, 'about', ['-json'], { anywhere: true })).about;
}

async function requireRoom(ctx: Context): Promise<void> {
  const { datastore, provisioning } = ctx.options;
  const text = await ask(ctx, 'datastore.info', ['-json', datastore]);
  const [store] = parseAnswer(Datastores, 'datastore.info', text).datastores ?? [];
  if (store === undefined)
    throw new PortError('CONFIG', `vmware.datastore: there is no ${printable(datastore)}`);
  const { freeSpace, accessible, maintenanceMode } = store.summary;
  const refuse = (why: string, hint: string) => {
    throw new PortError('CLOUD_REFUSED', `datastore ${printable(datastore)} ${why}`, { hint });
  };
  if (!accessible) refuse('is not accessible', 'choose another: --set vmware.datastore=NAME');
  if (maintenanceMode !== 'normal')
    refuse('is in maintenance', 'choose another: --set vmware.datastore=NAME');
  if (store.info.maxFileSize > 0 && store.info.maxFileSize < ctx.virtualBytes) {
    refuse(
      `holds no file of ${formatBytes(ctx.virtualBytes)}`,
      'choose another: --set vmware.datastore=NAME',
    );
  }
  // A thin disk takes what the image holds; in a plan before encoding that is not known yet.
  const needed =
    provisioning === 'thin' ? Math.max(0, ...ctx.artifacts.map((a) => a.bytes)) : ctx.virtualBytes;
  if (freeSpace < needed) {
    refuse(
      `has ${formatBytes(freeSpace)} free, ${formatBytes(needed)} are needed`,
      'make room or choose another datastore',
    );
  }
  if (freeSpace < ctx.virtualBytes) {
    ctx.warn(`datastore ${printable(datastore)} has less free space than the disk may grow to`);
  }
}

async function requirePlaces(ctx: Context): Promise<void> {
  const { pool, network } = ctx.options;
  const pools =
    parseAnswer(Pools, 'pool.info', await ask(ctx, 'pool.info', ['-json', pool])).resourcePools ?? [];
  if (pools.length !== 1) {
    throw new PortError('CONFIG', `vmware.pool: ${printable(pool)} is not one resource pool`, {
      hint: 'list them with: govc find / -type p',
    });
  }
  if (network === undefined) return;
  const named = network.startsWith('/') ? network : `network/${network}`;
  const found = (await ask(ctx, 'ls', ['-i', named])).trim();
  if (found === '' || found.includes('\n')) {
    throw new PortError('CONFIG', `vmware.network: ${printable(network)} is not one network`, {
      hint: 'list them with: govc find / -type n',
    });
  }
}

/**
 * The older machine of ours that has the name, if any; what this job made (`own`) does not count. Throws CLOUD_CONFLICT when the
 * name is not ours to take.
 */
export function requireFreeName(
  ctx: Context,
  machines: readonly Machine[],
  own = (m: Machine): boolean => m.note?.mark === ctx.mark,
): Machine | undefined {
  const holder = machines.find((m) => m.name === ctx.name && !own(m));
  if (holder === undefined) return undefined;
  const { onExists } = ctx.options;
  const conflict = (why: string) =>
    new PortError(
      'CLOUD_CONFLICT',
      `the folder has a ${holder.template ? 'template' : 'machine'} ${ctx.name} ${why}`,
      {
        hint: 'choose another name or folder, or rename it',
      },
    );
  if (holder.note === undefined) throw conflict('that is not of port-image');
  if (onExists === 'fail' && holder.note.mark !== ctx.mark) throw conflict('already');
  if (!holder.template && holder.powerState !== 'poweredOff') throw conflict('that is running');
  return holder;
}

function announce(ctx: Context, machines: readonly Machine[], older: Machine | undefined): void {
  const { options, name, mark } = ctx;
  const place = `vsphere:${options.folder ?? 'vm'}`;
  ctx.change({
    path: `${place}/${name}`,
    action: 'create',
    why: `import of the OVA to datastore ${printable(options.datastore)}${options.template ? ', as a template' : ''}`,
  });
  if (older !== undefined) {
    ctx.change(
      options.onExists === 'replace'
        ? { path: `${place}/${older.id}`, action: 'remove', why: 'replaced by the new image' }
        : { path: `${place}/${older.id}`, action: 'rename', why: 'an older version' },
    );
  }
  for (const left of machines) {
    if (isTemporaryName(left.name, mark) && left.note?.mark === mark) {
      ctx.change({ path: `${place}/${left.id}`, action: 'remove', why: 'left by a run of this job' });
    }
  }
}
