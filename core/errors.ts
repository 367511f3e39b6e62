/**
 * One error type for the whole program. The code names the failure, its group fixes the exit status, and
 * `temporary` (a property of one error, not a group) is the only thing that allows a retry.
 */

/** Kinds of failure, as the manual lists them. */
export type ErrorGroup =
  | 'bug'
  | 'usage'
  | 'config'
  | 'unsafe'
  | 'source'
  | 'host'
  | 'remote'
  | 'verify'
  | 'interrupted';

/** Exit status of the program for each group of failure. */
export const EXIT_STATUS: Readonly<Record<ErrorGroup, number>> = {
  bug: 1,
  usage: 2,
  config: 2,
  unsafe: 3,
  source: 4,
  host: 5,
  remote: 6,
  verify: 7,
  interrupted: 130,
};

/** Every code the program can end with: its group, and what it means in one line (printed in docs/errors.md). */
export const ERROR_CODES = {
  BUG: { group: 'bug', summary: 'port-image itself is wrong; please report it with the job folder' },
  USAGE: {
    group: 'usage',
    summary: 'the command line asks for something that does not exist or does not fit',
  },
  CONFIG: { group: 'config', summary: 'a configuration or customisation file is wrong' },
  JOB_UNKNOWN: { group: 'usage', summary: 'no job in this folder' },
  JOB_MISMATCH: { group: 'usage', summary: 'the job folder holds another request' },
  JOB_LOCKED: { group: 'host', summary: 'another run works in this job folder' },
  JOB_TAMPERED: { group: 'unsafe', summary: 'the job folder changed behind the journal' },
  OUTSIDE_REFERENCE: {
    group: 'unsafe',
    summary: 'the image refers to another file (backing, data file, extent)',
  },
  UNSAFE_IMAGE: { group: 'unsafe', summary: 'the image header asks for something that is never needed' },
  FORMAT_AMBIGUOUS: { group: 'unsafe', summary: 'the content looks like another format than named' },
  UNSAFE_PATH: { group: 'unsafe', summary: 'a path leads out of its tree or is not a regular name' },
  NOT_A_DISK: { group: 'source', summary: 'the source is not a disk image' },
  EMPTY_DISK: { group: 'source', summary: 'the disk holds nothing' },
  DAMAGED: { group: 'source', summary: 'the image is truncated or inconsistent' },
  ENCRYPTED: { group: 'source', summary: 'the disk is encrypted and no key was given' },
  NO_OS: { group: 'source', summary: 'no operating system found on the disk' },
  SEVERAL_OS: { group: 'source', summary: 'several operating systems found; name one with --root' },
  UNSUPPORTED_OS: { group: 'source', summary: 'this operating system cannot be converted yet' },
  UNSUPPORTED_FORMAT: { group: 'source', summary: 'this kind of image cannot be read' },
  HIBERNATED: { group: 'source', summary: 'the system was hibernated, its file systems are not consistent' },
  GUEST_FULL: { group: 'source', summary: 'a guest file system has too little free space for the changes' },
  GUEST_BROKEN: {
    group: 'source',
    summary: 'something the conversion needs inside the guest is missing or broken',
  },
  NO_CONTRACT: { group: 'source', summary: 'the image or file carries no contract, or one that is broken' },
  BAD_SECTORS: { group: 'source', summary: 'parts of the source disk cannot be read' },
  LIVE_SOURCE: { group: 'source', summary: 'the source was in use and nothing made its copy consistent' },
  SOURCE_REMOTE: {
    group: 'remote',
    summary: 'the machine or server that holds the source cannot be reached, refused, or broke off',
  },
  SOURCE_EMPTY: { group: 'source', summary: 'a source of a sync offers no image at all' },
  SOURCE_CHANGED: { group: 'source', summary: 'the source changed while it was read' },
  PROGRAM_MISSING: { group: 'host', summary: 'a foreign program is not installed' },
  PROGRAM_FAILED: { group: 'host', summary: 'a foreign program failed' },
  TIMEOUT: { group: 'host', summary: 'a foreign program did not end in time' },
  DISK_SPACE: { group: 'host', summary: 'not enough free space on this machine' },
  HOST_IO: { group: 'host', summary: 'this machine could not read or write a file' },
  APPLIANCE: { group: 'host', summary: 'the libguestfs appliance failed' },
  PACKAGES: { group: 'remote', summary: 'packages could not be resolved or downloaded' },
  STORE: { group: 'remote', summary: 'the data store refused or failed' },
  STORE_MISMATCH: { group: 'remote', summary: 'what the store gives back is not what was sent' },
  CLOUD: { group: 'remote', summary: 'a cloud service failed or cannot be reached' },
  CLOUD_LOGIN: { group: 'remote', summary: 'the cloud does not accept the credentials' },
  CLOUD_REFUSED: {
    group: 'remote',
    summary: 'the cloud does not allow it: role, quota, size limit, missing service',
  },
  CLOUD_CONFLICT: { group: 'remote', summary: 'the cloud holds something of this name already' },
  CLOUD_MISMATCH: { group: 'remote', summary: 'what the cloud holds is not what was sent' },
  SYNC_BUSY: { group: 'remote', summary: 'another run makes this image in this target right now' },
  SYNC_INCOMPLETE: { group: 'remote', summary: 'some images of a sync are not where they should be' },
  QUEUE: { group: 'remote', summary: 'the queue cannot be reached or refused' },
  VERIFY_FAILED: { group: 'verify', summary: 'the image did not prove itself in the verification boot' },
  OUTPUT_DIFFERS: { group: 'verify', summary: 'the encoded image is not equal to the work disk' },
  INTERRUPTED: {
    group: 'interrupted',
    summary: 'stopped by a signal; a job can be resumed, a sync goes on with its next run',
  },
} as const satisfies Record<string, { group: ErrorGroup; summary: string }>;

