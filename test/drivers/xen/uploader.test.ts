import { execFileSync } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { MIB } from '../../../core/sizes.ts';
import type { Artifact } from '../../../core/types.ts';
import type { UploadContext } from '../../../core/uploader.ts';
import { xen } from '../../../drivers/xen/index.ts';
import { XenOptions } from '../../../drivers/xen/options.ts';
import { xenUploader } from '../../../drivers/xen/uploader.ts';
import { requires } from '../../support/requires.ts';
import { uploadContext } from '../../support/upload-context.ts';
import { XapiServer } from './server.ts';

const it = test.skipIf(requires('qemu-img'));

let server: XapiServer;
let url: string;
let dir: string;
beforeEach(async () => {
  dir = mkdtempSync(path.join(os.tmpdir(), 'port-image-xen-'));
  server = new XapiServer();
  url = await server.start();
  vi.stubEnv('XAPI_USERNAME', server.username);
  vi.stubEnv('XAPI_PASSWORD', server.password);
});
afterEach(() => {
  vi.unstubAllEnvs();
  server.stop();
  rmSync(dir, { recursive: true, force: true });
});

const sha256 = (data: Uint8Array) => createHash('sha256').update(data).digest('hex');

/** A dynamic VHD as the product encodes it, with some random data, and the digest of its raw form. */
function vhd(name = 'disk'): { artifact: Artifact; raw: string } {
  const raw = path.join(dir, `${name}.raw`);
  const content = Buffer.concat([randomBytes(3 * MIB), Buffer.alloc(13 * MIB)]);
  writeFileSync(raw, content);
  const file = path.join(dir, `${name}.vhd`);
  execFileSync('qemu-img', [
    'convert',
    '-O',
    'vpc',
    '-o',
    'subformat=dynamic,force_size=on',
    '-f',
    'raw',
    raw,
    file,
  ]);
  const artifact = {
    platform: 'xen',
    path: file,
    format: 'vpc',
    bytes: statSync(file).size,
    virtualBytes: content.length,
    sha256: sha256(readFileSync(file)),
  };
  return { artifact, raw: sha256(content) };
}

function context(
  image: { artifact: Artifact; raw: string } | undefined,
  fields: Partial<UploadContext<XenOptions>> = {},
  given: Record<string, unknown> = {},
) {
  const options = XenOptions.parse({ url, sr: 'Local storage', network: 'Pool-wide network', ...given });
  return uploadContext(dir, xen, options, image === undefined ? [] : [image.artifact], {
    virtualBytes: 16 * MIB,
    rawSha256: async () => image?.raw ?? '',
    ...fields,
  });
}

async function run(ctx: ReturnType<typeof context>) {
  return xenUploader.upload(ctx, await xenUploader.plan(ctx));
}

const named = (name: string) => server.all('VM').filter((vm) => vm.name_label === name);

it('makes a template of a VHD whose content reads back as it was (double of XAPI)', async () => {
  const image = vhd();
  const ctx = context(image, { name: 'web01' });
  ctx.facts.firmware = 'uefi';
  const result = await run(ctx);
  expect(result).toMatchObject({
    name: 'web01',
    content: 'ok',
    sentBytes: image.artifact.bytes,
    method: 'import-raw-vdi',
    replaced: [],
  });
  const [vm] = named('web01');
  expect(vm).toMatchObject({
    uuid: result.id,
    is_a_template: true,
    domain_type: 'hvm',
    HVM_boot_params: { order: 'c', firmware: 'uefi' },
    other_config: {
      'port-image.mark': ctx.mark,
      'port-image.state': 'complete',
      'port-image.id': 'shop01-2026.01.02',
    },
  });
  expect(vm?.other_config).not.toHaveProperty('default_template');
  expect(server.all('VIF')).toHaveLength(1);
  expect(server.all('task')).toHaveLength(0);
  expect(server.openSessions).toBe(0);
  // again, as after a kill at the very end
  expect(await run(ctx)).toMatchObject({ id: result.id, sentBytes: 0, content: 'ok' });
  expect(server.all('VDI')).toHaveLength(1);
});

