/** Lines of fstab as inspect reads them, and kernel names of disks. */

/** A line of fstab. */
export interface FstabEntry {
  spec: string;
  path: string;
  type: string;
  options: string[];
}

/** Reads fstab; octal escapes such as `\040` are undone. Lines that are no entry are left out. */
export function parseFstab(text: string): FstabEntry[] {
  return text.split('\n').flatMap((line) => {
    const [spec, path, type, options] = line
      .replace(/^\s*#.*$/, '')
      .trim()
      .split(/\s+/)
      .map((field) =>
        field.replace(/\\([0-7]{3})/g, (_, o: string) => String.fromCharCode(Number.parseInt(o, 8))),
      );
    if (!spec || !path || !type) return [];
    return [{ spec, path, type, options: (options ?? 'defaults').split(',') }];
  });
}

const BARE =
  /^\/dev\/(?:(?<letters>(?:sd|hd|vd|xvd)(?<letter>[a-z]))(?<n1>\d+)?|(?<nvme>nvme(?<i2>\d+)n1)(?:p(?<n2>\d+))?|(?<mmc>mmcblk(?<i3>\d+))(?:p(?<n3>\d+))?|(?<cciss>cciss\/c0d(?<i4>\d+))(?:p(?<n4>\d+))?)$/;

/** A kernel name of a disk or partition: the disk's name, its place among disks of its kind, the partition number. */
export function bareName(
  spec: string,
): { disk: string; index: number; partition: number | undefined } | undefined {
  const g = BARE.exec(spec)?.groups;
  if (g === undefined) return undefined;
  const disk = g.letters ?? g.nvme ?? g.mmc ?? g.cciss ?? '';
  const index = g.letter === undefined ? Number(g.i2 ?? g.i3 ?? g.i4) : g.letter.charCodeAt(0) - 97;
  const partition = g.n1 ?? g.n2 ?? g.n3 ?? g.n4;
  return { disk, index, partition: partition === undefined ? undefined : Number(partition) };
}