/** A documented error code. */
export type ErrorCode = keyof typeof ERROR_CODES;

/** What may accompany an error. */
export interface PortErrorOptions {
  /** What the user can do about it, one line. */
  hint?: string;
  /** The original failure. */
  cause?: unknown;
  /** True when trying again may heal it (network, throttling). */
  temporary?: boolean;
}

/** The only error that crosses a room's border. */
export class PortError extends Error {
  readonly code: ErrorCode;
  readonly hint: string | undefined;
  readonly temporary: boolean;

  constructor(code: ErrorCode, message: string, options: PortErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = 'PortError';
    this.code = code;
    this.hint = options.hint;
    this.temporary = options.temporary ?? false;
  }

  /** The group of the code. */
  get group(): ErrorGroup {
    return ERROR_CODES[this.code].group;
  }

  /** The exit status the program ends with when nothing catches this error. */
  get exitStatus(): number {
    return EXIT_STATUS[this.group];
  }
}

/** Turns anything thrown into a PortError; file system faults become DISK_SPACE or HOST_IO, the rest BUG. */
export function asPortError(error: unknown): PortError {
  if (error instanceof PortError) return error;
  if (error instanceof Error) {
    const { code, path } = error as NodeJS.ErrnoException;
    if (error.name === 'AbortError') return new PortError('INTERRUPTED', 'interrupted', { cause: error });
    if (code === 'ENOSPC' || code === 'EDQUOT') {
      return new PortError('DISK_SPACE', `no space left on this machine${path ? ` for ${path}` : ''}`, {
        cause: error,
        hint: 'free some space, then go on: what is done is kept',
      });
    }
    if (typeof code === 'string' && /^E[A-Z0-9]+$/.test(code)) {
      return new PortError('HOST_IO', error.message, { cause: error });
    }
    return new PortError('BUG', error.message, { cause: error });
  }
  return new PortError('BUG', String(error));
}
