/** Order of RPM versions (rpm: rpmio/rpmvercmp.c). */

/** Compares one version or release. Digits count as numbers and are newer than letters; `~` is older than the end, `^` newer. */
function compareRpmPart(a: string, b: string): number {
  const parts = (text: string) => text.match(/\d+|[A-Za-z]+|[~^]/g) ?? [];
  const [left, right] = [parts(a), parts(b)];
  for (let i = 0; i < Math.max(left.length, right.length); i++) {
    const [l, r] = [left[i], right[i]];
    if (l === r) continue;
    if (l === '~' || r === '~') return l === '~' ? -1 : 1;
    if (l === undefined || r === undefined) return l === undefined ? -1 : 1;
    if (l === '^' || r === '^') return l === '^' ? -1 : 1;
    const [lNumber, rNumber] = [/^\d/.test(l), /^\d/.test(r)];
    if (lNumber !== rNumber) return lNumber ? 1 : -1;
    if (lNumber) {
      if (BigInt(l) !== BigInt(r)) return BigInt(l) < BigInt(r) ? -1 : 1;
    } else return l < r ? -1 : 1;
  }
  return 0;
}

/** Compares `epoch:version-release`; without an epoch it is 0. */
export function compareRpmVersions(a: string, b: string): number {
  const split = (text: string) => {
    const [, epoch = '0', version = '', release = ''] = /^(?:(\d+):)?([^-]*)(?:-(.*))?$/s.exec(text) ?? [];
    return { epoch, version, release };
  };
  const [left, right] = [split(a), split(b)];
  return (
    compareRpmPart(left.epoch, right.epoch) ||
    compareRpmPart(left.version, right.version) ||
    compareRpmPart(left.release, right.release)
  );
}
