/** The one command line that is run on the source: it chooses a language, becomes root and runs what comes on its input. */
import { readFileSync } from 'node:fs';
import { assetPath } from '../../core/assets.ts';

/** A helper program, ready to be sent. */
export interface HelperProgram {
  language: 'python' | 'perl';
  text: Buffer;
}

/** The helpers of both languages; the first line tells each the mark of this connection. */
export function helperPrograms(nonce: string): HelperProgram[] {
  const read = (name: string) => readFileSync(assetPath(`remote/${name}`), 'utf8');
  return [
    { language: 'python', text: Buffer.from(`NONCE = "${nonce}"\n${read('helper.py')}`) },
    { language: 'perl', text: Buffer.from(`my $NONCE = "${nonce}";\n${read('helper.pl')}`) },
  ];
}

/** What python3 must have: old and minimal installations lack some. */
const PYTHON_TEST =
  'import sys,mmap,fcntl,zlib,hashlib,threading,queue,subprocess,urllib.parse;sys.exit(sys.version_info<(3,4))';

/**
 * The command, to be understood by any login shell (sh, csh, fish): single quotes around all, and none of `'`, `!`, newline or a
 * double backslash inside. It prints `@port-image NONCE WORD`: the language that is about to start, or `nosudo`, `none`.
 */
export function bootstrapCommand(
  nonce: string,
  programs: readonly HelperProgram[],
  options: { lowPriority: boolean; language?: 'python' | 'perl' | undefined },
): string {
  const mark = (word: string) => `printf "\\n@port-image ${nonce} ${word}\\n"`;
  const length = (language: string) => programs.find((p) => p.language === language)?.text.length ?? 0;
  const wants = (language: string) => options.language === undefined || options.language === language;
  const script = [
    'LC_ALL=C; export LC_ALL; s=',
    'if [ "$(id -u)" -ne 0 ]; then if command -v sudo >/dev/null 2>&1; then s="sudo -n"' +
      `; elif command -v doas >/dev/null 2>&1; then s="doas -n"; else ${mark('nosudo')}; exit 0; fi; fi`,
    'n=',
  ];
  if (options.lowPriority) {
    script.push(
      'if nice -n 10 true >/dev/null 2>&1; then n="nice -n 10"; fi',
      'if ionice -c3 true >/dev/null 2>&1; then n="ionice -c3 $n"; fi',
    );
  }
  if (wants('python')) {
    // a fixed threshold returns the memory of each freed block at once; -I: nothing of the user's environment or folder is loaded
    script.push(
      `for p in python3 /usr/libexec/platform-python; do if $p -I -c "${PYTHON_TEST}" >/dev/null 2>&1; then ${mark('python')}` +
        '; exec $s env MALLOC_MMAP_THRESHOLD_=131072 MALLOC_ARENA_MAX=2 $n' +
        ` $p -I -S -c "import sys;exec(sys.stdin.buffer.read(${length('python')}))"; fi; done`,
    );
  }
  if (wants('perl')) {
    const n = length('perl');
    // sysread: buffered input would swallow what follows the program
    script.push(
      `if perl -e "use Fcntl; use POSIX;" >/dev/null 2>&1 && command -v dd >/dev/null 2>&1 && command -v sha256sum >/dev/null 2>&1; then ${mark('perl')}` +
        `; exec $s $n perl -e "my \\$p = q(); while (length(\\$p) < ${n}) { sysread(STDIN, \\$p, ${n} - length(\\$p), length(\\$p)) or exit 1 } eval \\$p; die \\$@ if \\$@"; fi`,
    );
  }
  script.push(mark('none'));
  // exec: the login shell would stand between ssh and the helper
  return `exec sh -c '${script.join('; ')}'`;
}
