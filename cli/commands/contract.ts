/** `port-image contract`: what an image says about itself, compared with the image and with where it shall run. */
import * as fs from 'node:fs/promises';
import { Command } from 'commander';
import type { Contract, Provision } from '../../core/contract.ts';
import { PortError } from '../../core/errors.ts';
import { printable } from '../../core/text.ts';
import { platformsNamed } from '../../drivers/registry.ts';
import { type OpenOptions, parseContract, readImageContract } from '../../pipeline/contract/image.ts';
import { type Match, matchContract, targetOf } from '../../pipeline/contract/match.ts';
import { parseProvision } from '../../pipeline/contract/provision.ts';
import { type ContractCheck, contractBroken, verifyContract } from '../../pipeline/contract/verify.ts';
import { checkedFormat } from '../../pipeline/request/build.ts';
import { drawRun, out, outJson } from '../output.ts';
import type { Interruption } from '../signals.ts';

/** A contract is a few KiB; a larger JSON file is none. */
const MAX_JSON_BYTES = 1024 * 1024;

interface ImageFlags {
  format?: string;
  root?: string;
  json?: boolean;
}

interface MatchFlags extends ImageFlags {
  target?: string;
  provision?: string;
}

const EXAMPLES = `
Examples:
  port-image contract verify out/shop01.qcow2
  port-image contract match out/shop01.qcow2 --target openstack --json
  port-image contract match data/contract.json --target openstack --provision provision.json`;

/** Runs a task with progress drawn on stderr. */
async function drawn<T>(
  flags: ImageFlags,
  interruption: Interruption,
  task: (options: OpenOptions) => Promise<T>,
): Promise<T> {
  const draw = drawRun({ quiet: false });
  draw({ event: 'stage-started', stage: 'inspect', index: 1, total: 1 });
  try {
    return await task({
      format: checkedFormat(flags.format),
      root: flags.root,
      signal: interruption.signal,
      onProgress: (text) => draw({ event: 'progress', stage: 'inspect', progress: { text } }),
      warn: (text) => draw({ event: 'warning', stage: 'inspect', text }),
    });
  } finally {
    draw.end();
  }
}

function printCheck(c: ContractCheck): void {
  const word = c.ok ? (c.warning === true ? 'warn  ' : 'ok    ') : 'FAILED';
  out(`${word} ${c.name.padEnd(22)} ${c.detail}`);
}

async function verify(image: string, flags: ImageFlags, interruption: Interruption): Promise<void> {
  const result = await drawn(flags, interruption, (options) => verifyContract(image, options));
  if (flags.json === true) outJson(result);
  else result.checks.forEach(printCheck);
  if (!result.verified) throw contractBroken(result);
}

async function readSmall(file: string): Promise<string> {
  try {
    return await fs.readFile(file, 'utf8');
  } catch (error) {
    throw new PortError('CONFIG', `cannot read ${printable(file)}`, { cause: error });
  }
}

/** The text of a small file that begins like a JSON object; undefined for anything else, such as a disk image. */
async function jsonText(file: string): Promise<string | undefined> {
  const stat = await fs.stat(file).catch(() => undefined);
  if (stat?.isFile() !== true || stat.size > MAX_JSON_BYTES) return undefined;
  const text = await readSmall(file);
  return /^\s*\{/.test(text) ? text : undefined;
}

function printMatch(match: Match, contract: Contract): void {
  if (match.matches) out(`yes: ${printable(contract.image.id)} can run on ${match.target}`);
  else out(`no: ${printable(contract.image.id)} cannot run on ${match.target}`);
  for (const { need, detail, hint } of match.unmet) {
    out(`  ${need.padEnd(16)} ${printable(detail)}`);
    out(`  ${''.padEnd(16)} hint: ${printable(hint)}`);
  }
  for (const note of match.notes) out(`  note: ${printable(note)}`);
}

async function match(image: string, flags: MatchFlags, interruption: Interruption): Promise<void> {
  const [platform, more] = platformsNamed(flags.target === undefined ? [] : [flags.target]);
  if (platform === undefined || more !== undefined) {
    throw new PortError('USAGE', 'name one platform with --target', {
      hint: 'port-image platforms lists them',
    });
  }
  // everything that can be wrong with small files is found before the appliance starts
  const provision: Provision | undefined =
    flags.provision === undefined
      ? undefined
      : parseProvision(await readSmall(flags.provision), flags.provision);
  const text = await jsonText(image);
  const contract =
    text === undefined
      ? await drawn(flags, interruption, (options) => readImageContract(image, options))
      : parseContract(text, image);
  const result = matchContract(contract, targetOf(platform), provision === undefined ? {} : { provision });
  if (flags.json === true) outJson(result);
  else printMatch(result, contract);
  if (!result.matches) {
    throw new PortError(
      'VERIFY_FAILED',
      `${printable(image)} does not fit ${result.target}: ${result.unmet.map((u) => u.need).join(', ')}`,
      { hint: result.unmet[0]?.hint ?? 'choose another target' },
    );
  }
}

/** Defines the command and its subcommands. */
export function contractCommand(interruption: Interruption): Command {
  const contract = new Command('contract')
    .description('what an image says about itself: compare it with the image, or with a target')
    .addHelpText('after', EXAMPLES)
    .exitOverride();
  contract
    .command('verify')
    .description('compare every claim of the contract with the disk; the image is not changed')
    .argument('<image>', 'image file')
    .option('--format <format>', 'format of the image, when its content does not tell')
    .option('--root <device>', 'which system to look at, when the disk has several')
    .option('--json', 'print JSON')
    .addHelpText('after', '\nExample:\n  port-image contract verify out/shop01.qcow2')
    .exitOverride()
    .action((image: string, flags: ImageFlags) => verify(image, flags, interruption));
  contract
    .command('match')
    .description('say whether an image can run on a target, or name each unmet need')
    .argument('<image>', 'image file, or its contract.json')
    .option('--target <platform>', 'platform to run on')
    .option('--provision <file>', 'provision document the instance will get')
    .option('--format <format>', 'format of the image, when its content does not tell')
    .option('--root <device>', 'which system to look at, when the disk has several')
    .option('--json', 'print JSON')
    .addHelpText('after', '\nExample:\n  port-image contract match data/contract.json --target openstack')
    .exitOverride()
    .action((image: string, flags: MatchFlags) => match(image, flags, interruption));
  return contract;
}