it('attaches further disks behind the one it starts from (double of XAPI)', async () => {
  const first = vhd('first');
  const second = vhd('second');
  const ctx = context(first, {
    name: 'two',
    artifacts: [first.artifact, { ...second.artifact, disk: 'sdb' }],
    rawSha256: async (artifact) => (artifact.disk === undefined ? first.raw : second.raw),
  });
  expect(await run(ctx)).toMatchObject({
    content: 'ok',
    bytes: first.artifact.bytes + second.artifact.bytes,
  });
  const order = server.all('VBD').map((vbd) => [vbd.userdevice, vbd.bootable]);
  expect(order).toEqual([
    ['0', true],
    ['1', false],
  ]);
  expect(server.all('VDI').map((vdi) => vdi.name_label)).toEqual(['two disk', 'two sdb']);
});

it('keeps session and password out of addresses (double of XAPI)', async () => {
  await run(context(vhd()));
  const all = server.paths.join('\n');
  expect(all).toContain('/import_raw_vdi?');
  expect(all).not.toContain('session_id');
  expect(all).not.toContain(encodeURIComponent(server.password));
});

it('removes a copy that reads back as another disk (double of XAPI)', async () => {
  server.faults = { damage: true };
  await expect(run(context(vhd(), { name: 'bad' }))).rejects.toMatchObject({ code: 'CLOUD_MISMATCH' });
  expect(server.all('VDI')).toHaveLength(0);
  expect(named('bad')).toHaveLength(0);
  expect(server.openSessions).toBe(0);
});

it('says so when it was not to read back (double of XAPI)', async () => {
  const result = await run(context(vhd(), {}, { readBack: false }));
  expect(result).toMatchObject({ content: 'unverifiable', proof: expect.stringContaining('not read back') });
  expect(server.paths.some((p) => p.startsWith('/export'))).toBe(false);
});

it('tells what the task failed with, although the host answered 200 (double of XAPI)', async () => {
  server.faults = { failImport: { code: 'SR_FULL', args: ['1', '2'], afterBytes: MIB } };
  await expect(run(context(vhd()))).rejects.toMatchObject({
    code: 'CLOUD_REFUSED',
    message: expect.stringContaining('SR_FULL'),
  });
  expect(server.all('VDI')).toHaveLength(0);
});

it('takes a cut connection for a fault that may heal, and the next run succeeds (double of XAPI)', async () => {
  server.faults = { cutImport: MIB };
  const ctx = context(vhd(), { name: 'cut' });
  await expect(run(ctx)).rejects.toMatchObject({ code: 'CLOUD', temporary: true });
  expect(await run(ctx)).toMatchObject({ content: 'ok' });
  expect(server.all('VDI')).toHaveLength(1);
});

it('does not follow to another host (double of XAPI)', async () => {
  server.faults = { redirect: 'https://10.0.0.9/import_raw_vdi?x' };
  await expect(run(context(vhd()))).rejects.toMatchObject({
    code: 'CLOUD_REFUSED',
    message: expect.stringContaining('10.0.0.9'),
  });
});

it('removes what its own killed run left, and nothing else (double of XAPI)', async () => {
  const ctx = context(vhd(), { name: 'again' });
  const temporary = `port-image-${ctx.mark}`;
  const disk = (mark: string, label: string) =>
    server.add('VDI', { name_label: label, other_config: { 'port-image.mark': mark }, VBDs: [] });
  const left = disk(ctx.mark, temporary);
  const renamed = disk(ctx.mark, 'kept by a person');
  const foreign = disk('another', temporary);
  await run(ctx);
  expect(server.objects.has(left)).toBe(false);
  expect(server.objects.has(renamed)).toBe(true);
  expect(server.objects.has(foreign)).toBe(true);
});

it('renames an older image of ours, removes it, or gives up, as asked (double of XAPI)', async () => {
  const name = 'versions';
  const first = await run(context(vhd('a'), { name }));
  const second = await run(context(vhd('b'), { name }));
  expect(second.replaced).toEqual([{ id: first.id, action: 'renamed' }]);
  const third = await run(context(vhd('c'), { name }, { onExists: 'replace' }));
  expect(third.replaced).toEqual([{ id: second.id, action: 'removed' }]);
  expect(server.all('VDI')).toHaveLength(2);
  const refused = context(undefined, { name }, { onExists: 'fail' });
  await expect(xenUploader.plan(refused)).rejects.toMatchObject({ code: 'CLOUD_CONFLICT' });
});

