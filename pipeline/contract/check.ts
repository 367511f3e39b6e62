/** One claim of a contract, compared with the disk that carries it. */
import { Contract } from '../../core/contract.ts';
import type { Facts } from '../../core/facts.ts';
import type { GuestSession } from '../../core/guest.ts';
import { printable } from '../../core/text.ts';
import type { Check } from '../../core/types.ts';

/** A compared claim. */
export interface ContractCheck extends Check {
  /** True for something that breaks no claim but deserves attention; `ok` is true then. */
  warning?: boolean;
}

/** What claims are compared with. */
export interface Evidence {
  contract: Contract;
  /** What inspect finds on this very disk. */
  facts: Facts;
  /** The guest, mounted. Nothing is written to it. */
  guest: GuestSession;
}

/** A check that holds when there are no faults; details come from a guest, so they are made printable. */
export function check(name: string, faults: readonly string[], good: string): ContractCheck {
  const ok = faults.length === 0;
  return { name: printable(name), ok, detail: printable(ok ? good : faults.join('; ')) };
}

/** Names of a list for a message, at most eight. */
export function named(list: readonly string[]): string {
  return list.length <= 8 ? list.join(', ') : `${list.slice(0, 8).join(', ')} and ${list.length - 8} more`;
}

/** Fields a reader must understand and this program does not. */
export function unknownCritical({ critical }: Contract): string[] {
  return critical.filter((field) => !Object.hasOwn(Contract.shape, field));
}
