/** From the options of `convert`, as flags or a configuration file, to a request. */
import * as fs from 'node:fs/promises';
import * as os from 'node:os';
import * as path from 'node:path';
import { parse } from 'yaml';
import * as z from 'zod';
import { PortError } from '../../core/errors.ts';
import { exists } from '../../core/files.ts';
import { Request, SOURCE_FORMATS, type SourceFormat } from '../../core/request.ts';
import { parseSource, sourceText } from '../../core/source.ts';
import { printable } from '../../core/text.ts';
import { platformsNamed } from '../../drivers/registry.ts';
import { jobsHome } from '../job.ts';
import { type CaptureFlags, captureConfigFields, captureOptions, requireChecksumIsUsed } from './capture.ts';
import { type CloudFlags, cloudConfigFields, cloudRequest, storeRequest } from './cloud.ts';
import { targetsOf } from './targets.ts';

/** Flags that name further disks and say what they are for. */
export interface DiskFlags {
  disk?: string[];
  withDisk?: string[];
}

/** The same in a configuration file. */
const diskConfigFields = {
  disks: z.record(z.string(), z.enum(['data', 'image', 'skip'])).optional(),
  withDisks: z.array(z.string()).optional(),
};

/** Options of `convert` as a command line gives them. */
export interface ConvertFlags extends CloudFlags, CaptureFlags, DiskFlags {
  to?: string;
  name?: string;
  job?: string;
  store?: string;
  strip?: string[] | false;
  customize?: string;
  network?: string;
  nic?: string[];
  format?: string;
  root?: string;
  packages?: string;
  encoding?: string;
  qcow2Compat?: boolean;
  dataMode?: string;
  generalize?: boolean;
  verify: boolean;
  compare: boolean;
  set?: string[];
  config?: string;
}

/** `--config FILE` (YAML), and a server of a sync: the same names as the flags; flags win. Unknown names are refused. */
export const ConvertOptions = z.strictObject({
  ...cloudConfigFields,
  ...captureConfigFields,
  ...diskConfigFields,
  to: z.union([z.string(), z.array(z.string())]).optional(),
  name: z.string().optional(),
  job: z.string().optional(),
  store: z.string().optional(),
  strip: z.union([z.literal('auto'), z.literal(false), z.array(z.string())]).optional(),
  dataMode: z.enum(['eager', 'lazy', 'manual']).optional(),
  customize: z.string().optional(),
  network: z.enum(['dhcp', 'keep']).optional(),
  nics: z.array(z.strictObject({ mac: z.string(), name: z.string() })).optional(),
  format: z.enum(SOURCE_FORMATS).optional(),
  root: z.string().optional(),
  packages: z.string().optional(),
  encoding: z.enum(['zstd', 'compat', 'raw']).optional(),
  generalize: z.boolean().optional(),
  verify: z.boolean().optional(),
  compare: z.boolean().optional(),
  targets: z.record(z.string(), z.record(z.string(), z.unknown())).optional(),
});
/** Options of `convert` as a configuration file has them. */
export type ConvertOptions = z.infer<typeof ConvertOptions>;

async function readConfig(file: string): Promise<ConvertOptions> {
  let text: string;
  try {
    text = await fs.readFile(file, 'utf8');
  } catch (error) {
    throw new PortError('CONFIG', `cannot read ${printable(file)}`, { cause: error });
  }
  let value: unknown;
  try {
    value = parse(text, { maxAliasCount: 0 }) ?? {};
  } catch (error) {
    throw new PortError(
      'CONFIG',
      `${printable(file)} is not YAML: ${error instanceof Error ? error.message.split('\n')[0] : ''}`,
    );
  }
  const parsed = ConvertOptions.safeParse(value);
  if (!parsed.success) {
    const issue = parsed.error.issues[0];
    throw new PortError(
      'CONFIG',
      `${printable(file)}: ${issue?.path.join('.') || 'top level'}: ${issue?.message ?? 'wrong'}`,
    );
  }
  return parsed.data;
}

/** `MAC=NAME` of `--nic`. Throws USAGE. */
export function parseNic(text: string): { mac: string; name: string } {
  const match = /^((?:[0-9a-f]{2}:){5}[0-9a-f]{2})=([a-z][a-z0-9._-]{0,14})$/i.exec(text);
  if (match?.[1] === undefined || match[2] === undefined) {
    throw new PortError('USAGE', `not a NIC: ${printable(text)}`, {
      hint: 'write for example --nic 52:54:00:12:34:56=enp3s0',
    });
  }
  return { mac: match[1].toLowerCase(), name: match[2] };
}

/** `ID=USE` of `--disk`, and further sources. Throws USAGE. */
export function diskUses(
  flags: DiskFlags,
  config: z.infer<z.ZodObject<typeof diskConfigFields>>,
): Pick<Request, 'disks' | 'moreSources'> {
  const disks: Request['disks'] = { ...config.disks };
  for (const text of flags.disk ?? []) {
    const [, id, use] = /^([A-Za-z0-9][A-Za-z0-9._-]{0,63})=(data|image|skip)$/.exec(text) ?? [];
    if (id === undefined || use === undefined) {
      throw new PortError('USAGE', `--disk: ${printable(text)} says nothing about a disk`, {
        hint: 'write for example --disk sdb=data; uses are data, image and skip',
      });
    }
    disks[id] = use as Request['disks'][string];
  }
  return { disks, moreSources: (flags.withDisk ?? config.withDisks ?? []).map(sourceText) };
}

