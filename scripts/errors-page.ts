/** Prints docs/errors.md from the table in core/errors.ts; a test keeps the page current. */
import { ERROR_CODES, EXIT_STATUS } from '../core/errors.ts';

/** The page as Markdown. */
export function errorsPage(): string {
  const rows = Object.entries(ERROR_CODES).map(
    ([code, { group, summary }]) => `| \`${code}\` | ${EXIT_STATUS[group]} | ${group} | ${summary} |`,
  );
  return `# Errors

Every failure ends with one line on stderr, \`port-image: message [CODE]\`, a hint, and the exit status of the code's group.

| code | exit | group | meaning |
|---|---|---|---|
${rows.join('\n')}
`;
}

if (process.argv[1] === import.meta.filename) process.stdout.write(errorsPage());
