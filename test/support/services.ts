/** Programs of real services, for tests that are skipped by name where one cannot be had. */
import { installProgram, type ProgramName } from '../../scripts/cloud.d/programs.ts';

/**
 * Path of the program, installed into the cache on first use (npm, pip or go; pinned versions). Undefined, with the reason
 * on stderr, when this machine cannot have it:
 *
 *     const vcsim = await serviceProgram('vcsim');
 *     test.skipIf(vcsim === undefined)('… (vcsim)', …)
 */
export async function serviceProgram(name: ProgramName): Promise<string | undefined> {
  try {
    return await installProgram(name);
  } catch (error) {
    process.stderr.write(`${(error as Error).message}\n`);
    return undefined;
  }
}
