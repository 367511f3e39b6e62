/** Order of versions: numbers by value, the rest by bytes, as people expect of `1.9` and `1.10`, or of dates. */

const PART = /\d+|[^\d]+/g;

/** Negative when `a` is older than `b`. Total: only equal texts are equal. */
export function compareVersions(a: string, b: string): number {
  const left = a.match(PART) ?? [];
  const right = b.match(PART) ?? [];
  for (let at = 0; at < Math.max(left.length, right.length); at++) {
    const x = left[at];
    const y = right[at];
    if (x === undefined || y === undefined) return x === undefined ? -1 : 1;
    const order = comparePart(x, y);
    if (order !== 0) return order;
  }
  // `01` and `1` have the same value
  return a < b ? -1 : a > b ? 1 : 0;
}

function comparePart(x: string, y: string): number {
  const isNumber = /^\d/.test(x);
  if (isNumber !== /^\d/.test(y)) return isNumber ? -1 : 1;
  if (!isNumber) return x < y ? -1 : x > y ? 1 : 0;
  const [m, n] = [x.replace(/^0+(?=\d)/, ''), y.replace(/^0+(?=\d)/, '')];
  return m.length - n.length || (m < n ? -1 : m > n ? 1 : 0);
}
