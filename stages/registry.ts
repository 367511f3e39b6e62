/** The stages, in the order of `convert`. Adding one is one folder and one line here. */
import type { Stage } from '../core/stage.ts';
import { stage as capture } from './capture/index.ts';
import { stage as cloudInit } from './cloud-init/index.ts';
import { stage as customize } from './customize/index.ts';
import { stage as encode } from './encode/index.ts';
import { stage as guestDrivers } from './guest-drivers/index.ts';
import { stage as inspect } from './inspect/index.ts';
import { stage as network } from './network/index.ts';
import { stage as seal } from './seal/index.ts';
import { stage as strip } from './strip/index.ts';
import { stage as trim } from './trim/index.ts';
import { stage as upload } from './upload/index.ts';
import { stage as verify } from './verify/index.ts';

/** All stages; each knows its own plan and result types, the pipeline only carries them. */
export const stages: readonly Stage[] = [
  capture,
  inspect,
  strip,
  guestDrivers,
  cloudInit,
  network,
  seal,
  trim,
  customize,
  encode,
  verify,
  upload,
] as readonly Stage[];
