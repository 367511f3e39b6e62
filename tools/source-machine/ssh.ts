/** How ssh is called, and what its last words mean. */
import { PortError } from '../../core/errors.ts';
import { printable } from '../../core/text.ts';
import type { MachineOptions, MachineTarget } from './types.ts';

/** A machine's name for messages. */
export function targetName(target: MachineTarget): string {
  if (target.kind === 'host') return 'this machine';
  return printable(target.user === undefined ? target.host : `${target.user}@${target.host}`);
}

/**
 * Arguments of ssh. The user's configuration counts for all that is not set here: keys, agents, jump hosts, certificates, and
 * StrictHostKeyChecking, which is never relaxed.
 */
export function sshArguments(
  target: MachineTarget & { kind: 'ssh' },
  command: string,
  options: MachineOptions,
): string[] {
  return [
    ...(options.sshConfig === undefined ? [] : ['-F', options.sshConfig]),
    ...(options.sshIdentity === undefined ? [] : ['-o', 'IdentitiesOnly=yes', '-i', options.sshIdentity]),
    // no terminal, no forwarding of X11 or the agent
    ...['-T', '-x', '-a'],
    // asks nobody: an unknown host key or a password is an error
    ...['-o', 'BatchMode=yes'],
    ...['-o', 'ConnectTimeout=20'],
    // a connection that died in silence is noticed within a minute
    ...['-o', 'ServerAliveInterval=15', '-o', 'ServerAliveCountMax=4'],
    // several times faster than ssh's first choice where both sides have AES instructions; only an order of preference
    ...['-o', 'Ciphers=^aes128-gcm@openssh.com,aes256-gcm@openssh.com'],
    // the helper compresses, and only when it pays
    ...['-o', 'Compression=no'],
    // each disk has a connection of its own; a master that stands already is used, none is left behind
    ...['-o', 'ControlMaster=no'],
    ...['-o', 'ClearAllForwardings=yes', '-o', 'PermitLocalCommand=no'],
    // a RemoteCommand in the user's configuration would be an error beside ours
    ...['-o', 'RemoteCommand=none'],
    // the messages that are understood below
    ...['-o', 'LogLevel=INFO'],
    ...(target.user === undefined ? [] : ['-l', target.user]),
    ...(target.port === undefined ? [] : ['-p', String(target.port)]),
    '--',
    target.host,
    command,
  ];
}

/** A message of ssh, sudo or the source's shell: how it is told. */
interface Reason {
  match: RegExp;
  text: string;
  hint: string;
  /** True for what may heal by itself: the network, a reboot. */
  temporary?: true;
}

const REASONS: readonly Reason[] = [
  {
    match: /REMOTE HOST IDENTIFICATION HAS CHANGED|host key for .* has changed/i,
    text: 'its host key is not the one that is known',
    hint: 'find out why; when it is right, remove the old key with ssh-keygen -R HOST and connect once with ssh',
  },
  {
    match: /Host key verification failed|No .* host key is known/i,
    text: 'its host key is not known here',
    hint: 'connect once with ssh by hand and compare the fingerprint, or add the key to ~/.ssh/known_hosts',
  },
  {
    match: /Permission denied \(|Too many authentication failures|Received disconnect .*(Auth|auth)/,
    text: 'it does not accept the login',
    hint: 'a key or agent that works without a password is needed: try ssh -o BatchMode=yes HOST true',
  },
  {
    match:
      /Bad configuration option|Bad owner or permissions|Can't open user config file|no argument after keyword/i,
    text: "ssh's configuration is wrong",
    hint: 'try ssh HOST true',
  },
  {
    match: /Identity file .* not accessible/,
    text: 'the private key cannot be read',
    hint: 'check the path of the identity file',
  },
  {
    match: /sudo: .*(password is required|terminal is required|must have a tty|no tty)|doas: .*(Auth|tty)/i,
    text: 'sudo asks for a password',
    hint: 'log in as root, or allow the user to run sudo without a password (NOPASSWD) for the time of the capture',
  },
  {
    match: /sudo: .*not allowed|is not in the sudoers file|may not run sudo|doas: Operation not permitted/i,
    text: 'the user may not become root by sudo',
    hint: 'log in as root, or give the user sudo rights without a password',
  },
  {
    match: /Could not resolve hostname .*Temporary failure/i,
    text: 'its name cannot be resolved now',
    hint: 'check the name service',
    temporary: true,
  },
  {
    match: /Could not resolve hostname/i,
    text: 'its name is not known',
    hint: 'check how the host is written',
  },
  {
    match:
      /Connection refused|No route to host|Network is unreachable|timed out|Connection reset|Connection closed|Broken pipe|not responding|closed by remote host|Connection to .* closed|kex_exchange_identification|send disconnect|Host is down/i,
    text: 'it cannot be reached',
    hint: 'check that the machine is up and its ssh port is open from here',
    temporary: true,
  },
];

/** What is known when a connection ended. */
export interface EndedConnection {
  target: MachineTarget;
  /** What ssh, sudo and the source wrote to stderr; hostile. */
  stderr: string;
  /** Whether the helper had answered: then the end is a broken connection. */
  established: boolean;
}

/** The error of a connection that ended: SOURCE_REMOTE, or CONFIG for ssh's own configuration. */
export function connectionError(ended: EndedConnection): PortError {
  const lines = ended.stderr
    .split(/\r?\n/)
    .map((l) => l.trim())
    .filter((l) => l !== '' && !/^(Warning: Permanently added|debug\d)/.test(l));
  const said = printable(lines.at(-1) ?? '').slice(0, 300);
  const name = targetName(ended.target);
  const reason = REASONS.find((r) => lines.some((l) => r.match.test(l)));
  if (ended.established) {
    return new PortError(
      'SOURCE_REMOTE',
      `the connection to ${name} broke${said === '' ? '' : `: ${said}`}`,
      {
        hint: 'the job can be resumed',
        temporary: true,
      },
    );
  }
  if (reason === undefined) {
    return new PortError(
      'SOURCE_REMOTE',
      `no connection to ${name}: ${said === '' ? 'it ended in silence' : said}`,
      {
        hint: 'try ssh HOST true; the login shell must run commands',
      },
    );
  }
  const code = reason.text.includes('configuration') ? 'CONFIG' : 'SOURCE_REMOTE';
  return new PortError(code, `no connection to ${name}: ${reason.text}: ${said}`, {
    hint: reason.hint,
    temporary: reason.temporary ?? false,
  });
}
