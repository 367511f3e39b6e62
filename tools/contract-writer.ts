/** The contract inside the guest: written once by strip, completed by later stages that learn more. */
import { CONTRACT_PATH, Contract } from '../core/contract.ts';
import { PortError } from '../core/errors.ts';
import type { GuestFiles } from '../core/guest.ts';

/** Writes the contract, 0644 root. */
export async function writeContract(guest: GuestFiles, contract: Contract): Promise<void> {
  await guest.mkdir('/usr/lib/port-image', 0o755);
  await guest.write(CONTRACT_PATH, `${JSON.stringify(Contract.parse(contract), null, 2)}\n`, {
    mode: 0o644,
    uid: 0,
    gid: 0,
  });
}

/** Reads the contract back. Throws GUEST_BROKEN when it is missing or no contract. */
async function readContract(guest: GuestFiles): Promise<Contract> {
  try {
    return Contract.parse(JSON.parse((await guest.readText(CONTRACT_PATH)) ?? ''));
  } catch (error) {
    throw new PortError('GUEST_BROKEN', `${CONTRACT_PATH} is missing or no contract`, { cause: error });
  }
}

/** Changes the contract of a guest, for facts that only a later stage knows (modules of a rebuilt initramfs). */
export async function updateContract(
  guest: GuestFiles,
  change: (contract: Contract) => Contract,
): Promise<Contract> {
  const contract = change(await readContract(guest));
  await writeContract(guest, contract);
  return contract;
}
