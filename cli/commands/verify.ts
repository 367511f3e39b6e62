/** `port-image verify`. */
import * as fs from 'node:fs/promises';
import * as os from 'node:os';
import * as path from 'node:path';
import { Command } from 'commander';
import { PortError } from '../../core/errors.ts';
import { printable } from '../../core/text.ts';
import { platformsNamed } from '../../drivers/registry.ts';
import { gate } from '../../stages/capture/index.ts';
import { verifyFailed, verifyImage } from '../../stages/verify/verify-image.ts';
import { drawRun, out, outJson } from '../output.ts';
import { checkedFormat } from '../request.ts';
import type { Interruption } from '../signals.ts';

/** Defines the command. */
export function verifyCommand(interruption: Interruption): Command {
  return new Command('verify')
    .description('boot an image on a throw-away overlay and check what comes up; the image is not changed')
    .argument('<image>', 'image file')
    .option('--platform <name>', 'platform whose hardware and metadata to present')
    .option('--format <format>', 'format of the image, when its content does not tell')
    .option('--logs <dir>', 'where serial log and screen go (default: a new folder in the current one)')
    .option('--json', 'print JSON')
    .addHelpText('after', '\nExample:\n  port-image verify out/shop01.qcow2 --platform openstack')
    .action(
      async (image: string, flags: { platform?: string; format?: string; logs?: string; json?: boolean }) => {
        const [platform, more] = platformsNamed(flags.platform === undefined ? [] : [flags.platform]);
        if (platform === undefined || more !== undefined) {
          throw new PortError('USAGE', 'name one platform with --platform', {
            hint: 'port-image platforms lists them',
          });
        }
        const scratch = await fs.mkdtemp(path.join(os.tmpdir(), 'port-image-verify-'));
        const logs = path.resolve(flags.logs ?? `verify-${path.basename(image)}`);
        const draw = drawRun({ quiet: false });
        const draws = (text: string): void =>
          draw({ event: 'progress', stage: 'verify', progress: { text } });
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
            out(`serial log: ${result.serialLog}`);
          }
          if (!result.verified) throw verifyFailed([result]);
        } finally {
          draw.end();
          await fs.rm(scratch, { recursive: true, force: true });
        }
      },
    );
}
