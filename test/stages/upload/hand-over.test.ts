import { execFileSync } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import * as path from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { platforms } from '../../../drivers/registry.ts';
import { HAND_OVERS, type HandOver, handOver, handOverScripts } from '../../../stages/upload/hand-over.ts';

const GIB = 2 ** 30;

let dir = '';
beforeEach(() => {
  dir = mkdtempSync(path.join(tmpdir(), 'hand-over-'));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

function input(platform: string, fields: Partial<HandOver> = {}, file = 'shop.img'): HandOver {
  return {
    name: 'shop',
    store: 'file:/s',
    firmware: 'uefi',
    arch: 'x86_64',
    artifacts: [
      {
        platform,
        path: `/out/${file}`,
        format: 'raw',
        bytes: 2 * GIB + 512,
        virtualBytes: 2 * GIB,
        sha256: '0',
      },
    ],
    dataSets: [{ id: 'set', path: '/srv', bytes: 5, mode: 'eager' }],
    hasNetworkData: false,
    ...fields,
  };
}

/** The commands of a text, each as the words a shell makes of it; the programs themselves are not run. */
function words(text: string, title: string): string[][] {
  const section = text.slice(text.indexOf(`${title}:\n`) + title.length + 2).split('\n\n')[0] ?? '';
  const programs = [
    'aws',
    'az',
    'azcopy',
    'gcloud',
    'oci',
    'aliyun',
    'govc',
    'xe',
    'virt-install',
    'openstack',
  ];
  const stubs = programs
    .map((p) => `${p}() { printf '%s\\0' ${p} "$@"; printf '\\n\\0' ; } 2>/dev/null;`)
    .join('\n');
  const out = execFileSync('bash', ['-c', `${stubs}\n${section.replace(/> import\.json/, '')}`], {
    cwd: dir,
    encoding: 'utf8',
    env: { PATH: '/usr/bin:/bin' },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const commands: string[][] = [[]];
  for (const word of out.split('\0').slice(0, -1)) {
    if (word === '\n') commands.push([]);
    else commands.at(-1)?.push(word);
  }
  return commands.slice(0, -1);
}

test('every platform says how its file is used by hand', () => {
  expect(Object.keys(HAND_OVERS).sort()).toEqual(platforms.map((p) => p.name).sort());
  for (const { name } of platforms) {
    const text = handOver(input(name));
    expect(text).toContain(`${HAND_OVERS[name]?.title}:\n`);
    expect(text).toContain('shop.img');
  }
});

const SHELL_PLATFORMS = platforms.map((p) => p.name).filter((name) => name !== 'hyperv');
const HOSTILE = [
  'a b',
  "it's",
  '$(touch pwned)',
  '`touch pwned`',
  '"; touch pwned; "',
  '-rf',
  'x,y',
  '\\',
  '*',
];

test.each(SHELL_PLATFORMS)('hostile names stay single words of the commands for %s', (platform) => {
  for (const hostile of HOSTILE) {
    const text = handOver(input(platform, { name: hostile }, `${hostile}.img`));
    const all = words(text, HAND_OVERS[platform]?.title ?? '').flat();
    const file = hostile.startsWith('-') ? `./${hostile}.img` : `${hostile}.img`;
    const asDisk = platform === 'qemu' ? `${hostile}.img`.replaceAll(',', ',,') : file;
    expect(
      all.some((word) => word.includes(asDisk) || word.includes(`${hostile}.img`)),
      text,
    ).toBe(true);
  }
  expect(readdirSync(dir)).toEqual([]);
});

test('what differs by firmware and processor is in the commands', () => {
  const bios = { firmware: 'bios', arch: 'aarch64' } as const;
  expect(handOver(input('aws'))).toContain('--boot-mode uefi');
  expect(handOver(input('aws', bios))).toMatch(/--architecture arm64.*\n.*--boot-mode legacy-bios/);
  expect(handOver(input('azure'))).toContain('--hyper-v-generation V2');
  expect(handOver(input('azure', bios))).toContain('--hyper-v-generation V1');
  expect(handOver(input('azure'))).toContain(`--upload-size-bytes ${2 * GIB + 512}`);
  expect(handOver(input('gcp'))).toContain('UEFI_COMPATIBLE');
  expect(handOver(input('gcp', bios))).not.toContain('UEFI_COMPATIBLE');
  expect(handOver(input('xen'))).toContain('HVM-boot-params:firmware=uefi');
  expect(handOver(input('alibaba', bios))).toContain('--BootMode BIOS');
  expect(handOver(input('gcp', { name: '9 Shop_A' }))).toContain('images create image-9-shop-a ');
});

test('JSON in the commands for AWS is JSON', () => {
  const all = words(handOver(input('aws', {}, 'a"b c.img')), 'AWS').flat();
  const container = all[all.indexOf('--disk-container') + 1] ?? '';
  expect(JSON.parse(container).UserBucket.S3Key).toBe('a"b c.img');
});

test('Hyper-V gets a script beside the disk', () => {
  expect(handOverScripts(input('aws'))).toEqual([]);
  const [script] = handOverScripts(input('hyperv'));
  expect(script?.name).toBe('shop-hyperv.ps1');
  expect(script?.text.startsWith('\ufeff')).toBe(true);
  expect(script?.text).toContain('-Generation 2');
  expect(script?.text).toContain('MicrosoftUEFICertificateAuthority');
  const [bios] = handOverScripts(input('hyperv', { firmware: 'bios' }));
  expect(bios?.text).toContain('-Generation 1');
  expect(bios?.text).not.toContain('Set-VMFirmware');
  const [odd] = handOverScripts(input('hyperv', { name: "x'; calc #" }, 'a\u2019; calc.vhdx'));
  expect(odd?.text).toContain("$Name = 'x''; calc #',");
  expect(odd?.text).toContain("Join-Path $PSScriptRoot 'a\u2019\u2019; calc.vhdx'");
});

test('a further disk is named even where nothing is known of attaching it', () => {
  const base = input('vmware');
  const [artifact] = base.artifacts;
  if (artifact === undefined) throw new Error('no artifact');
  const text = handOver({
    ...base,
    artifacts: [artifact, { ...artifact, disk: 'sdb', path: '/out/shop-sdb.ova' }],
  });
  expect(text).toContain('vmware: shop-sdb.ova');
});
