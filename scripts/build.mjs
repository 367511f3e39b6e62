// Compiles the product (cli … core) to dist/, the form that is published. What is not code (guest/, schemas/) is
// published from where it lies; core/assets.ts finds it from both places.
import { execFileSync } from 'node:child_process';
import { chmodSync, existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';

const root = path.dirname(import.meta.dirname);
const dist = path.join(root, 'dist');
rmSync(dist, { recursive: true, force: true });

const tsc = createRequire(import.meta.url).resolve('typescript/bin/tsc');
execFileSync(process.execPath, [tsc, '-p', path.join(root, 'tsconfig.build.json')], {
  cwd: root,
  // stdout belongs to npm, which prints the tarball's name there.
  stdio: ['ignore', 2, 2],
});

const main = path.join(dist, 'cli', 'main.js');
if (!existsSync(main)) throw new Error(`the compiler wrote no ${main}`);
const code = readFileSync(main, 'utf8');
if (!code.startsWith('#!'))
  writeFileSync(main, `#!/usr/bin/env -S MALLOC_ARENA_MAX=1 node --max-semi-space-size=1\n${code}`);
chmodSync(main, 0o755);
