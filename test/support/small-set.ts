/** A small data set made by the real writer, from names and texts instead of a disk. */
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import type { Store } from '../../drivers/stores/store.ts';
import type { WrittenSet } from '../../stages/strip/set-lists.ts';
import { writeDataSet } from '../../stages/strip/write-set.ts';
import type { TreeContent } from '../../tools/tree-content.ts';
import type { TreeEntry } from '../../tools/tree-walk.ts';

/** Content by path below the tree; a path that ends with a slash is a folder, `-> target` a symlink. */
export type SmallTree = Readonly<Record<string, string | Buffer>>;

/** Several segments at 1 MiB each, folders across their borders, an odd name. */
export const SMALL_TREE: SmallTree = {
  'app/': '',
  'app/config': 'port=80\n',
  'app/data/': '',
  'app/data/big1': randomBytes(700_000),
  'app/data/big2': randomBytes(700_000),
  'app/data/deep/': '',
  'app/data/deep/big3': randomBytes(900_000),
  'app/empty': '',
  'app/link': '-> config',
  'app/new\nline\u001b[31m': 'x',
  'zoo/': '',
};

function treeEntries(tree: SmallTree): TreeEntry[] {
  const uid = process.getuid?.() ?? 0;
  const gid = process.getgid?.() ?? 0;
  const base = { uid, gid, allocatedBytes: 0, mtimeNs: 1_700_000_000_000_000_000n, ctimeNs: 0n };
  const entries: TreeEntry[] = [{ ...base, path: '', type: 'dir', mode: 0o755, size: 0 }];
  for (const path of Object.keys(tree).sort()) {
    const content = tree[path] ?? '';
    if (path.endsWith('/')) {
      entries.push({ ...base, path: path.slice(0, -1), type: 'dir', mode: 0o750, size: 0 });
    } else if (typeof content === 'string' && content.startsWith('-> ')) {
      entries.push({ ...base, path, type: 'symlink', mode: 0o777, size: 0, link: content.slice(3) });
    } else {
      entries.push({ ...base, path, type: 'file', mode: 0o640, size: Buffer.byteLength(content) });
    }
  }
  return entries;
}

function treeContent(tree: SmallTree): TreeContent {
  return {
    ranges: (entry) => (entry.size === 0 ? [] : [[0, entry.size]]),
    async *read(entry, offset, length) {
      yield Buffer.from(tree[entry.path] ?? '').subarray(offset, offset + length);
    },
    prefetch: async () => {},
    close: async () => {},
  };
}

/** Writes a tree into a store. */
export function putSmallSet(
  store: Store,
  id: string,
  options: { tree?: SmallTree; path?: string; segmentBytes?: number } = {},
): Promise<WrittenSet> {
  const tree = options.tree ?? SMALL_TREE;
  return writeDataSet({
    store,
    id,
    path: options.path ?? '/srv',
    entries: treeEntries(tree),
    openContent: async () => treeContent(tree),
    signal: new AbortController().signal,
    segmentBytes: options.segmentBytes ?? 1 << 20,
  });
}

/** Names, types, modes and digests below a folder, to compare two of them. */
export function listTree(dir: string): string {
  return execFileSync(
    'sh',
    [
      '-c',
      'cd "$1" && find . -printf "%y %m %s %l %P\\n" | sort && find . -type f -print0 | sort -z | xargs -0 sha256sum',
      'sh',
      dir,
    ],
    { encoding: 'utf8' },
  );
}
