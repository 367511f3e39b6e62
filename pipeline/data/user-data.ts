/** Ways of handing a provision document to an instance: user data for cloud-init, properties of the instance. */
import { isIP } from 'node:net';
import type { Provision } from '../../core/contract.ts';
import { PortError } from '../../core/errors.ts';
import { printable } from '../../core/text.ts';
import { provisionUserData, USER_DATA_LIMIT_BYTES } from '../../tools/user-data.ts';

/** Longest value of one metadata item of an instance (Nova: `metadata_items`, 255 characters). */
const PROPERTY_CHARS = 255;

/** A `#cloud-config` that writes the document into the instance, readable by root alone. Throws USAGE when too long. */
export function cloudConfig(document: Provision): string {
  const { text, encodedBytes } = provisionUserData(document);
  if (encodedBytes > USER_DATA_LIMIT_BYTES) {
    throw new PortError(
      'USAGE',
      `the user data would take ${encodedBytes} bytes, a cloud allows ${USER_DATA_LIMIT_BYTES}`,
      {
        hint: 'mint fewer data sets at once, or use --pointer',
      },
    );
  }
  return text;
}

/** A URL as properties of an instance: `port_image`, `port_image_2`, … of at most 255 characters each. */
export function pointerProperties(url: string): Record<string, string> {
  const properties: Record<string, string> = {};
  for (let at = 0, n = 1; at < url.length; at += PROPERTY_CHARS, n += 1) {
    properties[n === 1 ? 'port_image' : `port_image_${n}`] = url.slice(at, at + PROPERTY_CHARS);
  }
  return properties;
}

/** Returns an IP address or range in CIDR form as it is. Throws USAGE for anything else. */
export function checkIpRange(text: string): string {
  const [, address = '', , bits] = /^([0-9a-fA-F:.]{2,45})(\/(\d{1,3}))?$/.exec(text) ?? [];
  const kind = isIP(address);
  if (kind !== 0 && (bits === undefined || Number(bits) <= (kind === 4 ? 32 : 128))) return text;
  throw new PortError('USAGE', `--ip: ${printable(text).slice(0, 80)} is no address and no range`, {
    hint: 'an address or a range in CIDR form: 10.1.2.3, 10.1.2.0/24, 2001:db8::/32',
  });
}
