import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, expect, test, vi } from 'vitest';
import { sha256File } from '../../../core/files.ts';
import { GIB, MIB } from '../../../core/sizes.ts';
import type { Artifact } from '../../../core/types.ts';
import type { UploadContext } from '../../../core/uploader.ts';
import { vmware } from '../../../drivers/vmware/index.ts';
import { isTemporaryName, readNote, temporaryName } from '../../../drivers/vmware/notes.ts';
import { VmwareOptions } from '../../../drivers/vmware/options.ts';
import { vmwareUploader } from '../../../drivers/vmware/uploader.ts';
import { documents } from '../../../tools/govc/json.ts';
import { guestOsOf } from '../../../tools/ova/guest-os.ts';
import { writeOva as encodeOva } from '../../../tools/ova/write.ts';
import { requires } from '../../support/requires.ts';
import { serviceProgram } from '../../support/services.ts';
import { uploadContext } from '../../support/upload-context.ts';
import { startVcsim, type Vcsim, writeOva } from './vcsim.ts';

const govcProgram = await serviceProgram('govc');
const vcsimProgram = await serviceProgram('vcsim');
const missing = govcProgram === undefined || vcsimProgram === undefined;
const it = test.skipIf(missing);
const withQemu = test.skipIf(missing || requires('qemu-img') !== undefined);

let vcsim: Vcsim;
let dir: string;

beforeAll(async () => {
  if (vcsimProgram !== undefined) vcsim = await startVcsim(vcsimProgram);
});
afterAll(() => vcsim?.stop());
beforeEach(() => {
  dir = mkdtempSync(path.join(os.tmpdir(), 'port-image-vmware-'));
  if (vcsim === undefined) return;
  vi.stubEnv('PATH', `${path.dirname(govcProgram ?? '')}:${process.env.PATH ?? ''}`);
  vi.stubEnv('GOVC_USERNAME', vcsim.username);
  vi.stubEnv('GOVC_PASSWORD', vcsim.password);
});
afterEach(() => {
  vi.unstubAllEnvs();
  rmSync(dir, { recursive: true, force: true });
});

const options = (fields: Record<string, unknown> = {}) =>
  VmwareOptions.parse({
    url: vcsim.url,
    caFile: vcsim.caFile,
    datacenter: 'DC0',
    datastore: 'LocalDS_0',
    pool: '/DC0/host/DC0_C0/Resources',
    folder: '/DC0/vm',
    network: 'VM Network',
    ...fields,
  });

const context = (
  ova: Artifact | undefined,
  fields: Partial<UploadContext<VmwareOptions>> = {},
  given: Record<string, unknown> = {},
) =>
  uploadContext(dir, vmware, options(given), ova === undefined ? [] : [ova], {
    virtualBytes: 64 * MIB,
    ...fields,
  });

/** govc itself as the independent reader. */
function govc(...args: string[]): string {
  return execFileSync(govcProgram ?? '', args, {
    encoding: 'utf8',
    env: {
      PATH: process.env.PATH,
      HOME: dir,
      GOVC_URL: vcsim.url,
      GOVC_USERNAME: vcsim.username,
      GOVC_PASSWORD: vcsim.password,
      GOVC_TLS_CA_CERTS: vcsim.caFile,
      GOVC_PERSIST_SESSION: 'false',
    },
  });
}

/** Machines of the datacenter by name. */
function machines(): Map<
  string,
  { template: boolean; firmware: string; annotation: string | null; id: string }
> {
  const text = govc(
    ...['object.collect', '-json', '-type', 'm', '/DC0/vm'],
    ...['name', 'config.template', 'config.firmware', 'config.annotation'],
  );
  return new Map(
    documents(text).map((document) => {
      const { obj, changeSet } = JSON.parse(document);
      const value = (name: string) => changeSet.find((c: { name: string }) => c.name === name)?.val;
      return [
        value('name'),
        {
          template: value('config.template'),
          firmware: value('config.firmware'),
          annotation: value('config.annotation'),
          id: `${obj.type}:${obj.value}`,
        },
      ];
    }),
  );
}

const unfinished = (mark: string) => [...machines().keys()].some((name) => isTemporaryName(name, mark));

async function run(ctx: ReturnType<typeof context>) {
  return vmwareUploader.upload(ctx, await vmwareUploader.plan(ctx));
}

