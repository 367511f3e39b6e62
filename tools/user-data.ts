/** User data for cloud-init that hands a provision document to an instance. */
import { stringify } from 'yaml';
import type { Provision } from '../core/contract.ts';

/** Where the instance looks for what a user-data part wrote (guest/provision.sh). */
export const RUN_PROVISION = '/run/port-image/provision.json';
/** Nova refuses longer user data; counted after base64 (openstack/nova:nova/api/openstack/compute/schemas/servers.py). */
export const USER_DATA_LIMIT_BYTES = 65_535;

/** The document as an entry of `write_files`: readable by root alone. */
export function provisionFile(document: Provision): Record<string, string> {
  return {
    path: RUN_PROVISION,
    owner: 'root:root',
    permissions: '0600',
    content: `${JSON.stringify(document)}\n`,
  };
}

/** A `#cloud-config` that writes the document into the instance, readable by root alone, and its size after base64. */
export function provisionUserData(document: Provision): { text: string; encodedBytes: number } {
  const text = `#cloud-config\n${stringify({ write_files: [provisionFile(document)] }, { lineWidth: 0 })}`;
  return { text, encodedBytes: Math.ceil(Buffer.byteLength(text) / 3) * 4 };
}
