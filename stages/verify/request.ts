/** What a verification is asked for. */
import type { Provision } from '../../core/contract.ts';
import type { Log } from '../../core/log.ts';
import type { Platform } from '../../core/platform.ts';
import type { ModuleListing } from '../../core/types.ts';
import type { Store } from '../../drivers/stores/store.ts';
import type { MachineOptions } from '../../tools/qemu-system.ts';
import type { ExpectedDataSet } from './data-check.ts';

/** What to verify. */
export interface VerifyRequest {
  /** Absolute path of the image. */
  image: string;
  /** qemu-img format name. */
  format: string;
  platform: Platform;
  /** Images of further disks that are attached. */
  moreImages?: readonly { path: string; format: string }[];
  /** Mount points that must be there. */
  mounts?: readonly string[];
  /** Default: read from the image's partition table. */
  firmware?: 'bios' | 'uefi';
  /** Folder for the serial log, the screenshot and verification-PLATFORM.json. */
  logs: string;
  /** Store that holds the data sets. */
  store?: Store;
  dataSets?: readonly ExpectedDataSet[];
  /** A minted document to give the machine instead: its data then comes from the real store, through a relay. */
  provision?: Provision;
  /** The store of `provision`. Default: the one its URLs name, trusted as this machine trusts. */
  relay?: { upstream: string; ca?: string | undefined };
  /** Units that were enabled on the source. */
  services?: readonly string[];
  /** Pages the local web server must serve. */
  pages?: readonly { path: string; sha256: string }[];
  /** Name of the instance. */
  hostname?: string;
  /** False when the image keeps static addresses: then only a configured card is asked for. Default true. */
  dhcp?: boolean;
  /** What the image has of each module the platforms ask for, where the conversion has listed it. */
  listings?: readonly ModuleListing[];
  /** Seconds for the whole boot. */
  limitSeconds?: number;
  /** Folder for the throw-away overlay. */
  scratch?: string;
  directKernel?: MachineOptions['directKernel'];
  signal?: AbortSignal | undefined;
  log?: Log;
  /** Told what the guest does, short. */
  onProgress?: (text: string) => void;
}