it('imports an OVA as a template whose bytes the host vouches for (vcsim, govc)', async () => {
  const ova = await writeOva(dir, { diskBytes: 3 * MIB });
  const ctx = context(ova, { name: 'web01' });
  ctx.facts.firmware = 'uefi';
  const image = await run(ctx);
  expect(image).toMatchObject({
    platform: 'vmware',
    name: 'web01',
    content: 'ok',
    bytes: 3 * MIB,
    sentBytes: 3 * MIB,
    replaced: [],
    details: { kind: 'template', datastore: 'LocalDS_0' },
  });
  expect(image.proof).toContain('SHA-1');
  const made = machines().get('web01');
  expect(made).toMatchObject({ template: true, firmware: 'efi', id: image.id });
  expect(readNote(made?.annotation)).toMatchObject({
    mark: ctx.mark,
    state: 'complete',
    file: ova.sha256,
    content: 'ok',
    id: 'shop01-2026.01.02',
  });
  const devices = govc('device.ls', '-dc', 'DC0', '-vm', image.id);
  expect(devices).toContain('ParaVirtualSCSIController');
  expect(devices).toContain('VirtualVmxnet3');
  expect(unfinished(ctx.mark)).toBe(false);
  // again, as after a kill at the very end: nothing is sent
  expect(await run(ctx)).toMatchObject({ id: image.id, sentBytes: 0, content: 'ok' });
});

withQemu('imports the OVA the encoder writes, its disk a real VMDK (vcsim, govc)', async () => {
  const raw = path.join(dir, 'disk.raw');
  const vmdk = path.join(dir, 'web02.vmdk');
  writeFileSync(raw, Buffer.concat([randomBytes(5 * MIB), Buffer.alloc(59 * MIB)]));
  execFileSync('qemu-img', [
    ...['convert', '-f', 'raw', '-O', 'vmdk', '-o', 'subformat=streamOptimized', raw, vmdk],
  ]);
  const machine = {
    name: 'web02',
    os: { ...guestOsOf({ distro: 'debian', version: '12' }), title: 'Debian 12' },
    firmware: 'uefi' as const,
    cpus: 2,
    memoryBytes: GIB,
  };
  const file = path.join(dir, 'web02.ova');
  writeFileSync(file, '');
  const disks = [{ path: vmdk, virtualBytes: 64 * MIB, populatedBytes: 5 * MIB }];
  await encodeOva(file, machine, disks, { signal: new AbortController().signal });
  const ctx = context(
    {
      platform: 'vmware',
      path: file,
      format: 'vmdk',
      bytes: statSync(file).size,
      virtualBytes: 64 * MIB,
      sha256: await sha256File(file),
    },
    { name: 'web02' },
  );
  ctx.facts.firmware = 'uefi';
  const image = await run(ctx);
  expect(image).toMatchObject({ content: 'ok', bytes: statSync(vmdk).size });
  expect(machines().get('web02')).toMatchObject({ template: true, firmware: 'efi' });
  const devices = govc('device.ls', '-dc', 'DC0', '-vm', image.id);
  expect(devices).toContain('ParaVirtualSCSIController');
  expect(devices).toContain('VirtualVmxnet3');
});

it('leaves alone a clone that inherited the annotation (vcsim, govc)', async () => {
  const ctx = context(await writeOva(dir), { name: 'clonable' });
  const { start } = await run(ctx);
  expect(start.startsWith('govc vm.clone -dc DC0 -vm clonable ')).toBe(true);
  govc(
    'vm.clone',
    '-dc',
    'DC0',
    '-vm',
    'clonable',
    '-pool',
    '/DC0/host/DC0_C0/Resources',
    '-on=false',
    'a-clone',
  );
  // vSphere gives a clone the annotation of its template, the simulator does not
  const annotation = machines().get('clonable')?.annotation ?? '';
  govc('vm.change', '-dc', 'DC0', '-vm', 'a-clone', '-annotation', annotation);
  expect(readNote(machines().get('a-clone')?.annotation)?.mark).toBe(ctx.mark);
  await run({ ...ctx, artifacts: [await writeOva(dir, { name: 'second.ova' })] });
  expect(machines().has('a-clone')).toBe(true);
});

it('renames an older image of ours, removes it, or gives up, as asked (vcsim, govc)', async () => {
  const name = 'versions';
  const first = await run(context(await writeOva(dir), { name }));
  const second = await run(context(await writeOva(dir), { name }));
  expect(second.replaced).toEqual([
    { id: first.id, action: expect.stringContaining('renamed to versions-before-') },
  ]);
  const third = await run(context(await writeOva(dir), { name }, { onExists: 'replace' }));
  expect(third.replaced).toEqual([{ id: second.id, action: 'removed' }]);
  const ids = [...machines().values()].map((m) => m.id);
  expect(ids).toContain(first.id);
  expect(ids).not.toContain(second.id);
  const refused = context(undefined, { name }, { onExists: 'fail' });
  await expect(vmwareUploader.plan(refused)).rejects.toMatchObject({ code: 'CLOUD_CONFLICT' });
});

it('takes no name of a machine that is not ours, also not to replace it (vcsim, govc)', async () => {
  const ctx = context(undefined, { name: 'DC0_H0_VM0' }, { onExists: 'replace' });
  await expect(vmwareUploader.plan(ctx)).rejects.toMatchObject({ code: 'CLOUD_CONFLICT' });
  expect(machines().has('DC0_H0_VM0')).toBe(true);
});

