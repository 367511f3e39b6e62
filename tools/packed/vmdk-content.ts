/**
 * Content of a disk in several files, put together by us: no other program opens a file by a name found in a descriptor, and
 * qemu-img cannot read a piece of a split disk by itself.
 */
import { type ByteSource, damaged, readExact, truncated } from '../image-format/reader.ts';
import {
  checkGrains,
  isCompressed,
  parseSparse,
  requireSparseHeader,
  type Sparse,
} from '../image-format/vmdk-sparse.ts';
import { readRange } from './byte-stream.ts';
import type { Content } from './sparse-file.ts';

const SECTOR = 512;
/** Grain tables are read in runs of this many directory entries. */
const DIRECTORY_STEP = 64 * 1024;

/** Reads and checks the header and all tables of a piece that must hold `sectors`. Throws DAMAGED, UNSAFE_IMAGE. */
export async function inspectPiece(source: ByteSource, sectors: number): Promise<Sparse> {
  const header = await source.read(0, SECTOR);
  if (header.toString('latin1', 0, 4) !== 'KDMV') throw damaged(source, 'it is no sparse VMDK extent');
  requireSparseHeader(source, header);
  const sparse = parseSparse(source, header);
  if (isCompressed(sparse)) throw damaged(source, 'a piece of a split VMDK is compressed');
  if (sparse.capacity !== sectors) {
    throw damaged(source, `it holds ${sparse.capacity} sectors, its descriptor says ${sectors}`);
  }
  await checkGrains(source, sparse);
  return sparse;
}

/** A run of guest sectors: where they are stored, or 0 for zeros. */
interface Run {
  sector: number;
  sectors: number;
}

/** Grains of a piece in guest order, neighbours joined. */
async function* grainRuns(source: ByteSource, sparse: Sparse): AsyncGenerator<Run> {
  const { capacity, grain, perTable } = sparse;
  let run: Run = { sector: 0, sectors: 0 };
  const joined = (next: Run): Run | undefined => {
    const follows =
      next.sector === 0 ? run.sector === 0 : run.sector !== 0 && run.sector + run.sectors === next.sector;
    if (follows || run.sectors === 0) {
      run = { sector: run.sectors === 0 ? next.sector : run.sector, sectors: run.sectors + next.sectors };
      return undefined;
    }
    const done = run;
    run = next;
    return done;
  };
  const tables = Math.ceil(capacity / (grain * perTable));
  let guest = 0;
  for (let first = 0; first < tables; first += DIRECTORY_STEP) {
    const count = Math.min(DIRECTORY_STEP, tables - first);
    const directory = await readExact(
      source,
      sparse.directory * SECTOR + first * 4,
      count * 4,
      'the grain directory',
    );
    for (let i = 0; i < count; i++) {
      const at = directory.readUInt32LE(i * 4);
      const covered = Math.min(grain * perTable, capacity - guest);
      if (at === 0) {
        const done = joined({ sector: 0, sectors: covered });
        if (done) yield done;
        guest += covered;
        continue;
      }
      const table = await readExact(source, at * SECTOR, perTable * 4, 'a grain table');
      for (let entry = 0; entry < perTable && guest < capacity; entry++) {
        const sector = table.readUInt32LE(entry * 4);
        const sectors = Math.min(grain, capacity - guest);
        const done = joined({ sector: sector <= 1 ? 0 : sector, sectors }); // 1: a grain of zeros
        if (done) yield done;
        guest += sectors;
      }
    }
  }
  if (run.sectors > 0) yield run;
}

/** Content of a checked piece. Throws DAMAGED when a grain lies beyond its end. */
export async function* pieceContent(
  source: ByteSource,
  sparse: Sparse,
  signal?: AbortSignal,
): AsyncGenerator<Content> {
  for await (const { sector, sectors } of grainRuns(source, sparse)) {
    signal?.throwIfAborted();
    if (sector === 0) yield { zeroBytes: sectors * SECTOR };
    else {
      if ((sector + sectors) * SECTOR > source.sizeBytes) throw truncated(source, 'a grain');
      yield* readRange(source, sector * SECTOR, sectors * SECTOR, signal);
    }
  }
}
