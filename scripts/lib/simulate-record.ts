/** What the verbs of a sync really take: small images into a project of scripts/cloud, one verb a night. */
import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import { writeFileAtomic } from '../../core/files.ts';
import { silentLog } from '../../core/log.ts';
import { MIB } from '../../core/sizes.ts';
import type { SyncReport, SyncVerb } from '../../core/sync/types.ts';
import { runSync } from '../../pipeline/sync/engine.ts';
import { parseSync } from '../../pipeline/sync/load.ts';
import { CLOUD_NAME, startCloud } from '../../test/support/cloud.ts';
import { smallGuest } from '../../test/support/small-guest.ts';
import { RECORDED, Timings } from './simulate-world.ts';

const SIZES_MIB = [16, 512];
/** Images our client asks Glance for at a time (tools/openstack/glance.ts). */
const LIST_PAGE = 100;

/** Plays the nights and writes fixtures/recorded/sync/timings.json. */
export async function recordTimings(): Promise<Timings> {
  const cloud = await startCloud();
  const project = await cloud.project('record');
  process.env.OS_CLIENT_CONFIG_FILE = project.cloudsYaml;
  try {
    const images = path.join(project.dir, 'images');
    const made = path.join(project.dir, 'made');
    for (const dir of [images, made]) await fs.mkdir(dir);
    const guests = SIZES_MIB.map((usedMib) => smallGuest(made, `size${usedMib}`, { sizeMib: 1024, usedMib }));
    const place = async (index: number): Promise<void> => {
      const guest = guests[index];
      if (guest === undefined) return;
      const file = path.join(images, `size${SIZES_MIB[index]}`);
      await fs.copyFile(guest.qcow2, `${file}.qcow2`);
      // a version is the time of the file
      const time = new Date(Date.UTC(2026, 7, 20 + guest.version));
      await fs.utimes(`${file}.qcow2`, time, time);
    };
    const night = (more: Record<string, unknown> = {}): Promise<SyncReport> =>
      runSync(
        parseSync(
          JSON.stringify({
            sync: 'record',
            sources: { images: { folder: { path: images } } },
            targets: { cloud: { platform: 'openstack', options: { cloud: CLOUD_NAME } } },
            state: path.join(project.dir, 'state'),
            ...more,
          }),
          path.join(project.dir, 'sync.yaml'),
        ),
        {
          signal: new AbortController().signal,
          log: silentLog,
          progress: () => {},
          warn: (text) => process.stderr.write(`simulate: ${text}\n`),
        },
      );
    const creates = [];
    for (const index of SIZES_MIB.keys()) {
      await place(index);
      creates.push(cost(await night(), 'create'));
    }
    const idle = await night();
    const looking = idle.calls.cloud ?? 0;
    const plain = { rules: [{ properties: { set: { purpose: 'simulation' } } }] };
    const update = cost(await night(plain), 'update');
    for (const [index, guest] of guests.entries()) {
      guest.change(1);
      await place(index);
    }
    await night(plain);
    const hide = cost(await night({ ...plain, retention: { keep: 1 } }), 'hide');
    const remove = cost(await night({ ...plain, retention: { keep: 1, hideFor: '0s' } }), 'delete');
    const [small, large] = creates;
    if (small === undefined || large === undefined) throw new Error('no images');
    const perMib = (a: number, b: number) => Math.max(0, (b - a) / (large.mib - small.mib));
    const flat = ({ seconds, calls, count }: Cost) => ({
      seconds: round(seconds / count),
      secondsPerMib: 0,
      calls: round(Math.max(0, calls - looking) / count),
      callsPerMib: 0,
    });
    const secondsPerMib = perMib(small.seconds, large.seconds);
    const callsPerMib = perMib(small.calls, large.calls);
    const timings = Timings.parse({
      schema: 'port-image/sync-timings/1',
      recorded: `images of ${SIZES_MIB.join(' and ')} MiB of random data into Glance and Swift of scripts/cloud, on two busy cores`,
      listPage: LIST_PAGE,
      verbs: {
        create: {
          seconds: round(Math.max(0, small.seconds - secondsPerMib * small.mib)),
          secondsPerMib: round(secondsPerMib),
          calls: round(Math.max(0, small.calls - looking - callsPerMib * small.mib)),
          callsPerMib: round(callsPerMib),
        },
        update: flat(update),
        hide: flat(hide),
        delete: flat(remove),
      },
    });
    await writeFileAtomic(RECORDED, `${JSON.stringify(timings, null, 2)}\n`);
    return timings;
  } finally {
    await project.cleanup();
    if (cloud.before !== 'running') await cloud.down();
  }
}

interface Cost {
  seconds: number;
  calls: number;
  mib: number;
  count: number;
}

const round = (value: number) => Number(value.toFixed(4));

/** What the actions of one verb took in a night that had only these to do. */
function cost(report: SyncReport, verb: SyncVerb): Cost {
  const done = report.outcomes.filter(({ action, result }) => action.verb === verb && result === 'done');
  const failed = report.outcomes.find(({ result }) => result !== 'done' && result !== 'skipped');
  if (done.length === 0 || failed !== undefined)
    throw new Error(`no ${verb} in this night: ${failed?.message ?? JSON.stringify(report.notes)}`);
  return {
    seconds: done.reduce((sum, { seconds }) => sum + seconds, 0),
    calls: report.calls.cloud ?? 0,
    mib: done.reduce((sum, { changedBytes }) => sum + changedBytes / MIB, 0),
    count: done.length,
  };
}
