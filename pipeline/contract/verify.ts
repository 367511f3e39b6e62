/** Compares every claim of an image's contract with the image itself. */
import { CONTRACT_PATH, type Contract } from '../../core/contract.ts';
import { PortError } from '../../core/errors.ts';
import type { Facts } from '../../core/facts.ts';
import type { GuestSession } from '../../core/guest.ts';
import { silentLog } from '../../core/log.ts';
import { printable } from '../../core/text.ts';
import { inspectGuest } from '../../stages/inspect/index.ts';
import { type ContractCheck, check } from './check.ts';
import { checkClient, checkDataSet, checkStripped } from './check-data.ts';
import { checkCredentials, checkDatasources, checkSecrets } from './check-metadata.ts';
import { checkCritical, checkDisk, checkDrivers, checkFirmware, checkSystem } from './check-system.ts';
import { rootOwnedFaults } from './guest-files.ts';
import { contractText, type OpenOptions, parseContract, withImage } from './image.ts';

export type { ContractCheck } from './check.ts';

/** What became of the claims. */
export interface ContractVerification {
  /** Absolute path of the image. */
  image: string;
  /** True when every claim holds; warnings do not count. */
  verified: boolean;
  checks: ContractCheck[];
  /** The contract's own name for the image; null when the contract cannot be read. */
  id: string | null;
}

/** Checks the contract of a mounted guest. `text` is the contract as it lies there. Writes nothing. */
export async function checkContract(
  guest: GuestSession,
  facts: Facts,
  text: string,
): Promise<{ checks: ContractCheck[]; contract: Contract | undefined }> {
  let contract: Contract;
  try {
    contract = parseContract(text, CONTRACT_PATH);
  } catch (error) {
    if (!(error instanceof PortError)) throw error;
    return { checks: [check('contract', [error.message], '')], contract: undefined };
  }
  const evidence = { contract, facts, guest };
  const owned = await rootOwnedFaults(guest, CONTRACT_PATH, { kind: 'file' });
  const checks = [
    check('contract', owned, `${contract.contract}, ${contract.image.id}`),
    checkCritical(contract),
    ...checkSystem(evidence),
    await checkFirmware(evidence),
    checkDrivers(evidence),
    checkDisk(evidence),
    await checkDatasources(evidence),
    checkCredentials(evidence),
    await checkClient(evidence),
  ];
  for (const set of contract.data) checks.push(...(await checkDataSet(evidence, set)));
  checks.push(await checkStripped(evidence), await checkSecrets(evidence));
  return { checks, contract };
}

/**
 * Opens an image and compares its contract with it; the image is not changed. A claim that does not hold is a result.
 * Throws NO_CONTRACT when there is none, and what opening and inspecting throw.
 */
export async function verifyContract(image: string, options: OpenOptions): Promise<ContractVerification> {
  return withImage(image, options, async ({ guest, file, tmpDir }) => {
    const facts = await inspectGuest({
      guest,
      signal: options.signal,
      log: silentLog,
      warn: (text) => options.warn?.(text),
      progress: ({ text }) => text !== undefined && options.onProgress?.(text),
      disks: [{ id: 'disk0', badRanges: [], ...file }],
      uses: {},
      tmpDir,
      root: options.root,
    });
    options.onProgress?.('comparing the contract with the disk');
    const { checks, contract } = await checkContract(guest, facts, await contractText(guest, image));
    return {
      image: file.path,
      verified: checks.every((c) => c.ok),
      checks,
      id: contract?.image.id ?? null,
    };
  });
}

/** The error an image whose contract does not hold ends with. */
export function contractBroken(result: ContractVerification): PortError {
  const failed = result.checks.filter((c) => !c.ok);
  return new PortError(
    'VERIFY_FAILED',
    `the contract of ${printable(result.image)} does not hold: ${failed.map((c) => c.name).join(', ')}`,
    { hint: failed[0]?.detail ?? 'convert the server again' },
  );
}
