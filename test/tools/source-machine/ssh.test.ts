import { describe, expect, test } from 'vitest';
import { bootstrapCommand, helperPrograms } from '../../../tools/source-machine/bootstrap.ts';
import { RateLimit } from '../../../tools/source-machine/rate-limit.ts';
import { connectionError, sshArguments } from '../../../tools/source-machine/ssh.ts';
import type { MachineTarget } from '../../../tools/source-machine/types.ts';

const shop: MachineTarget & { kind: 'ssh' } = { kind: 'ssh', host: 'shop01', user: 'admin', port: 2222 };

function told(stderr: string, established = false) {
  const { code, message, temporary, hint } = connectionError({ target: shop, stderr, established });
  return { code, message, temporary, hint };
}

describe('the end of a connection', () => {
  test.each([
    ['ssh: connect to host shop01 port 22: Connection refused', 'cannot be reached', true],
    ['ssh: connect to host shop01 port 22: No route to host', 'cannot be reached', true],
    ['ssh: connect to host shop01 port 22: Connection timed out', 'cannot be reached', true],
    ['kex_exchange_identification: read: Connection reset by peer', 'cannot be reached', true],
    ['ssh: Could not resolve hostname shop01: Name or service not known', 'name is not known', false],
    ['ssh: Could not resolve hostname shop01: Temporary failure in name resolution', 'resolved now', true],
    ['admin@shop01: Permission denied (publickey,password).', 'does not accept the login', false],
    [
      'Received disconnect from 192.0.2.1 port 22:2: Too many authentication failures\r\nDisconnected from 192.0.2.1 port 22',
      'does not accept the login',
      false,
    ],
    [
      'No ED25519 host key is known for shop01 and you have requested strict checking.\r\nHost key verification failed.',
      'host key is not known',
      false,
    ],
    [
      '@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\r\nHost key verification failed.',
      'not the one that is known',
      false,
    ],
    ['sudo: a password is required', 'sudo asks for a password', false],
    [
      'sudo: a terminal is required to read the password; either use the -S option',
      'sudo asks for a password',
      false,
    ],
    ['sudo: sorry, you must have a tty to run sudo', 'sudo asks for a password', false],
    ['admin is not in the sudoers file.', 'may not become root', false],
    ['sh: 1: something nobody expected', 'something nobody expected', false],
    ['', 'ended in silence', false],
  ])('%s', (stderr, text, temporary) => {
    const error = told(stderr);
    expect(error).toMatchObject({ code: 'SOURCE_REMOTE', temporary });
    expect(error.message).toContain('admin@shop01');
    expect(error.message).toContain(text);
    expect(error.hint).not.toBe('');
  });

  test('after the helper answered it is a broken connection, whatever was said', () => {
    expect(told('Permission denied (publickey).', true)).toMatchObject({
      code: 'SOURCE_REMOTE',
      temporary: true,
    });
  });

  test("ssh's own configuration is the user's to mend", () => {
    expect(told('/home/a/.ssh/config: line 3: Bad configuration option: nosuch').code).toBe('CONFIG');
  });

  test('what a source says cannot write to the terminal', () => {
    expect(told('\u001b]0;owned\u0007\u202egnp.exe').message).not.toMatch(/[\u0000-\u001f\u202e]/);
  });
});

describe('the call of ssh', () => {
  test('never asks, never relaxes the check of host keys, ends options before the host', () => {
    const args = sshArguments({ ...shop, host: '-oProxyCommand=x' }, 'command', {});
    expect(args.slice(-3)).toEqual(['--', '-oProxyCommand=x', 'command']);
    expect(args).toContain('BatchMode=yes');
    expect(args.join(' ')).not.toMatch(/StrictHostKeyChecking|UserKnownHostsFile/);
  });

  test('the command is one word of any login shell and holds no secret', () => {
    const command = bootstrapCommand('0011', helperPrograms('0011'), { lowPriority: true });
    const inner = /^exec sh -c '([^']*)'$/.exec(command)?.[1];
    // csh expands !, fish reads \\ and \' between single quotes
    expect(inner).toBeDefined();
    expect(inner).not.toMatch(/[!\n]|\\\\/);
    expect(inner).not.toContain('undefined');
  });
});

test('a rate is kept over all streams together', () => {
  const limit = new RateLimit(1_000);
  expect(limit.passed(500, 10_000)).toBe(500);
  expect(limit.passed(500, 10_100)).toBe(900);
  // what was not used is not saved up
  expect(limit.passed(100, 60_000)).toBe(100);
});
