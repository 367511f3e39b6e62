/** A booted instance and a hand inside it: commands run through the guest agent, whatever its network does. */
import { randomBytes } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Machine } from '../../tools/qemu-system.ts';

/** What a command left. */
export interface GuestResult {
  status: number;
  out: string;
}

/** A running instance. */
export class Instance {
  readonly machine: Machine;
  readonly consoleLog: string;

  constructor(machine: Machine, consoleLog: string) {
    this.machine = machine;
    this.consoleLog = consoleLog;
  }

  /** Waits until the agent answers, also after a reset. */
  async ready(limitMs = 600_000): Promise<void> {
    const end = performance.now() + limitMs;
    while (performance.now() < end) {
      const id = randomBytes(4).readUInt32BE();
      // An answer to an earlier question may come first.
      const answer = await this.machine.agent.request('guest-sync', { id }, 3_000).catch(() => undefined);
      if (answer === id) return;
      // Answers to those asked before the guest listened come in now and are dropped.
      await sleep(1_000);
    }
    throw new Error(`the guest agent does not answer; console:\n${(await this.console()).slice(-3000)}`);
  }

  /** Runs a shell script in the guest. */
  async run(script: string, limitMs = 120_000): Promise<GuestResult> {
    const { agent } = this.machine;
    const { pid } = (await agent.request(
      'guest-exec',
      { path: '/bin/sh', arg: ['-c', script], 'capture-output': true },
      30_000,
    )) as { pid: number };
    const end = performance.now() + limitMs;
    while (performance.now() < end) {
      const state = (await agent.request('guest-exec-status', { pid }, 30_000)) as Record<string, unknown>;
      if (state.exited === true) {
        const text = (key: string) => Buffer.from(String(state[key] ?? ''), 'base64').toString('latin1');
        return { status: Number(state.exitcode ?? -1), out: text('out-data') + text('err-data') };
      }
      await sleep(200);
    }
    throw new Error(`no end of: ${script}`);
  }

  /** Output of a script without its last newline. */
  async ask(script: string): Promise<string> {
    return (await this.run(script)).out.trimEnd();
  }

  /** Waits until a script succeeds. What it printed last is in the error. */
  async until(what: string, script: string, limitMs = 600_000): Promise<void> {
    const end = performance.now() + limitMs;
    let last: GuestResult | undefined;
    while (performance.now() < end) {
      last = await this.run(script);
      if (last.status === 0) return;
      await sleep(1_000);
    }
    const more = await this.ask(
      'port-image-data status; systemctl list-jobs; journalctl -b -n 60 --no-pager -o short-monotonic',
    );
    throw new Error(`not reached: ${what}\n${last?.out}\n${more}`);
  }

  /** ActiveState of a unit. */
  async state(unit: string): Promise<string> {
    return this.ask(`systemctl show --value -p ActiveState '${unit}'`);
  }

  /** Journal of one unit in this boot. */
  async journal(unit: string): Promise<string> {
    return this.ask(`journalctl -b -u '${unit}' --no-pager -o cat`);
  }

  async console(): Promise<string> {
    return (await readFile(this.consoleLog, 'latin1')).replaceAll('\r', '');
  }

  /** Power off and on in one moment: nothing is written that was not on the disk. */
  async powerLoss(): Promise<void> {
    await this.machine.qmp.request('system_reset');
    await this.ready();
  }
}
