/** `--network keep`: the configuration stays, and the cards of the new machine get the names it uses. */
import { PortError } from '../../core/errors.ts';
import type { Facts } from '../../core/facts.ts';
import type { GuestFiles } from '../../core/guest.ts';
import type { Request } from '../../core/request.ts';
import { textEdit } from '../../families/edits.ts';
import type { FileEdit } from '../../families/family.ts';
import { MARK } from './dhcp.ts';
import { isPhysical } from './paths.ts';

/** Throws USAGE when an interface with a fixed address has no card, or a card is named twice or badly. */
export function checkNics(facts: Facts, nics: Request['nics']): void {
  for (const { mac, name } of nics) {
    if (!/^([0-9a-f]{2}:){5}[0-9a-f]{2}$/i.test(mac))
      throw new PortError('USAGE', `not a MAC address: ${mac}`);
    if (!/^[A-Za-z][\w-]{0,14}$/.test(name)) throw new PortError('USAGE', `not a name for a card: ${name}`);
    const twins = nics.filter((n) => n.name === name || n.mac.toLowerCase() === mac.toLowerCase());
    if (twins.length > 1) throw new PortError('USAGE', `--nic names ${name} or ${mac} twice`);
  }
  const missing = facts.network.interfaces.filter(
    (n) => n.method === 'static' && isPhysical(n.name) && !nics.some((c) => c.name === n.name),
  );
  if (missing.length > 0) {
    const names = missing.map((n) => n.name);
    throw new PortError('USAGE', `--network keep needs the new MAC address of ${names.join(', ')}`, {
      hint: names.map((n) => `--nic 52:54:00:12:34:56=${n}`).join(' '),
    });
  }
}

/** One udev link file per card, and new MAC addresses where the configuration names the old ones. */
export async function keepEdits(guest: GuestFiles, facts: Facts, nics: Request['nics']): Promise<FileEdit[]> {
  const edits: FileEdit[] = [];
  for (const { mac, name } of nics) {
    const path = `/etc/systemd/network/10-port-image-${name}.link`;
    const text = `# ${MARK}\n[Match]\nMACAddress=${mac.toLowerCase()}\nType=ether\n\n[Link]\nName=${name}\n`;
    edits.push(
      ...textEdit(path, await guest.readText(path), text, `the card ${mac} is called ${name} as before`),
    );
  }
  const pins = facts.network.pins;
  for (const path of new Set(facts.network.interfaces.flatMap((n) => n.configuredIn))) {
    const before = await guest.readText(path);
    if (before === undefined) continue;
    let after = before;
    for (const { mac, name } of nics) {
      const old =
        facts.network.interfaces.find((n) => n.name === name)?.mac ?? pins.find((p) => p.name === name)?.mac;
      if (old !== undefined) after = after.replace(new RegExp(old, 'gi'), () => mac.toLowerCase());
    }
    const secret = path.startsWith('/etc/NetworkManager/') ? { secret: true } : {};
    edits.push(...textEdit(path, before, after, 'names the new card').map((e) => ({ ...e, ...secret })));
  }
  return edits;
}
