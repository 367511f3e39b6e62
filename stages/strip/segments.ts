/** Which members of a tree go into which segment, and which segments a sampled check reads. */
import { MIB } from '../../core/sizes.ts';
import { type Member, memberBytes } from '../../tools/segment-tar.ts';
import type { TreeContent } from '../../tools/tree-content.ts';
import type { TreeEntry } from '../../tools/tree-walk.ts';

/** Uncompressed bytes after which a segment is closed. A file is never split, so a segment may be larger. */
const SEGMENT_BYTES = 128 * MIB;
/** Out of so many segments one is read back whole where a sample is enough; the first and the last always are. */
const SAMPLE_ONE_IN = 10;
/** Allowance for pax headers (long names, xattrs, maps of holes): per member, and per archive with its end. */
const MEMBER_HEADERS_BYTES = 4096;
const ARCHIVE_HEADERS_BYTES = 128 * 1024;

/** Cuts the tree into segments. The last one completes the folders, after everything was put into them. */
export function planSegments(
  entries: readonly TreeEntry[],
  content: Pick<TreeContent, 'ranges'>,
  target = SEGMENT_BYTES,
): Member[][] {
  const segments: Member[][] = [];
  let current: Member[] = [];
  let bytes = 0;
  for (const entry of entries) {
    if (entry.path === '') continue;
    const member: Member = { entry, bare: entry.type === 'dir' };
    const size = memberBytes(member, content);
    if (current.length > 0 && bytes + size > target) {
      segments.push(current);
      current = [];
      bytes = 0;
    }
    current.push(member);
    bytes += size;
  }
  if (current.length > 0) segments.push(current);
  const folders = entries.filter((e) => e.type === 'dir').map((entry) => ({ entry, bare: false }));
  segments.push(folders);
  return segments;
}

/** Most bytes the archive of these members takes. */
export function archiveBound(members: readonly Member[], content: TreeContent): number {
  return members.reduce(
    (sum, member) => sum + memberBytes(member, content) + MEMBER_HEADERS_BYTES,
    ARCHIVE_HEADERS_BYTES,
  );
}

/** True for the segments that are read back whole where a sample is enough. */
export function isSample(index: number, count: number): boolean {
  return index === 0 || index === count - 1 || index % SAMPLE_ONE_IN === 0;
}
