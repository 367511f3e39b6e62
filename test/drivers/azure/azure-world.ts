/** Azurite, the double of the resource manager, and options that lead to both. */
import { mkdtempSync, rmSync } from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import type { ContainerClient } from '@azure/storage-blob';
import { vi } from 'vitest';
import { MIB } from '../../../core/sizes.ts';
import type { Artifact } from '../../../core/types.ts';
import type { CloudImage, UploadContext } from '../../../core/uploader.ts';
import { azure } from '../../../drivers/azure/index.ts';
import { AzureOptions } from '../../../drivers/azure/options.ts';
import type { AzurePlan } from '../../../drivers/azure/plan.ts';
import { makeAzureUploader } from '../../../drivers/azure/uploader.ts';
import { type ArmServer, startArm } from '../../support/arm-server.ts';
import { type Azurite, startAzurite } from '../../support/azurite.ts';
import { type FaultProxy, startFaultProxy } from '../../support/fault-proxy.ts';
import { uploadContext } from '../../support/upload-context.ts';
import { makeVhd } from '../../support/vhd.ts';

/** The client, asking after long work without pauses. */
export const uploader = makeAzureUploader(5);

/** What a test of the client needs. */
export interface World {
  arm: ArmServer;
  azurite: Azurite;
  proxy: FaultProxy;
  container: ContainerClient;
  dir: string;
  options(given?: Record<string, unknown>): AzureOptions;
  image(fields?: Partial<Artifact>): ReturnType<typeof makeVhd>;
  context(
    options: AzureOptions,
    artifacts: readonly Artifact[],
    fields?: Partial<UploadContext<AzureOptions>>,
  ): ReturnType<typeof uploadContext<AzureOptions>>;
  close(): Promise<void>;
}

/** Starts all of it; the credentials are in the environment, where the client looks for them. */
export async function startWorld(): Promise<World> {
  const [azurite, arm] = await Promise.all([startAzurite(), startArm()]);
  const proxy = await startFaultProxy(azurite.origin);
  for (const [name, value] of Object.entries({ ...arm.env, ...azurite.env })) vi.stubEnv(name, value);
  const container = await azurite.container('vhds');
  arm.container = container;
  const dir = mkdtempSync(path.join(os.tmpdir(), 'port-image-azure-'));
  let files = 0;
  return {
    arm,
    azurite,
    proxy,
    container,
    dir,
    options: (given = {}) =>
      AzureOptions.parse({
        subscription: arm.subscription,
        resourceGroup: 'rg',
        location: 'westeurope',
        storageAccount: azurite.account,
        container: 'vhds',
        endpoints: { management: arm.url, authority: arm.url, blob: `${proxy.url}/${azurite.account}` },
        caFile: arm.caFile,
        ...given,
      }),
    image: (fields = {}) =>
      makeVhd(
        dir,
        24 * MIB,
        {
          data: [
            [0, MIB],
            [5 * MIB, 8192],
            [17 * MIB, 2 * MIB],
          ],
        },
        fields,
      ),
    context: (options, artifacts, fields = {}) => {
      files += 1;
      return uploadContext(dir, azure, options, artifacts, {
        stateFile: path.join(dir, `state-${files}.json`),
        ...fields,
      });
    },
    async close() {
      vi.unstubAllEnvs();
      await Promise.all([proxy.close(), arm.close()]);
      await azurite.close();
      rmSync(dir, { recursive: true, force: true });
    },
  };
}

/** Plan and upload, as the upload stage does. */
export async function run(ctx: UploadContext<AzureOptions>): Promise<{ plan: AzurePlan; image: CloudImage }> {
  const plan = await uploader.plan(ctx);
  return { plan, image: await uploader.upload(ctx, plan) };
}
