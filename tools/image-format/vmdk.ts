import type { HeaderFacts } from './index.ts';
import type { ByteSource } from './reader.ts';
export async function inspectVmdk(_source: ByteSource): Promise<HeaderFacts> {
  return { virtualBytes: 0 };
}
