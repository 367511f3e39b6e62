/** `data list`, `show`, `verify`, `restore`. */
import * as fs from 'node:fs/promises';
import type { Command } from 'commander';
import type { Entry } from '../../core/data-set.ts';
import { PortError } from '../../core/errors.ts';
import { formatBytes } from '../../core/sizes.ts';
import { printable, printableBytes } from '../../core/text.ts';
import { readEntries } from '../../drivers/stores/read-back.ts';
import { parseProvision } from '../../pipeline/contract/provision.ts';
import { restoreFromProvision, restoreFromStore } from '../../pipeline/data/restore.ts';
import { listSets, requireManifest, type SetState } from '../../pipeline/data/sets.ts';
import { type VerifiedSet, verifySet } from '../../pipeline/data/verify.ts';
import { out, outJson, say } from '../output.ts';
import { withProgress } from '../progress.ts';
import type { Interruption } from '../signals.ts';
import { type Column, tableLines } from '../table.ts';
import { onStore, type StoreFlags, withStoreFlags } from './flags.ts';

const PROVISION_BYTES = 1024 * 1024;

function time(ms: number | undefined): string {
  return ms === undefined ? '' : new Date(ms).toISOString().slice(0, 16).replace('T', ' ');
}

const some = (value: number | undefined): string => (value === undefined ? '' : String(value));

const LIST_COLUMNS: readonly Column<SetState>[] = [
  { title: 'ID', value: (s) => s.id },
  { title: 'STATE', value: (s) => s.state },
  { title: 'PATH', value: (s) => s.path ?? '', shrinks: true },
  { title: 'FILES', value: (s) => some(s.files), right: true, optional: true },
  { title: 'BYTES', value: (s) => (s.bytes === undefined ? '' : formatBytes(s.bytes)), right: true },
  { title: 'STORED', value: (s) => formatBytes(s.storedBytes), right: true, optional: true },
  { title: 'SEGMENTS', value: (s) => some(s.segments), right: true, optional: true },
  { title: 'MODIFIED (UTC)', value: (s) => time(s.modifiedMs), optional: true },
];

async function list(flags: StoreFlags, interruption: Interruption): Promise<void> {
  const rows = await onStore(flags, interruption.signal, (store) =>
    withProgress((report) =>
      listSets(store, {
        signal: interruption.signal,
        // on a terminal only: a line for each set would drown the rest
        onSet: (done) => process.stderr.isTTY === true && report({ text: `${done} data sets` }),
      }),
    ),
  );
  if (flags.json === true) {
    outJson(
      rows.map(({ modifiedMs, ...row }) => ({
        ...row,
        complete: row.state === 'complete',
        ...(modifiedMs === undefined ? {} : { modified: new Date(modifiedMs).toISOString() }),
      })),
    );
    return;
  }
  if (rows.length === 0) say('no data sets in this store');
  else for (const line of tableLines(rows, LIST_COLUMNS)) out(line);
  for (const row of rows) if (row.reason !== undefined) say(`${row.id}: ${printable(row.reason)}`);
}

const TYPE_LETTERS: Readonly<Record<Entry['type'], string>> = {
  file: '-',
  dir: 'd',
  symlink: 'l',
  link: 'h',
  fifo: 'p',
  char: 'c',
  block: 'b',
};

/** One entry as `ls -l` would show it, hostile names escaped. */
export function entryText(entry: Entry): string {
  const name = (base64: string) => printableBytes(Buffer.from(base64, 'base64')) || '.';
  const link = entry.link === undefined ? '' : ` -> ${name(entry.link)}`;
  const mode = entry.mode.toString(8).padStart(4, '0');
  const owner = `${entry.uid}:${entry.gid}`;
  return `${TYPE_LETTERS[entry.type]}${mode} ${owner.padEnd(11)} ${String(entry.size).padStart(12)} ${name(entry.path)}${link}`;
}

async function show(id: string, flags: StoreFlags & { files?: boolean }, interruption: Interruption) {
  await onStore(flags, interruption.signal, async (store) => {
    const { manifest, sha256 } = await requireManifest(store, id);
    const { segments, ...rest } = manifest;
    const storedBytes = segments.reduce((sum, s) => sum + s.bytes, 0);
    if (flags.json === true) {
      const summary = { ...rest, manifestSha256: sha256, storedBytes, segments };
      if (flags.files !== true) return outJson(summary);
      // the list may be long: it is printed as it comes
      process.stdout.write(`${JSON.stringify(summary).slice(0, -1)},"files":[`);
      let first = true;
      for await (const entry of readEntries(store, manifest)) {
        const { path, link, ...more } = entry;
        const text = (b: string) => printableBytes(Buffer.from(b, 'base64'));
        const row = {
          name: text(path),
          ...(link === undefined ? {} : { target: text(link) }),
          path,
          ...more,
        };
        await write(`${first ? '\n' : ',\n'}${JSON.stringify(row)}`);
        first = false;
      }
      return out('\n]}');
    }
    out(`id        ${manifest.id}`);
    out(`path      ${printable(manifest.path)}`);
    out(
      `content   ${formatBytes(manifest.bytes)} in ${manifest.files} files, ${manifest.entryCount} entries`,
    );
    out(`stored    ${formatBytes(storedBytes)} in ${segments.length} segments`);
    out(`manifest  sha256:${sha256}`);
    out(`segments  sha256:${manifest.segmentsSha256}`);
    if (flags.files !== true) return;
    out('');
    for await (const entry of readEntries(store, manifest)) await write(`${entryText(entry)}\n`);
  });
}