it('takes no name of a machine that is not ours or runs (double of XAPI)', async () => {
  const vm = { name_label: 'db', is_a_template: false, power_state: 'Running', VBDs: [] };
  server.add('VM', { ...vm, other_config: {} });
  const ctx = context(undefined, { name: 'db' }, { onExists: 'replace' });
  await expect(xenUploader.plan(ctx)).rejects.toMatchObject({ code: 'CLOUD_CONFLICT' });
  server.add('VM', { ...vm, name_label: 'clone', other_config: { 'port-image.mark': 'x' } });
  const clone = context(undefined, { name: 'clone' }, { onExists: 'replace' });
  await expect(xenUploader.plan(clone)).rejects.toMatchObject({ code: 'CLOUD_CONFLICT' });
});

it.each([
  ['storage', { sr: 'nope' }, 'CONFIG'],
  ['storage for ISOs', { sr: 'tools' }, 'CONFIG'],
  ['storage by UUID', { sr: '01234567-0123-0123-0123-0123456789ab' }, 'CONFIG'],
  ['network', { network: 'nope' }, 'CONFIG'],
  ['base', { baseTemplate: 'nope' }, 'CONFIG'],
  ['server', { url: 'http://127.0.0.1:1' }, 'CLOUD'],
])('says what is wrong with the %s, and changes nothing (double of XAPI)', async (_what, given, code) => {
  await expect(xenUploader.plan(context(undefined, {}, given))).rejects.toMatchObject({ code });
  expect(server.methods.filter((m) => /create|set_|clone|destroy/.test(m))).toEqual([]);
  expect(server.openSessions).toBe(0);
});

test.skipIf(requires('qemu-img', 'openssl'))(
  'believes the host only by a certificate of the authority that was named (double of XAPI)',
  async () => {
    const at = (name: string) => path.join(dir, name);
    execFileSync(
      'openssl',
      [
        'req',
        '-x509',
        '-newkey',
        'ec',
        '-pkeyopt',
        'ec_paramgen_curve:P-256',
        '-nodes',
        '-subj',
        '/CN=xapi',
      ].concat([
        ...['-addext', 'subjectAltName=IP:127.0.0.1', '-keyout', at('key.pem'), '-out', at('cert.pem')],
      ]),
      { stdio: 'pipe' },
    );
    const tls = { key: readFileSync(at('key.pem'), 'utf8'), cert: readFileSync(at('cert.pem'), 'utf8') };
    const secure = new XapiServer(tls);
    try {
      const given = { url: await secure.start() };
      vi.stubEnv('XAPI_PASSWORD', secure.password);
      const error = await xenUploader.plan(context(undefined, {}, given)).catch((e: unknown) => e);
      expect(error).toMatchObject({
        code: 'CLOUD',
        temporary: false,
        hint: expect.stringContaining('caFile'),
      });
      expect(secure.methods).toEqual([]);
      const ctx = context(vhd(), { name: 'secure' }, { ...given, caFile: at('cert.pem') });
      expect(await run(ctx)).toMatchObject({ content: 'ok' });
    } finally {
      secure.stop();
    }
  },
);

it('needs https but on loopback, and a password that is right (double of XAPI)', async () => {
  const plain = context(undefined, {}, { url: 'http://xen.example' });
  await expect(xenUploader.plan(plain)).rejects.toMatchObject({ code: 'CONFIG' });
  vi.stubEnv('XAPI_PASSWORD', 'wrong one');
  const error = await xenUploader.plan(context(undefined)).catch((e: unknown) => e);
  expect(error).toMatchObject({ code: 'CLOUD_LOGIN' });
  expect(`${error}${JSON.stringify(error)}`).not.toContain('wrong one');
  vi.stubEnv('XAPI_PASSWORD', undefined);
  await expect(xenUploader.plan(context(undefined))).rejects.toMatchObject({ code: 'CLOUD_LOGIN' });
});