/** What a source is called, without where it is: the file's name, or the machine's. */
function bareName(source: string): string {
  const parsed = parseSource(source);
  switch (parsed.kind) {
    case 'ssh':
      return parsed.host;
    case 'host':
      return os.hostname();
    case 'nbd':
      return parsed.exportName === '' ? 'nbd' : path.basename(parsed.exportName);
    case 'http':
      return path.basename(new URL(parsed.url).pathname);
    case 'glance':
      return parsed.id;
    case 'ebs':
      return parsed.snapshot;
    case 'path':
      return path.basename(parsed.path);
  }
}

/** A name for image and job made of the source's name. */
export function defaultName(source: string): string {
  const clean = bareName(source)
    .replace(/\.(gz|xz|zst)$/i, '')
    .replace(/\.(raw|img|qcow2|vmdk|vhdx?|vdi|ova|ovf|vmx)$/i, '')
    .replace(/[^A-Za-z0-9._-]+/g, '-')
    .replace(/^[^A-Za-z0-9]+/, '')
    .slice(0, 100);
  return clean === '' ? 'server' : clean;
}

async function freeJobDir(name: string): Promise<string> {
  for (let n = 1; ; n++) {
    const dir = path.join(jobsHome(), n === 1 ? name : `${name}-${n}`);
    if (!(await exists(dir))) return dir;
  }
}

/** Builds the request and chooses the job folder; `options` are read in place of `--config`. Throws USAGE, CONFIG. */
export async function buildRequest(
  source: string,
  flags: ConvertFlags,
  options?: ConvertOptions,
): Promise<{ request: Request; dir: string; given: boolean }> {
  const config = options ?? (flags.config === undefined ? {} : await readConfig(flags.config));
  const to = flags.to?.split(',') ?? (typeof config.to === 'string' ? config.to.split(',') : config.to);
  if (to === undefined) {
    throw new PortError('USAGE', 'where shall the image run? --to is missing', {
      hint: 'for example --to openstack; port-image platforms lists them',
    });
  }
  const name = flags.name ?? config.name ?? defaultName(source);
  const job = flags.job ?? config.job;
  const dir = path.resolve(job ?? (await freeJobDir(name)));
  const strip = flags.strip ?? config.strip ?? false;
  const platforms = platformsNamed(to.map((p) => p.trim()).filter((p) => p !== '')).map((p) => p.name);
  const { cloud, glance } = cloudRequest(platforms, flags, config);
  const parsed = Request.safeParse({
    schema: 'port-image/request/1',
    source: sourceText(source),
    capture: captureOptions(flags, config),
    ...diskUses(flags, config),
    format: checkedFormat(flags.format ?? config.format),
    root: flags.root ?? config.root,
    to: platforms,
    name,
    ...storeRequest(flags.store ?? config.store, path.join(dir, 'store'), cloud, glance),
    strip: stripOf(strip),
    dataMode: flags.dataMode ?? config.dataMode ?? 'eager',
    verifyData: flags.verifyData ?? config.verifyData,
    urlHours: flags.urlHours === undefined ? config.urlHours : Number(flags.urlHours),
    customize: absolute(flags.customize ?? config.customize),
    network: flags.network ?? config.network ?? 'dhcp',
    nics: flags.nic?.map(parseNic) ?? config.nics ?? [],
    packages: absolute(flags.packages ?? config.packages),
    encoding: flags.qcow2Compat === true ? 'compat' : (flags.encoding ?? config.encoding ?? 'zstd'),
    generalize: flags.generalize ?? config.generalize ?? false,
    verify: flags.verify && (config.verify ?? true),
    compare: flags.compare && (config.compare ?? true),
    targets: targetsOf(
      platforms,
      flags.set ?? [],
      glance === undefined
        ? (config.targets ?? {})
        : { ...config.targets, openstack: { ...glance, ...config.targets?.openstack } },
      flags.upload !== false && config.upload !== false,
    ),
  });
  if (!parsed.success) {
    const issue = parsed.error.issues[0];
    throw new PortError('USAGE', `${issue?.path.join('.')}: ${issue?.message ?? 'wrong'}`);
  }
  // JSON has no undefined: what is compared with job.json must not have it either
  const request = Request.parse(JSON.parse(JSON.stringify(parsed.data)));
  requireChecksumIsUsed(request.capture.checksum, [request.source, ...request.moreSources]);
  return { request, dir, given: job !== undefined };
}

/** `auto` alone stays a word; with paths beside it both are done. */
function stripOf(strip: readonly string[] | 'auto' | false): Request['strip'] {
  if (strip === false || strip === 'auto') return strip === false ? 'none' : 'auto';
  return strip.every((s) => s === 'auto') ? 'auto' : [...strip];
}

function absolute(file: string | undefined): string | undefined {
  return file === undefined ? undefined : path.resolve(file);
}

/** A format named by the user; `vhd` is taken for qemu-img's `vpc`. Throws USAGE. */
export function checkedFormat(format: string | undefined): SourceFormat | undefined {
  if (format === undefined) return undefined;
  const name = format === 'vhd' ? 'vpc' : format;
  const known = SOURCE_FORMATS.find((f) => f === name);
  if (known === undefined) {
    throw new PortError('USAGE', `no such format: ${printable(format)}`, {
      hint: `one of ${SOURCE_FORMATS.join(', ')}`,
    });
  }
  return known;
}
