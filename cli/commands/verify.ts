/** `port-image verify`. */
import * as fs from 'node:fs/promises';
import * as os from 'node:os';
import * as path from 'node:path';
import { Command } from 'commander';
import { Provision } from '../../core/contract.ts';
import { PortError } from '../../core/errors.ts';
import { printable } from '../../core/text.ts';
import { platformsNamed } from '../../drivers/registry.ts';
import { checkedFormat } from '../../pipeline/request/build.ts';
import { gate } from '../../stages/capture/index.ts';
import { upstreamOf } from '../../stages/verify/relay-store.ts';
import type { VerifyRequest } from '../../stages/verify/request.ts';
import { verifyFailed, verifyImage } from '../../stages/verify/verify-image.ts';
import { drawRun, out, outJson } from '../output.ts';
import type { Interruption } from '../signals.ts';

interface VerifyFlags {
  platform?: string;
  format?: string;
  provision?: string;
  ca?: string;
  logs?: string;
  json?: boolean;
}

/** Largest provision document or certificate file, as the client in the instance has it. */
const FILE_BYTES = 1024 * 1024;

async function readSmall(file: string): Promise<string> {
  const fail = (why: string, cause?: unknown) => new PortError('CONFIG', `${file}: ${why}`, { cause });
  const stat = await fs.stat(file).catch((error: unknown) => {
    throw fail('cannot be read', error);
  });
  if (!stat.isFile() || stat.size > FILE_BYTES) throw fail('is no file of at most 1 MiB');
  return fs.readFile(file, 'utf8').catch((error: unknown) => {
    throw fail('cannot be read', error);
  });
}

/** The document and the store behind it. Its URLs are secrets, so no message quotes the file. */
async function dataOf(flags: VerifyFlags): Promise<Pick<VerifyRequest, 'provision' | 'relay'>> {
  if (flags.provision === undefined) {
    if (flags.ca === undefined) return {};
    throw new PortError('USAGE', '--ca goes with --provision');
  }
  let json: unknown;
  try {
    json = JSON.parse(await readSmall(flags.provision));
  } catch (error) {
    if (error instanceof PortError) throw error;
    throw new PortError('CONFIG', `${flags.provision}: is not JSON`);
  }
  // Also the form in which it travels: { "port_image": {…} } of vendor_data2.json.
  const inner = (json as { port_image?: unknown } | null)?.port_image ?? json;
  const provision = Provision.safeParse(inner);
  if (!provision.success) {
    const where = provision.error.issues[0]?.path.join('.') ?? '';
    throw new PortError('CONFIG', `${flags.provision}: is no provision document${where && ` (at ${where})`}`);
  }
  const ca = flags.ca === undefined ? undefined : await readSmall(flags.ca);
  return {
    provision: provision.data,
    relay: { upstream: upstreamOf(provision.data), ca },
  };
}

/** Defines the command. */
export function verifyCommand(interruption: Interruption): Command {
  return new Command('verify')
    .description('boot an image on a throw-away overlay and check what comes up; the image is not changed')
    .argument('<image>', 'image file')
    .option('--platform <name>', 'platform whose hardware and metadata to present')
    .option('--format <format>', 'format of the image, when its content does not tell')
    .option(
      '--provision <file>',
      'provision document from `data mint`: restore the data sets from the real store',
    )
    .option('--ca <file>', "certificates (PEM) to trust for that store instead of the system's")
    .option('--logs <dir>', 'where serial log and screen go (default: a new folder in the current one)')
    .option('--json', 'print JSON')
    .addHelpText('after', '\nExample:\n  port-image verify out/shop01.qcow2 --platform openstack')
    .action(async (image: string, flags: VerifyFlags) => {
      const [platform, more] = platformsNamed(flags.platform === undefined ? [] : [flags.platform]);
      if (platform === undefined || more !== undefined) {
        throw new PortError('USAGE', 'name one platform with --platform', {
          hint: 'port-image platforms lists them',
        });
      }
      const data = await dataOf(flags);
      const scratch = await fs.mkdtemp(path.join(os.tmpdir(), 'port-image-verify-'));
      const logs = path.resolve(flags.logs ?? `verify-${path.basename(image)}`);
      const draw = drawRun({ quiet: false });
      const draws = (text: string): void => draw({ event: 'progress', stage: 'verify', progress: { text } });
      try {
        const checked = await gate(path.resolve(image), {
          format: checkedFormat(flags.format),
          tmp: scratch,
          signal: interruption.signal,
          warn: (text) => draw({ event: 'warning', stage: undefined, text }),
        });
        draw({ event: 'stage-started', stage: 'verify', index: 1, total: 1 });
        const result = await verifyImage({
          image: checked.path,
          format: checked.format,
          platform,
          logs,
          scratch,
          ...data,
          signal: interruption.signal,
          onProgress: draws,
        });
        draw.end();
        if (flags.json === true) outJson(result);
        else {
          for (const check of result.checks)
            out(
              `${check.ok ? 'ok    ' : 'FAILED'} ${printable(check.name).padEnd(22)} ${printable(check.detail)}`,
            );
          for (const { name, proof, detail } of result.claims ?? [])
            out(`${proof.padEnd(8)} ${printable(name)}: ${printable(detail)}`);
          for (const { unit, seconds, mode } of result.timeToService ?? [])
            out(`       ${printable(unit).padEnd(22)} up after ${seconds} s, data ${mode}`);
          out(`serial log: ${result.serialLog}`);
        }
        if (!result.verified) throw verifyFailed([result]);
      } finally {
        draw.end();
        await fs.rm(scratch, { recursive: true, force: true });
      }
    });
}
