/** `port-image convert`. */
import * as fs from 'node:fs/promises';
import { Command } from 'commander';
import { PortError } from '../../core/errors.ts';
import { exists } from '../../core/files.ts';
import { printable } from '../../core/text.ts';
import { requireClouds } from '../../pipeline/cloud-check.ts';
import { createJob, forgetJob, jobPaths } from '../../pipeline/job.ts';
import { buildRequest, type ConvertFlags } from '../../pipeline/request/build.ts';
import { captureFlags } from '../capture-flags.ts';
import { finishJob } from '../finish.ts';
import type { Interruption } from '../signals.ts';

const collect = (value: string, before: string[] | false | undefined): string[] => [...(before || []), value];

/** Defines the command. */
export function convertCommand(interruption: Interruption): Command {
  const command = new Command('convert')
    .description('convert a disk into a slim image for one or several platforms')
    .argument(
      '<source>',
      'image, OVA, block device, ssh://host/dev/sda, nbd://…, https://…, glance://CLOUD/ID; never written to',
    )
    .option('--with-disk <source>', 'one more disk of the same machine, repeatable', collect)
    .option(
      '--disk <id=use>',
      'what a further disk is for: data, image (default) or skip, repeatable',
      collect,
    )
    .argument('[paths...]', 'more paths for --strip: --strip /srv/app /var/www')
    .option('--to <platforms>', 'where it shall run, separated by commas, or all')
    .option('--name <name>', 'name of the image (default: from the file name)')
    .option('--job <dir>', 'job folder; an existing one is resumed')
    .option(
      '--store <url>',
      "where application data goes: swift:PREFIX, s3:BUCKET/PREFIX, azure:ACCOUNT/PREFIX, gs:BUCKET/PREFIX or file:DIR (default: the cloud's Swift, else the job folder)",
    )
    .option(
      '--strip <path>',
      'application data to take out, repeatable; "auto" takes what inspect proposes',
      collect,
    )
    .option('--no-strip', 'take nothing out (default)')
    .option('--data-mode <mode>', 'when the instance fetches its data: eager, lazy or manual')
    .option('--customize <file>', 'commands for virt-customize, run on the finished disk')
    .option('--network <mode>', 'dhcp (default), or keep the static configuration')
    .option(
      '--nic <mac=name>',
      'with --network keep: name of the interface with this MAC, repeatable',
      collect,
    )
    .option('--format <format>', 'format of the source, when its content does not tell')
    .option('--root <device>', 'which system to convert, when the disk has several')
    .option('--packages <dir>', 'folder with packages, to work without network')
    .option('--encoding <kind>', 'zstd (default), compat (zlib, for old QEMU) or raw')
    .option('--qcow2-compat', 'the same as --encoding compat')
    .option('--generalize', 'make a template: new ssh host keys, no authorized_keys')
    .option('--no-verify', 'do not boot the result')
    .option('--no-compare', 'do not compare the image with the work disk')
    .option(
      '--os-cloud <name>',
      'OpenStack cloud of clouds.yaml to bring image and data to (default: OS_CLOUD, OS_*)',
    )
    .option(
      '--set <platform.option=value>',
      'where and how a cloud gets the image, repeatable: --set aws.region=eu-central-1',
      collect,
    )
    .option('--no-upload', 'write files only, whatever cloud is configured')
    .option('--upload-method <way>', 'auto (default), put, import or web-download')
    .option('--glance-store <name>', 'Glance store, repeatable, or all', collect)
    .option('--on-exists <what>', 'image of this name exists: new-version (default), replace or fail')
    .option('--visibility <kind>', 'private (default), shared, community or public')
    .option('--member <project>', 'project a shared image is offered to, repeatable', collect)
    .option('--protected', 'protect the finished image against deletion')
    .option('--sign-key <file>', 'PEM key to sign the image with')
    .option('--sign-certificate <id>', "its certificate in the cloud's key manager")
    .option('--verify-data <kind>', 'read data sets back: full (default) or sampled')
    .option('--url-hours <n>', 'life of the signed URLs for the instance (default 24)')
    .option('--dry-run', 'print every intended change, change nothing')
    .option('--config <file>', 'YAML with the same names as these flags; flags win')
    .option('--json', 'end stdout with one JSON object');
  return captureFlags(command)
    .addHelpText(
      'after',
      `
Examples:
  port-image convert shop01.raw --to openstack --strip auto
  port-image convert shop01.vmdk --to openstack,qemu --strip /srv/app --store file:/data/store --job ./shop01
  port-image convert shop01.raw --to openstack --os-cloud mycloud --strip auto
  port-image convert shop01.raw --to openstack --strip auto --dry-run
  port-image convert ssh://root@shop01/dev/sda --to openstack --strip auto
  port-image convert /dev/sdb --to qemu --network keep --nic 52:54:00:12:34:56=enp3s0`,
    )
    .action(
      async (source: string, paths: string[], flags: ConvertFlags & { dryRun?: boolean; json?: boolean }) => {
        if (paths.length > 0) {
          if (!Array.isArray(flags.strip)) {
            throw new PortError('USAGE', `one source at a time; what is ${printable(paths[0] ?? '')}?`, {
              hint: 'port-image convert --help',
            });
          }
          flags.strip.push(...paths);
        }
        const { request, dir } = await buildRequest(source, flags);
        const isNew = !(await exists(jobPaths(dir).request));
        if (isNew) await requireClouds(request, interruption.signal);
        const job = await createJob(dir, request);
        const leave = async (): Promise<boolean> => {
          // a dry run, and a refusal before anything was made, leave nothing behind; a copy of the source is kept
          const copied = (await fs.readdir(job.capture).catch(() => [])).length > 0;
          if (!isNew || (copied && flags.dryRun !== true)) return false;
          if (copied) await forgetJob(job);
          else await fs.rm(job.dir, { recursive: true, force: true });
          return true;
        };
        await finishJob(job.dir, {
          interruption,
          json: flags.json === true,
          dryRun: flags.dryRun === true,
          leave,
        });
      },
    );
}
