/** Tables for people: columns as wide as their content, one of them shortened so that a line fits the terminal. */
import { printable } from '../core/text.ts';

/** One column. */
export interface Column<Row> {
  title: string;
  value: (row: Row) => string;
  /** Numbers stand at the right. */
  right?: boolean;
  /** This one is shortened when the lines are too long. */
  shrinks?: boolean;
  /** Left out when that is not enough, the last of these first. */
  optional?: boolean;
}

const GAP = '  ';
/** A shortened column keeps at least so many characters. */
const SHORTEST = 12;

/** The middle of a text left out, so that both ends of a path can be seen. */
function shorten(text: string, width: number): string {
  if (text.length <= width) return text;
  const head = Math.floor((width - 1) / 2);
  return `${text.slice(0, head)}…${text.slice(text.length - (width - 1 - head))}`;
}

/** Lines of a table, the titles first. `width` is the terminal's; undefined leaves all as long as it is. */
export function tableLines<Row>(
  rows: readonly Row[],
  columns: readonly Column<Row>[],
  width: number | undefined = process.stdout.isTTY === true ? process.stdout.columns : undefined,
): string[] {
  const cells = rows.map((row) => columns.map((c) => printable(c.value(row))));
  const widths = columns.map((c, i) =>
    cells.reduce((most, line) => Math.max(most, line[i]?.length ?? 0), c.title.length),
  );
  if (width !== undefined) {
    const least = widths.reduce(
      (sum, w, i) => sum + (columns[i]?.shrinks === true ? Math.min(w, SHORTEST) : w) + GAP.length,
      -GAP.length,
    );
    const dropped = columns.findLastIndex((c) => c.optional === true);
    if (least > width && dropped >= 0) return tableLines(rows, columns.toSpliced(dropped, 1), width);
    const total = widths.reduce((sum, w) => sum + w + GAP.length, -GAP.length);
    const at = columns.findIndex((c) => c.shrinks === true);
    const current = widths[at];
    if (total > width && current !== undefined) {
      widths[at] = Math.min(current, Math.max(SHORTEST, current - (total - width)));
    }
  }
  const line = (texts: readonly string[]) =>
    texts
      .map((text, i) => {
        const room = widths[i] ?? 0;
        const fitted = shorten(text, room);
        return columns[i]?.right === true ? fitted.padStart(room) : fitted.padEnd(room);
      })
      .join(GAP)
      .trimEnd();
  return [line(columns.map((c) => c.title)), ...cells.map(line)];
}
