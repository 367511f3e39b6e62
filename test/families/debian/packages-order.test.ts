import fc from 'fast-check';
import { expect, test } from 'vitest';
import { installCalls, relationNames } from '../../../families/debian/packages-order.ts';

const entry = (name: string, depends: string[] = [], preDepends: string[] = [], provides: string[] = []) => ({
  name,
  depends,
  preDepends,
  provides,
});

test('relation fields give every alternative', () => {
  expect(relationNames('libc6 (>= 2.34), a:any | b (<< 2) , c [amd64]')).toEqual(['libc6', 'a', 'b', 'c']);
  expect(relationNames(undefined)).toEqual([]);
});

test('pre-dependencies are configured in an earlier call, dependencies never in a later one', () => {
  const calls = installCalls([
    entry('e2fsprogs', [], ['libext2fs2']),
    entry('libext2fs2', ['libcom-err2']),
    entry('libcom-err2'),
    entry('tool', ['e2fsprogs']),
    entry('python3', ['python3-x'], ['minimal']),
    entry('python3-x', ['python3']),
    entry('really-minimal', [], [], ['minimal']),
  ]);
  expect(calls).toEqual([
    [1, 2, 6],
    [0, 3, 4, 5],
  ]);
});

test('every package is installed exactly once, whatever the graph', () => {
  const name = fc.constantFrom('a', 'b', 'c', 'd', 'e');
  const graph = fc.array(fc.record({ depends: fc.array(name), preDepends: fc.array(name) }), {
    maxLength: 5,
  });
  fc.assert(
    fc.property(graph, (g) => {
      const entries = g.map((x, i) => entry('abcde'[i] ?? 'z', x.depends, x.preDepends));
      expect(installCalls(entries).flat().sort()).toEqual(entries.map((_, i) => i));
    }),
  );
});
