/** A tree with everything that archives tend to lose, and a comparison that sees every property. */
import { execFileSync } from 'node:child_process';

const SCRIPT = `
set -eu
cd "$1"
umask 022
mkdir -p app/empty app/ro 'app/with space' app/.hidden app/acl
printf hello > app/plain; chmod 4755 app/plain; chown 1234:5678 app/plain
: > app/zero; chmod 0000 app/zero
printf x > "app/$(printf 'new\\nline')"
printf y > "app/$(printf 'bad\\377byte\\001\\033[31m')"
printf z > 'app/-rf'; printf q > "app/quote'\\"$(id)"'\\'
printf tiny > 'app/is 5 (1 blocks of 1 bytes)'
long=$(printf '%0120d' 7); mkdir -p "app/$long/$long"; printf long > "app/$long/$long/$long"
dd if=/dev/urandom of=app/random bs=1M count=9 status=none; printf tail >> app/random
truncate -s 12M app/sparse; printf mid | dd of=app/sparse bs=1 seek=5000001 conv=notrunc status=none
truncate -s 3M app/hole
printf data > app/sparse-end; truncate -s 1000001 app/sparse-end
fallocate -l 1M app/unwritten; printf ab | dd of=app/unwritten bs=1 seek=70000 conv=notrunc status=none
ln app/random app/zz-hard; ln app/sparse 'app/with space/hard sparse'
ln -s /nowhere/at/all app/dangling; ln -s ../../outside app/up; ln -s plain "app/$(printf 'l\\377')"
ln -s "$(printf 't\\nx\\376')" app/oddlink; ln -s "$(printf '%0150d' 1)" app/longlink
ln app/dangling app/hardsym
mkfifo app/fifo; mknod app/null c 1 3; mknod app/blk b 7 200
chown -h 77:88 app/dangling; chown 3000000:4294967294 app/hole
setfattr -n user.note -v "$(printf 'a\\nb=c')" app/plain
setfattr -n 'user.odd=%name' -v 0x00ff0a3d app/plain
setfattr -n "$(printf 'user.na\\303\\257ve \\377"x')" -v 1 app/plain
setfattr -n user.empty app/plain
setfattr -n trusted.t -v 1 app/empty
setfattr -n user.s -v sparse app/sparse
setfattr -h -n trusted.l -v 1 app/dangling
setfattr -n security.capability -v 0x0100000200040000000000000000000000000000 app/-rf
setfacl -m u:1001:rwx,g:2002:r-- app/plain
setfacl -d -m u:1001:rwx app/acl; printf i > app/acl/inherits; printf n > app/acl/none; setfacl -b app/acl/none
chmod 1777 app/.hidden; chmod 2555 app/ro; printf r > app/ro/file
for i in $(seq 1 300); do printf "$i" > app/.hidden/f$i; done
touch -h -d '2001-02-03 04:05:06.123456789' app/dangling
touch -d '1969-12-31 23:59:58.25' app/zero
touch -d '2040-01-02 03:04:05.5' app/plain app/-rf
touch -d '1999-09-09 09:09:09.000000001' app/ro app/acl app/empty app
`;

/** Fills `root` with `app/`. Needs root, attr, acl. */
export function makeOddTree(root: string): void {
  execFileSync('bash', ['-c', SCRIPT, 'bash', root], { stdio: ['ignore', 'ignore', 'inherit'] });
}

/** Shell script that describes the tree of its first argument. */
export const LIST = `
set -eu
LC_ALL=C; export LC_ALL
cd "$1"
find . -type d -printf '%P d %m %U %G %T@\\0' | sort -z | tr '\\0' '\\n'
find . ! -type d -printf '%P %y %m %U %G %s %T@ %n -> %l\\0' | sort -z | tr '\\0' '\\n'
find . -type f -print0 | sort -z | xargs -0 sha256sum -z | tr '\\0' '\\n'
find . -print0 | sort -z | xargs -0 getfattr -h -P -d -m - -e hex
find . \\( -type c -o -type b \\) -exec stat -c '%n %t %T' {} + | sort
find . -type f -links +1 -printf '%i %p\\n' | sort -k2 | awk '{ if (!($1 in n)) n[$1] = ++c; $1 = n[$1]; print }'
`;

/** Every property of a tree as text, by programs that are not ours. Sizes and link counts of folders are the file system's and left out. */
export function describeTree(root: string): string {
  return execFileSync('sh', ['-c', LIST, 'sh', root], { encoding: 'latin1', maxBuffer: 1 << 28 });
}

/** Blocks of 512 bytes that a file takes. */
export function blocksOf(file: string): number {
  return Number(execFileSync('stat', ['-c', '%b', file], { encoding: 'utf8' }));
}
