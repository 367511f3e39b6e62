/** What the hand-over of one platform is made of. */
import { shellWord } from '../../core/shell-word.ts';
import type { Artifact } from '../../core/types.ts';

/** One image file in the folder. */
export interface HandOverFile {
  /** Of the image. */
  name: string;
  /** Name of the file in the folder. */
  file: string;
  format: string;
  /** Bytes of the file. */
  bytes: number;
  virtualBytes: number;
  /** Whole GiB a disk for it needs. */
  gib: number;
  firmware: 'bios' | 'uefi';
  /** Of the processor, as `uname -m` says. */
  arch: string;
  /** Of the guest, not of this image. */
  hasData: boolean;
}

/** An image of a further disk. */
export interface FurtherDisk {
  artifact: Artifact;
  file: string;
  /** Name of the image or volume. */
  name: string;
  gib: number;
  /** Where the image of it is registered already. */
  registered: { place: string; id: string } | undefined;
  /** Where that of the system is registered. */
  place: string | undefined;
}

/** How a platform is told what to do with files. */
export interface PlatformHandOver {
  title: string;
  /** Commands that make an instance of the file, without indentation. */
  commands(file: HandOverFile): string[];
  /** Commands that bring a further disk to the instance; by default its file is only named. */
  further?(machine: string, disk: FurtherDisk): string[];
  /** Scripts beside the image. */
  scripts?(file: HandOverFile): { name: string; text: string }[];
}

/** A file's name as an argument of a POSIX shell: never taken for an option. */
export function fileWord(file: string): string {
  return shellWord(file.startsWith('-') ? `./${file}` : file);
}
