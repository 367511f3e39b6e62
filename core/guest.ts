/** The guest's file systems as stages see them. The appliance implements this; tests use a folder. */

/** What a path is. */
export type FileKind = 'file' | 'dir' | 'symlink' | 'other' | 'missing';

/** How to write a file of the guest. An existing file keeps its mode and owner unless these say otherwise. */
export interface WriteOptions {
  mode?: number;
  uid?: number;
  gid?: number;
}

/** Reading and editing guest files. Paths are absolute guest paths; links resolve inside the guest only. */
export interface GuestFiles {
  kind(path: string): Promise<FileKind>;
  /** Content, or undefined when it is not there. At most 16 MiB; throws GUEST_BROKEN when larger. */
  read(path: string): Promise<Buffer | undefined>;
  /** Content as UTF-8 text, or undefined when it is not there. */
  readText(path: string): Promise<string | undefined>;
  /** Names in a folder, sorted; empty when it is not there. */
  list(path: string): Promise<string[]>;
  /** Paths that match a shell glob such as `/etc/netplan/*.yaml`, sorted. */
  glob(pattern: string): Promise<string[]>;
  readLink(path: string): Promise<string>;
  mode(path: string): Promise<number>;
  write(path: string, content: string | Uint8Array, options?: WriteOptions): Promise<void>;
  mkdir(path: string, mode?: number): Promise<void>;
  symlink(target: string, path: string): Promise<void>;
  rename(from: string, to: string): Promise<void>;
  /** Removes a file or a tree; no error when it is not there. */
  remove(path: string): Promise<void>;
}

/** One appliance launch with the guest mounted. Owned by the pipeline, used by the guest stages in turn. */
export interface GuestSession extends GuestFiles {
  /** One guestfs API call by its guestfish name; arguments are data, never command text. Returns stdout. */
  call(command: string, args?: readonly (string | Buffer)[], timeoutMs?: number): Promise<string>;
  /**
   * Runs a constant script of ours with the appliance's own sh and tools; the guest is under /sysroot.
   * `args` arrive as $1…; no guest text may be part of `script`. Returns stdout (at most 2 MiB: put more into a file
   * below `exchange` and fetch it). Throws APPLIANCE with the last line of stderr when it ends non-zero.
   */
  appliance(script: string, args?: readonly (string | Buffer)[], timeoutMs?: number): Promise<string>;
  /**
   * Runs a constant script of ours with the guest's own sh and programs, chrooted, without network.
   * Returns stdout and stderr together. Throws GUEST_BROKEN when it ends non-zero.
   */
  guest(script: string, args?: readonly (string | Buffer)[], timeoutMs?: number): Promise<string>;
  /** Copies a host file into the appliance or the guest (path as the guestfs API sees it: guest path). */
  upload(hostFile: string, guestPath: string): Promise<void>;
  /** Copies a guest file to the host. */
  download(guestPath: string, hostFile: string): Promise<void>;
  /**
   * A guest path that is a tmpfs (never part of the image) to exchange larger files with appliance scripts;
   * in `appliance()` scripts it is "/sysroot" + this path.
   */
  readonly exchange: string;
  /** The source disk's bytes for the host (file or FUSE export, read-only), by index of facts.disks. */
  sourceFile(disk: number): Promise<string>;
}
