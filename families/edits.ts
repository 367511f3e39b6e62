/** Showing and applying file edits of the guest, the same way for every stage. */
import type { StageContext } from '../core/stage.ts';
import { withoutSecrets } from '../core/text.ts';
import type { FileEdit } from './family.ts';

/** Most characters of a file kept in the journal and the report. */
const EXCERPT = 4096;

function excerpt(text: string | undefined): string | undefined {
  if (text === undefined || text.includes('\0')) return undefined;
  const shown = withoutSecrets(text);
  return shown.length > EXCERPT ? `${shown.slice(0, EXCERPT)}…` : shown;
}

/** Records edits as changes, made or intended. Content of files that hold secrets is left out with `secret`. */
export function recordEdits(ctx: StageContext, edits: readonly FileEdit[]): void {
  for (const edit of edits) {
    const before = edit.secret ? undefined : excerpt(edit.before);
    const after = edit.secret ? undefined : excerpt(edit.after);
    ctx.change({
      path: edit.path,
      action: edit.after === undefined ? 'remove' : edit.before === undefined ? 'create' : 'edit',
      why: edit.why,
      ...(before === undefined ? {} : { before }),
      ...(after === undefined ? {} : { after }),
    });
  }
}

/** Writes or removes each file; a file that exists keeps its mode and owner. */
export async function applyEdits(ctx: StageContext, edits: readonly FileEdit[]): Promise<void> {
  for (const edit of edits) {
    ctx.signal.throwIfAborted();
    if (edit.after === undefined) {
      await ctx.guest.remove(edit.path);
      continue;
    }
    if (edit.before === undefined) {
      const folder = edit.path.slice(0, edit.path.lastIndexOf('/'));
      if (folder !== '' && (await ctx.guest.kind(folder)) === 'missing') await ctx.guest.mkdir(folder, 0o755);
      await ctx.guest.write(edit.path, edit.after, { mode: edit.mode ?? 0o644 });
    } else {
      await ctx.guest.write(edit.path, edit.after, edit.mode === undefined ? {} : { mode: edit.mode });
    }
  }
  recordEdits(ctx, edits);
}

/** An edit of one text file, or nothing when the text does not change. */
export function textEdit(path: string, before: string | undefined, after: string, why: string): FileEdit[] {
  return before === after ? [] : [{ path, before, after, why }];
}

/** Edits that touch the same file one after the other become one, first before and last after. */
export function mergeEdits(edits: readonly FileEdit[]): FileEdit[] {
  const merged = new Map<string, FileEdit>();
  for (const edit of edits) {
    const first = merged.get(edit.path);
    merged.set(
      edit.path,
      first === undefined ? edit : { ...edit, before: first.before, why: `${first.why}; ${edit.why}` },
    );
  }
  return [...merged.values()];
}
