/** The version of port-image itself. */
import { readFileSync } from 'node:fs';
import { assetPath } from './assets.ts';

/** Such as `0.1.0`, from package.json. */
export const PROGRAM_VERSION: string = (
  JSON.parse(readFileSync(assetPath('package.json'), 'utf8')) as { version: string }
).version;
