/** Every distribution family this program knows. A new family is one line here. */
import { PortError } from '../core/errors.ts';
import type { Facts } from '../core/facts.ts';
import { alpine } from './alpine/index.ts';
import { arch } from './arch/index.ts';
import { debian } from './debian/index.ts';
import type { Family } from './family.ts';
import { rhel } from './rhel/index.ts';
import { suse } from './suse/index.ts';

/** Known families. */
export const families: readonly Family[] = [debian, rhel, suse, alpine, arch];

/** The family of a guest. Throws UNSUPPORTED_OS. */
export function familyOf(os: Facts['os']): Family {
  const family = families.find((f) => f.matches(os));
  if (family === undefined) {
    throw new PortError('UNSUPPORTED_OS', `${os.productName || os.distro} cannot be converted yet`, {
      hint: `supported families: ${families.map((f) => f.name).join(', ')}`,
    });
  }
  return family;
}
