/** The folder an image goes to, and the machines in it. */
import { PortError } from '../../core/errors.ts';
import type { UploadContext } from '../../core/uploader.ts';
import { type CollectedObject, parseCollected } from '../../tools/govc/json.ts';
import { absoluteFile, type GovcServer, govc } from '../../tools/govc/run.ts';
import { type Note, readNote } from './notes.ts';
import type { VmwareOptions } from './options.ts';

/** What every step is given. */
export type Context = UploadContext<VmwareOptions>;

/** A machine or template in the folder. */
export interface Machine {
  /** `VirtualMachine:vm-75`. */
  id: string;
  name: string;
  template: boolean;
  powerState: string;
  firmware: string;
  /** What its annotation says, when it is one of ours. */
  note: Note | undefined;
}

/** Where govc logs in. */
export function serverOf({ url, caFile }: VmwareOptions): GovcServer {
  return { url, caFile: absoluteFile(caFile) };
}

/** Runs one command on the target's server, in its datacenter where the command has one. Throws as govc. */
export function ask(
  ctx: Pick<Context, 'options' | 'signal' | 'log'>,
  command: string,
  args: readonly string[],
  more: { timeoutMs?: number; onStdout?: (text: string) => void; anywhere?: boolean } = {},
): Promise<string> {
  const { anywhere = false, ...rest } = more;
  const { datacenter } = ctx.options;
  const where = anywhere || datacenter === undefined ? [] : ['-dc', datacenter];
  return govc(serverOf(ctx.options), command, [...where, ...args], {
    signal: ctx.signal,
    log: ctx.log,
    ...rest,
  });
}

/** The folder's reference, `Folder:group-v3`. Throws CONFIG when there is none or several. */
export async function folderOf(ctx: Context): Promise<string> {
  const { folder, datacenter } = ctx.options;
  const named = folder ?? (datacenter === undefined ? 'vm' : `/${datacenter.replace(/^\//, '')}/vm`);
  const found = (await ask(ctx, 'find', ['-i', '-maxdepth', '0', named])).trim().split('\n');
  const [reference = ''] = found;
  if (found.length !== 1 || !/^Folder:[\w-]+$/.test(reference)) {
    throw new PortError('CONFIG', `vmware.folder: ${named} is not one folder of virtual machines`, {
      hint: 'list them with: govc find / -type f',
    });
  }
  return reference;
}

const PROPERTIES = [
  'name',
  'parent',
  'config.annotation',
  'config.template',
  'config.firmware',
  'runtime.powerState',
] as const;

/** The machines directly in the folder, those of folders below it not. Throws as govc. */
export async function machinesIn(ctx: Context, folder: string): Promise<Machine[]> {
  const text = await ask(ctx, 'object.collect', ['-json', '-type', 'm', folder, ...PROPERTIES], {
    anywhere: true,
  });
  return parseCollected(text).flatMap((object) => (parentOf(object) === folder ? [machine(object)] : []));
}

function parentOf({ values }: CollectedObject): string | undefined {
  const parent = values.get('parent');
  if (typeof parent !== 'object' || parent === null || !('type' in parent) || !('value' in parent))
    return undefined;
  return `${String(parent.type)}:${String(parent.value)}`;
}

function machine({ id, values }: CollectedObject): Machine {
  const text = (key: (typeof PROPERTIES)[number]): string => {
    const value = values.get(key);
    return typeof value === 'string' ? value : '';
  };
  return {
    id,
    // vSphere writes / \ and % of a name as %2f, %5c, %25
    name: text('name').replace(/%(2f|5c|25)/gi, (c) => decodeURIComponent(c)),
    template: values.get('config.template') === true,
    powerState: text('runtime.powerState'),
    firmware: text('config.firmware'),
    note: readNote(values.get('config.annotation')),
  };
}
