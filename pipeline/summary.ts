/** The result of a job as one object: what `convert --json` prints, and what the report and the terminal show. */
import * as fs from 'node:fs/promises';
import type { PassRecord } from '../core/capture-pass.ts';
import type { DataSetSummary } from '../core/data-set.ts';
import { type BadRange, type DiskUse, Facts } from '../core/facts.ts';
import type { Request } from '../core/request.ts';
import type { Change, JobPaths } from '../core/stage.ts';
import { STAGE_NAMES } from '../core/stage.ts';
import { printable } from '../core/text.ts';
import type {
  Artifact,
  CaptureResult,
  Check,
  Claim,
  Consistency,
  LazyAccess,
  TimeToService,
  Verification,
} from '../core/types.ts';
import type { CloudImage } from '../core/uploader.ts';
import type { UploadResult } from '../stages/upload/index.ts';
import { type JournalEntry, replay } from './journal.ts';

/** What `convert --json` ends stdout with. Sizes in bytes, times in seconds. */
export interface Summary {
  ok: boolean;
  job: string;
  source: { path: string; bytes: number; virtualBytes: number; sha256Unchanged: boolean | null };
  /** Every disk, in the order of the source. */
  disks: {
    id: string;
    path: string;
    bytes: number;
    virtualBytes: number;
    /** What it is for; absent before inspect. */
    use?: DiskUse;
    /** True for the one the firmware starts from. */
    boots: boolean;
    /** Places that could not be read. */
    badRanges: number;
  }[];
  /** What places that could not be read hit. */
  badRanges: BadRange[];
  /** How far the copy is one of a single moment, and the passes that made it; null before capture. */
  capture: { consistency: Consistency; passes: PassRecord[] } | null;
  guest: { distro: string; version: string; firmware: string; hostname: string } | null;
  outputs: {
    platform: string;
    /** Id of the disk it shows; absent for the one the firmware starts from. */
    disk?: string;
    path: string;
    format: string;
    /** What the disk travels in; absent for a plain disk. */
    container?: Artifact['container'];
    /** True when the file was read back and compared with the disk, byte by byte. */
    compared: boolean;
    bytes: number;
    virtualBytes: number;
    sha256: string;
    verified: boolean;
    verification: Check[];
    /** What of the platform was booted, listed or not proven; empty when it was not booted. */
    claims: Claim[];
    /** When the units that need data were active, seconds from the start of the kernel. */
    timeToService: TimeToService[];
    /** First accesses to lazy data sets in the verification boot. */
    lazyAccess: LazyAccess[];
  }[];
  dataSets: {
    id: string;
    path: string;
    bytes: number;
    storedBytes: number;
    files: number;
    manifest: string;
    store: string;
  }[];
  /** Images registered in clouds; empty when there are only files. */
  cloudImages: CloudImage[];
  /** How many changes were made inside the guest. */
  changes: number;
  stages: { name: string; seconds: number }[];
  applianceLaunches: number;
  peakRssBytes: number;
  warnings: string[];
  /** Page with all of this, or null before a run finished. */
  report: string | null;
}

/** Changes that are in force, in stage order. */
export function changesOf(entries: readonly JournalEntry[]): Change[] {
  const { done } = replay(entries);
  return STAGE_NAMES.flatMap((name) => done.get(name)?.changes ?? []);
}

/** Builds the summary from the journal and `facts.json`. */
export async function summarize(
  paths: JobPaths,
  request: Request,
  entries: readonly JournalEntry[],
): Promise<Summary> {
  const state = replay(entries);
  const result = <T>(stage: (typeof STAGE_NAMES)[number]): T | undefined =>
    state.done.get(stage)?.result as T | undefined;
  const capture = result<CaptureResult>('capture');
  const verifications = result<Verification[]>('verify') ?? [];
  const facts = await fs
    .readFile(paths.facts, 'utf8')
    .then((text) => Facts.parse(JSON.parse(text)))
    .catch(() => undefined);
  const end = entries.findLast((e) => e.event === 'run-done');
  return {
    ok: state.finished,
    job: paths.dir,
    source: {
      path: request.source,
      bytes: capture?.disks?.reduce((sum, d) => sum + d.fileBytes, 0) ?? 0,
      virtualBytes: capture?.disks?.reduce((sum, d) => sum + d.virtualBytes, 0) ?? 0,
      sha256Unchanged: end?.event === 'run-done' ? end.sourceUnchanged : null,
    },
    disks: (capture?.disks ?? []).map(({ id, path, fileBytes, virtualBytes, badRanges }, i) => ({
      id,
      path,
      bytes: fileBytes,
      virtualBytes,
      ...(facts?.disks[i] === undefined ? {} : { use: facts.disks[i].use }),
      boots: i === (facts?.bootDisk ?? 0),
      badRanges: badRanges.length,
    })),
    badRanges: facts?.badRanges ?? [],
    capture:
      capture === undefined ? null : { consistency: capture.consistency, passes: capture.passes ?? [] },
    guest:
      facts === undefined
        ? null
        : {
            distro: printable(facts.os.distro),
            version: printable(facts.os.version),
            firmware: facts.firmware,
            hostname: printable(facts.os.hostname),
          },
    outputs: (result<Artifact[]>('encode') ?? []).map((artifact) => {
      const proof = verifications.find((v) => v.platform === artifact.platform);
      return {
        ...artifact,
        compared: request.compare,
        verified: proof?.verified ?? false,
        // a further disk was attached to the machine that proved the first: told once
        verification: artifact.disk === undefined ? (proof?.checks ?? []) : [],
        claims: artifact.disk === undefined ? (proof?.claims ?? []) : [],
        timeToService: artifact.disk === undefined ? (proof?.timeToService ?? []) : [],
        lazyAccess: artifact.disk === undefined ? (proof?.lazyAccess ?? []) : [],
      };
    }),
    dataSets: (result<DataSetSummary[]>('strip') ?? []).map((set) => ({
      id: set.id,
      path: printable(set.path),
      bytes: set.bytes,
      storedBytes: set.storedBytes,
      files: set.files,
      manifest: `${request.store}/${set.manifest.key}`,
      store: request.store,
    })),
    cloudImages: result<UploadResult>('upload')?.images ?? [],
    changes: changesOf(entries).length,
    stages: STAGE_NAMES.flatMap((name) => {
      const done = state.done.get(name);
      return done === undefined ? [] : [{ name, seconds: done.seconds }];
    }),
    applianceLaunches: state.applianceLaunches,
    peakRssBytes: process.resourceUsage().maxRSS * 1024,
    warnings: [...new Set([...state.done.values()].flatMap((done) => done.warnings))],
    report: state.finished ? paths.report : null,
  };
}