/** Writes to stdout and waits while the reader is slower. */
async function write(text: string): Promise<void> {
  if (process.stdout.write(text) || process.stdout.destroyed) return;
  await new Promise<void>((resolve) => {
    process.stdout
      .once('drain', resolve)
      .once('close', resolve)
      .once('error', () => resolve());
  });
}

interface VerifyFlags extends StoreFlags {
  all?: boolean;
  sampled?: boolean;
  manifestSha256?: string;
}

async function verify(ids: readonly string[], flags: VerifyFlags, interruption: Interruption): Promise<void> {
  if ((flags.all === true) === ids.length > 0) {
    throw new PortError('USAGE', 'name data sets to verify, or use --all');
  }
  if (flags.manifestSha256 !== undefined && ids.length !== 1) {
    throw new PortError('USAGE', '--manifest-sha256 belongs to one data set');
  }
  await onStore(flags, interruption.signal, async (store) => {
    const wanted = [...ids];
    if (flags.all === true) for await (const id of store.ids()) wanted.push(id);
    const results: ((VerifiedSet & { ok: true }) | { id: string; ok: false; error: string })[] = [];
    let failed: PortError | undefined;
    for (const id of wanted) {
      try {
        const result = await withProgress((report) =>
          verifySet(store, id, {
            sampled: flags.sampled === true,
            ...(flags.manifestSha256 === undefined ? {} : { manifestSha256: flags.manifestSha256 }),
            signal: interruption.signal,
            onProgress: report,
          }),
        );
        results.push({ ...result, ok: true });
        if (flags.json !== true) {
          const read = `${result.readSegments} of ${result.segments} segments read (${formatBytes(result.readBytes)})`;
          out(`ok      ${id}  ${result.entries} entries, ${read}`);
        }
      } catch (error) {
        // one broken set must not hide the state of the others
        if (!(error instanceof PortError) || !(flags.all === true && keepsGoing(error))) throw error;
        failed ??= error;
        results.push({ id, ok: false, error: error.message });
        if (flags.json !== true) out(`FAILED  ${id}  ${printable(error.message)}`);
      }
    }
    if (flags.json === true) outJson(results);
    if (failed !== undefined) throw failed;
  });
}

/** What `verify --all` notes and goes on from: damage and sets without a manifest. */
function keepsGoing(error: PortError): boolean {
  return ['STORE_MISMATCH', 'USAGE', 'STORE', 'UNSAFE_PATH'].includes(error.code);
}

interface RestoreFlags extends StoreFlags {
  manifestSha256?: string;
  fromProvision?: string;
}

async function restore(id: string, dir: string, flags: RestoreFlags, interruption: Interruption) {
  const manifest = await withProgress(async (report) => {
    const request = {
      id,
      dir,
      manifestSha256: flags.manifestSha256,
      signal: interruption.signal,
      onProgress: report,
    };
    const file = flags.fromProvision;
    if (file === undefined)
      return onStore(flags, interruption.signal, (store) => restoreFromStore(store, request));
    if (flags.store !== undefined) {
      throw new PortError('USAGE', '--store and --from-provision exclude each other');
    }
    const text = await readProvision(file);
    const caFile = process.env.OS_CACERT || undefined;
    return restoreFromProvision(parseProvision(text, file), request, { caFile });
  });
  const { bytes, files, path } = manifest;
  if (flags.json === true) outJson({ id, path, restored: dir, bytes, files });
  else out(`restored ${files} files (${formatBytes(bytes)}) of ${printable(path)} into ${printable(dir)}`);
}

async function readProvision(file: string): Promise<string> {
  try {
    const { size } = await fs.stat(file);
    if (size > PROVISION_BYTES)
      throw new PortError('CONFIG', `${printable(file)} is no provision document: too large`);
    return await fs.readFile(file, 'utf8');
  } catch (error) {
    if (error instanceof PortError) throw error;
    throw new PortError('CONFIG', `cannot read ${printable(file)}`, { cause: error });
  }
}

/** Adds the subcommands that change nothing in the store. */
export function addReading(data: Command, interruption: Interruption): void {
  withStoreFlags(data.command('list'))
    .description('data sets of a store, complete or not')
    .addHelpText('after', '\nExample:\n  port-image data list --store file:/srv/store')
    .action((flags: StoreFlags) => list(flags, interruption));
  withStoreFlags(data.command('show'))
    .description('what a data set holds')
    .argument('<id>', 'data set')
    .option('--files', 'also every file: mode, owner, size, path')
    .addHelpText('after', '\nExample:\n  port-image data show shop01-srv-0123456789 --files')
    .action((id: string, flags: StoreFlags & { files?: boolean }) => show(id, flags, interruption));
  withStoreFlags(data.command('verify'))
    .description('read data sets back and compare every member with the list of entries')
    .argument('[id...]', 'data sets')
    .option('--all', 'every data set of the store')
    .option('--sampled', 'sizes of all objects, but the content of a few segments only')
    .option('--manifest-sha256 <digest>', "digest of the manifest, from the image's contract")
    .addHelpText('after', '\nExample:\n  port-image data verify --all --store file:/srv/store')
    .action((ids: string[], flags: VerifyFlags) => verify(ids, flags, interruption));
  withStoreFlags(data.command('restore'))
    .description('put a data set back into an empty folder of this machine (owners need root)')
    .argument('<id>', 'data set')
    .argument('<dir>', 'folder, new or empty')
    .option('--manifest-sha256 <digest>', "digest of the manifest, from the image's contract")
    .option('--from-provision <file>', 'use only a provision document: no store, no login')
    .addHelpText('after', '\nExample:\n  port-image data restore shop01-srv-0123456789 /srv/new')
    .action((id: string, dir: string, flags: RestoreFlags) => restore(id, dir, flags, interruption));
}
