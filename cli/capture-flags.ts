/** The flags that say how a source is read: of `convert`, `inspect` and `capture`. */
import type { Command } from 'commander';

/** Adds the flags to a command. */
export function captureFlags(command: Command): Command {
  return command
    .option(
      '--freeze <how>',
      'a running source, for its last pass: auto freezes its file systems (default), or none',
    )
    .option('--quiesce <command>', 'run on the source before the freeze, such as "systemctl stop shop"')
    .option(
      '--resume-command <command>',
      'run on the source after the last pass, such as "systemctl start shop"',
    )
    .option(
      '--max-freeze <time>',
      'longest freeze, such as 90s or 20m (default 10m); a watchdog on the source ends it',
    )
    .option('--limit <rate>', 'most bytes read per second, such as 50M')
    .option('--allow-bad <n>', 'accept so many unreadable places of a disk (default 0)')
    .option('--checksum <sum>', 'of a downloaded image: sha256:HEX, sha512:HEX or the URL of a sums file')
    .option('--max-size <size>', 'most bytes a packed image may unpack to, such as 200G')
    .option('--ssh-config <file>', 'ssh_config(5) to use instead of the usual files')
    .option('--identity <file>', 'private key for ssh, beside those of the agent and the configuration');
}
