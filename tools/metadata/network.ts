/**
 * The machine's user-mode network, by how the platform hands out metadata: its addresses contain those the guest will ask.
 * QEMU forwards a connection to an address of its own network only (libslirp slirp_add_guestfwd).
 */
import type { MetadataKind } from '../../core/platform.ts';

/** Addresses of one network. */
export interface GuestNetwork {
  /** In CIDR form. */
  net: string;
  /** Router. */
  host: string;
  /** First address DHCP gives. */
  dhcpStart: string;
  dns: string;
  /** Where the data store answers, on port 80. */
  store: string;
  /** Where the metadata service answers, on port 80; none where the metadata is on a disk. */
  metadata: readonly string[];
}

/** QEMU's usual network; metadata comes on a disk. */
const USUAL: GuestNetwork = {
  net: '10.0.2.0/24',
  host: '10.0.2.2',
  dhcpStart: '10.0.2.15',
  dns: '10.0.2.3',
  store: '10.0.2.100',
  metadata: [],
};

/** The address most clouds share (link-local, RFC 3927). */
const LINK_LOCAL: GuestNetwork = {
  net: '169.254.0.0/16',
  host: '169.254.2.2',
  dhcpStart: '169.254.2.15',
  dns: '169.254.2.3',
  store: '169.254.2.100',
  metadata: ['169.254.169.254'],
};

/** The network for each kind of metadata. */
export const GUEST_NETWORKS: Readonly<Record<MetadataKind, GuestNetwork>> = {
  'config-drive': USUAL,
  nocloud: USUAL,
  ovf: USUAL,
  ec2: LINK_LOCAL,
  gce: LINK_LOCAL,
  oracle: LINK_LOCAL,
  // The wire server and the metadata service are far apart: only so wide a network holds both.
  azure: {
    net: '168.0.0.0/7',
    host: '168.63.129.2',
    dhcpStart: '168.63.129.32',
    dns: '168.63.129.3',
    store: '168.63.129.100',
    metadata: ['169.254.169.254', '168.63.129.16'],
  },
  aliyun: {
    net: '100.100.100.0/24',
    host: '100.100.100.2',
    dhcpStart: '100.100.100.32',
    dns: '100.100.100.3',
    store: '100.100.100.100',
    metadata: ['100.100.100.200'],
  },
};
