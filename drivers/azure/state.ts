/** What a resumed upload must know: names chosen, and which blocks the service acknowledged. */
import { readFile } from 'node:fs/promises';
import * as z from 'zod';
import { PortError } from '../../core/errors.ts';
import { exists, writeJson } from '../../core/files.ts';

const Carrier = z.object({
  /** Blob or managed disk. */
  name: z.string(),
  /** Of the file that is sent. */
  sha256: z.string(),
  bytes: z.number(),
  /** What the service says of the thing it made: creation time of a blob, unique id of a disk. */
  identity: z.string().optional(),
  /** Ours while we write; the same in a resumed run, which needs not wait for it to end. */
  leaseId: z.string().optional(),
  /** Blocks of 4 MiB the service acknowledged. */
  done: z.array(z.number()).default([]),
  /** A disk took all of it and was closed. */
  sent: z.boolean().default(false),
  /** All pages are there and proved. */
  proved: z.boolean().default(false),
});
/** What carries one disk into the cloud. */
export type Carrier = z.infer<typeof Carrier>;

const State = z.object({
  /** Of the image, or its version in the gallery. */
  image: z.string(),
  /** By disk id; the empty one is the system's. */
  carriers: z.record(z.string(), Carrier).default({}),
  /** Resource id of the image once it is made, and what was told of it. */
  made: z
    .object({
      id: z.string(),
      bytes: z.number(),
      proof: z.string(),
      replaced: z.array(z.object({ id: z.string(), action: z.string() })),
    })
    .optional(),
});
type State = z.infer<typeof State>;

/** A save costs a flush of the disk; what a kill loses is sent again. */
const SAVE_EVERY_MS = 1_000;

/** The state file of a job. */
export class UploadState {
  readonly #file: string;
  readonly value: State;
  #savedMs = 0;
  #saving: Promise<void> = Promise.resolve();

  private constructor(file: string, value: State) {
    this.#file = file;
    this.value = value;
  }

  /** What an earlier run left, or undefined. Throws JOB_TAMPERED for a file that is none of ours. */
  static async read(file: string): Promise<UploadState | undefined> {
    if (!(await exists(file))) return undefined;
    try {
      return new UploadState(file, State.parse(JSON.parse(await readFile(file, 'utf8'))));
    } catch (error) {
      throw new PortError('JOB_TAMPERED', `${file} is not what an upload wrote`, {
        hint: 'remove it to begin the upload anew',
        cause: error,
      });
    }
  }

  /** A new one, written at once. */
  static async create(file: string, image: string): Promise<UploadState> {
    const state = new UploadState(file, { image, carriers: {} });
    await state.save();
    return state;
  }

  /** The record of a disk; a new one when the file that is sent is another than before. */
  carrier(disk: string | undefined, fresh: Pick<Carrier, 'name' | 'sha256' | 'bytes'>): Carrier {
    const key = disk ?? '';
    const known = this.value.carriers[key];
    if (known !== undefined && known.sha256 === fresh.sha256 && known.name === fresh.name) return known;
    const made: Carrier = { ...fresh, done: [], sent: false, proved: false };
    this.value.carriers[key] = made;
    return made;
  }

  /** Writes it now; calls one after the other. */
  save(): Promise<void> {
    this.#savedMs = performance.now();
    this.#saving = this.#saving.catch(() => undefined).then(() => writeJson(this.#file, this.value));
    return this.#saving;
  }

  /** Writes it when the last time is a while ago. */
  async saveSoon(): Promise<void> {
    if (performance.now() - this.#savedMs > SAVE_EVERY_MS) await this.save();
  }
}
