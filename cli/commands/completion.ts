/** `port-image completion`. */
import { type Command, Command as NewCommand } from 'commander';
import { PortError } from '../../core/errors.ts';
import { STAGE_NAMES } from '../../core/stage.ts';
import { platforms } from '../../drivers/registry.ts';
import { out, outJson } from '../output.ts';

interface Words {
  command: string;
  words: string[];
}

function wordsOf(program: Command): Words[] {
  const flags = (c: Command): string[] => c.options.flatMap((o) => (o.long ? [o.long] : [])).concat('--help');
  return program.commands.map((c) => {
    const extra = c.name() === 'stage' ? [...STAGE_NAMES] : [];
    return {
      command: c.name(),
      words: [...c.commands.map((s) => s.name()), ...extra, ...c.commands.flatMap(flags), ...flags(c)],
    };
  });
}

function bash(rows: readonly Words[]): string {
  const cases = rows.map((r) => `    ${r.command}) words='${[...new Set(r.words)].join(' ')}' ;;`).join('\n');
  return `# bash completion of port-image; for zsh run: autoload -U bashcompinit && bashcompinit first
_port_image() {
  local current=\${COMP_WORDS[COMP_CWORD]} previous=\${COMP_WORDS[COMP_CWORD-1]} words
  case $previous in
    --to|--platform|--target) mapfile -t COMPREPLY < <(compgen -W '${platforms.map((p) => p.name).join(' ')} all' -- "$current"); return ;;
    --network) mapfile -t COMPREPLY < <(compgen -W 'dhcp keep' -- "$current"); return ;;
    --strip) mapfile -t COMPREPLY < <(compgen -W 'auto' -- "$current"); return ;;
  esac
  case \${COMP_WORDS[1]} in
${cases}
    *) words='${rows.map((r) => r.command).join(' ')} --help --version' ;;
  esac
  mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current"; compgen -f -- "$current")
}
complete -o filenames -F _port_image port-image`;
}

/** Defines the command. */
export function completionCommand(program: () => Command): Command {
  return new NewCommand('completion')
    .description('print shell completion')
    .argument('[shell]', 'bash or zsh', 'bash')
    .option('--json', 'print the words as JSON')
    .addHelpText('after', '\nExample:\n  port-image completion bash > /etc/bash_completion.d/port-image')
    .action((shell: string, flags: { json?: boolean }) => {
      const rows = wordsOf(program());
      if (flags.json === true) outJson(rows);
      else if (shell === 'bash') out(bash(rows));
      else if (shell === 'zsh') out(`autoload -U +X bashcompinit && bashcompinit\n${bash(rows)}`);
      else throw new PortError('USAGE', `no completion for ${shell}`, { hint: 'bash or zsh' });
    });
}