it('resumes after an import that was broken off, and removes only its own half (vcsim, govc)', async () => {
  const ova = await writeOva(dir, { diskBytes: 192 * MIB });
  const other = context(await writeOva(dir, { name: 'other.ova' }), { name: 'bystander' });
  await run(other);
  const stop = new AbortController();
  let watch: NodeJS.Timeout | undefined;
  const ctx = context(ova, {
    name: 'broken',
    signal: stop.signal,
    progress: ({ text }) => {
      if (text !== 'importing') return;
      watch ??= setInterval(() => {
        if (unfinished(ctx.mark)) stop.abort();
      }, 50);
    },
  });
  const plan = await vmwareUploader.plan(ctx);
  await expect(vmwareUploader.upload(ctx, plan)).rejects.toMatchObject({ code: 'INTERRUPTED' });
  clearInterval(watch);
  const half = machines().get(temporaryName(ctx.mark, ova.sha256));
  expect(readNote(half?.annotation)).toMatchObject({ mark: ctx.mark, state: 'importing' });
  const image = await run({ ...ctx, signal: new AbortController().signal });
  expect(image.sentBytes).toBe(192 * MIB);
  expect(image.id).not.toBe(half?.id);
  const names = [...machines().keys()];
  expect(names).toContain('bystander');
  expect(unfinished(ctx.mark)).toBe(false);
});

it('publishes an import that was whole when the run ended, without sending it again (vcsim, govc)', async () => {
  const ova = await writeOva(dir);
  const ctx = context(ova, { name: 'late' });
  const image = await run(ctx);
  govc('object.rename', '-dc', 'DC0', image.id, temporaryName(ctx.mark, ova.sha256));
  expect(await run(ctx)).toMatchObject({ id: image.id, sentBytes: 0, content: 'ok' });
  expect(machines().has('late')).toBe(true);
});

it('refuses an OVA that changed after it was made, before anything is sent (vcsim, govc)', async () => {
  const ova = await writeOva(dir, { manifest: (text) => text.replace(/= ..../g, '= 0000') });
  const ctx = context(ova, { name: 'changed' });
  await expect(run(ctx)).rejects.toMatchObject({ code: 'OUTPUT_DIFFERS' });
  expect(unfinished(ctx.mark)).toBe(false);
});

it('removes a machine that lost its devices on the way (vcsim, govc)', async () => {
  const ctx = context(await writeOva(dir, { nic: 'E1000' }), { name: 'lost' });
  await expect(run(ctx)).rejects.toMatchObject({
    code: 'CLOUD_MISMATCH',
    message: expect.stringContaining('vmxnet3'),
  });
  expect(machines().has('lost')).toBe(false);
  expect(unfinished(ctx.mark)).toBe(false);
});

it('leaves a machine that is off where no template is wanted (vcsim, govc)', async () => {
  await run(context(await writeOva(dir), { name: 'machine' }, { template: false }));
  expect(machines().get('machine')).toMatchObject({ template: false, firmware: 'bios' });
});

it.each([
  ['datastore', { datastore: 'nope' }, 'CONFIG', 'nope'],
  ['pool', { pool: '/DC0/host/nope' }, 'CONFIG', 'vmware.pool'],
  ['folder', { folder: '/DC0/vm/nope' }, 'CONFIG', '/DC0/vm/nope'],
  ['network', { network: 'nope' }, 'CONFIG', 'nope'],
  ['datacenter', { datacenter: 'DC9' }, 'CONFIG', 'DC9'],
  ['authority', { caFile: undefined }, 'CLOUD', 'certificate'],
  ['server', { url: 'https://127.0.0.1:1' }, 'CLOUD', 'refused'],
])('says what is wrong with the %s, and changes nothing (vcsim, govc)', async (_what, given, code, text) => {
  const before = [...machines().keys()];
  const ctx = context(undefined, {}, given);
  await expect(vmwareUploader.plan(ctx)).rejects.toMatchObject({
    code,
    message: expect.stringContaining(text),
  });
  expect([...machines().keys()]).toEqual(before);
});

it('refuses a disk larger than the datastore holds (vcsim, govc)', async () => {
  const ctx = context(undefined, { virtualBytes: 62 * 1024 * GIB });
  await expect(vmwareUploader.plan(ctx)).rejects.toMatchObject({ code: 'CLOUD_REFUSED' });
});

it('shows no password: not in errors, not in the arguments of govc (vcsim, govc)', async () => {
  const wrong = `wrong ${vcsim.password}`;
  vi.stubEnv('GOVC_PASSWORD', wrong);
  const lines: string[] = [];
  const log = {
    debug: (text: string, fields = {}) => lines.push(text + JSON.stringify(fields)),
    info: () => {},
    warn: () => {},
  };
  const ctx = context(undefined, { log } as Partial<UploadContext<VmwareOptions>>);
  const error = await vmwareUploader.plan(ctx).catch((e: unknown) => e);
  expect(error).toMatchObject({ code: 'CLOUD_LOGIN' });
  expect(lines.length).toBeGreaterThan(0);
  const told = `${lines.join()}${String(error)}${JSON.stringify(error)}`;
  expect(told).not.toContain(wrong);
  expect(told).not.toContain(vcsim.username);
});
