/** POSIX ACLs: from the kernel's xattr form to the text that tar archives carry (numeric ids). */
import { PortError } from '../core/errors.ts';

const TAGS: Readonly<Record<number, string>> = {
  1: 'user',
  2: 'user',
  4: 'group',
  8: 'group',
  16: 'mask',
  32: 'other',
};

/** `system.posix_acl_access` and `_default` values as `user::rwx,user:1000:r-x,…`. Throws DAMAGED for another form. */
export function aclText(value: Buffer): string {
  if (value.length < 4 || value.readUInt32LE(0) !== 2 || (value.length - 4) % 8 !== 0) {
    throw new PortError('DAMAGED', 'a POSIX ACL of the guest has an unknown form');
  }
  const parts: string[] = [];
  for (let at = 4; at < value.length; at += 8) {
    const tag = value.readUInt16LE(at);
    const perm = value.readUInt16LE(at + 2);
    const name = TAGS[tag];
    if (name === undefined || perm > 7) {
      throw new PortError('DAMAGED', 'a POSIX ACL of the guest has an unknown entry');
    }
    const id = tag === 2 || tag === 8 ? String(value.readUInt32LE(at + 4)) : '';
    const bits = `${perm & 4 ? 'r' : '-'}${perm & 2 ? 'w' : '-'}${perm & 1 ? 'x' : '-'}`;
    parts.push(`${name}:${id}:${bits}`);
  }
  return parts.join(',');
}
