/**
 * Services of other clouds for the demo, as the tests have them: emulators where there are any, and servers of ours that check each
 * request against the provider's published model where there are none. Prints one JSON line when all are up, ends on SIGTERM.
 *
 *   node scripts/lib/demo-clouds.ts FOLDER DISK-GIB [PLATFORM…]
 */
import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import { startGate } from '../../test/drivers/aws/moto.ts';
import { startComputeServer } from '../../test/drivers/gcp/compute-server.ts';
import { startFakeGcs } from '../../test/drivers/gcp/fake-gcs.ts';
import { startVcsim } from '../../test/drivers/vmware/vcsim.ts';
import { startArm } from '../../test/support/arm-server.ts';
import { startAzurite } from '../../test/support/azurite.ts';
import { serviceProgram } from '../../test/support/services.ts';
import { startMoto } from '../../test/tools/ebs/moto.ts';

/** What a platform's services give to the conversion. */
interface Stand {
  /** Values of `--set`. */
  sets: string[];
  env: Record<string, string>;
  /** What took the bytes, and what registered the image. */
  told: string;
  stop(): Promise<void>;
}

const [dir = '', gib = '8', ...wanted] = process.argv.slice(2);

async function program(name: Parameters<typeof serviceProgram>[0]): Promise<string> {
  const found = await serviceProgram(name);
  if (found === undefined) throw new Error(`${name} cannot be had here`);
  return found;
}

const STANDS: Readonly<Record<string, () => Promise<Stand>>> = {
  async aws() {
    const moto = await startMoto(await program('moto'));
    const gate = await startGate(moto.url);
    return {
      sets: ['aws.region=eu-central-1', `aws.endpoints.ebs=${gate.url}`, `aws.endpoints.ec2=${gate.url}`],
      env: { AWS_ACCESS_KEY_ID: 'demo', AWS_SECRET_ACCESS_KEY: 'demo' },
      told: 'moto (EBS direct and EC2), behind a gate that checks every block and the digest of all',
      async stop() {
        await gate.close();
        await moto.stop();
      },
    };
  },
  async azure() {
    await program('azurite');
    const azurite = await startAzurite();
    const arm = await startArm();
    arm.container = await azurite.container('vhds');
    return {
      sets: [
        `azure.subscription=${arm.subscription}`,
        'azure.resourceGroup=rg',
        'azure.location=westeurope',
        `azure.storageAccount=${azurite.account}`,
        'azure.container=vhds',
        `azure.endpoints.management=${arm.url}`,
        `azure.endpoints.authority=${arm.url}`,
        `azure.endpoints.blob=${azurite.url}`,
        `azure.caFile=${arm.caFile}`,
      ],
      env: { ...arm.env, ...azurite.env },
      told: "Azurite took the blob; a server of ours that checks requests against Microsoft's model registered it",
      async stop() {
        await arm.close();
        await azurite.close();
      },
    };
  },
  async gcp() {
    const gcs = await startFakeGcs(await program('fake-gcs'), 'images');
    const folder = await fs.mkdtemp(path.join(dir, 'gcp-'));
    const compute = await startComputeServer(folder);
    compute.manner.diskSizeGb = gib;
    return {
      sets: [
        'gcp.project=shop-1',
        'gcp.bucket=images',
        `gcp.endpoints.storage=${gcs.url}`,
        `gcp.endpoints.compute=${compute.url}`,
      ],
      env: { GOOGLE_APPLICATION_CREDENTIALS: compute.credentials },
      told: "fake-gcs-server took the archive; a server of ours that checks requests against Google's model registered it",
      async stop() {
        await compute.close();
        await gcs.stop();
      },
    };
  },
  async vmware() {
    const govc = path.dirname(await program('govc'));
    const vcsim = await startVcsim(await program('vcsim'));
    return {
      sets: [
        `vmware.url=${vcsim.url}`,
        `vmware.caFile=${vcsim.caFile}`,
        'vmware.datastore=LocalDS_0',
        'vmware.pool=/DC0/host/DC0_C0/Resources',
      ],
      env: {
        GOVC_USERNAME: vcsim.username,
        GOVC_PASSWORD: vcsim.password,
        PATH: `${govc}:${process.env.PATH ?? ''}`,
      },
      told: 'vcsim, the vCenter simulator of govmomi, by govc',
      stop: async () => vcsim.stop(),
    };
  },
};

const stands: Stand[] = [];
const missing: string[] = [];
const told: string[] = [];
for (const platform of wanted) {
  const start = STANDS[platform];
  if (start === undefined) continue;
  try {
    const stand = await start();
    stands.push(stand);
    told.push(`${platform}: ${stand.told}`);
  } catch (error) {
    missing.push(`${platform}: ${(error as Error).message}`);
  }
}
process.on('SIGTERM', () => {
  Promise.allSettled(stands.map((stand) => stand.stop())).then(() => process.exit(0));
});
const line = JSON.stringify({
  sets: stands.flatMap((s) => s.sets),
  env: Object.assign({}, ...stands.map((s) => s.env)),
  told,
  missing,
});
process.stdout.write(`${line}\n`);
