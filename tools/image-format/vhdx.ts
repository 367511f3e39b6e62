import type { HeaderFacts } from './index.ts';
import type { ByteSource } from './reader.ts';
export async function inspectVhdx(_source: ByteSource): Promise<HeaderFacts> {
  return { virtualBytes: 0 };
}
