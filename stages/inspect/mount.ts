/** Mounts the guest in the appliance. */
import { PortError } from '../../core/errors.ts';
import type { Facts } from '../../core/facts.ts';
import type { GuestSession } from '../../core/guest.ts';
import { printable } from '../../core/text.ts';

/**
 * Mounts the guest's file systems read-write, in the order of `facts.mounts`. The session must have nothing mounted.
 * Throws GUEST_BROKEN naming the file system that cannot be mounted.
 */
export async function mountGuest(guest: GuestSession, facts: Pick<Facts, 'mounts'>): Promise<void> {
  for (const { path, device, options } of facts.mounts) {
    try {
      await guest.call('mount-options', [options ?? '', device, path]);
    } catch (error) {
      if (error instanceof PortError && error.code !== 'APPLIANCE') throw error;
      const why = error instanceof Error ? error.message : String(error);
      throw new PortError('GUEST_BROKEN', `${device} cannot be mounted at ${printable(path)}: ${why}`, {
        hint: 'check the file system on the server with fsck, then capture it again',
        cause: error,
      });
    }
  }
}
