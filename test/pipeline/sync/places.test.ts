import * as fs from 'node:fs/promises';
import * as os from 'node:os';
import * as path from 'node:path';
import { afterEach, expect, test, vi } from 'vitest';
import { Places } from '../../../pipeline/sync/places.ts';
import { fileWith } from '../../support/fleet-tasks.ts';

afterEach(() => {
  vi.unstubAllEnvs();
  vi.restoreAllMocks();
});

test('a place that could not be opened is opened again when it is next needed: a worker lives for months', async () => {
  const dir = await fs.mkdtemp(path.join(os.tmpdir(), 'port-image-places-'));
  try {
    const clouds = path.join(dir, 'clouds.yaml');
    vi.stubEnv('OS_CLIENT_CONFIG_FILE', clouds);
    vi.stubEnv('OS_CLOUD', '');
    const file = fileWith({ b: 1 });
    const target = file.config.targets.b;
    if (target !== undefined) target.options = { cloud: 'later' };
    const stop = new AbortController();
    const { signal } = stop;
    const places = new Places(file, { stateDir: dir, digests: new Map(), owner: 'run@host/1', signal });
    await fs.writeFile(clouds, 'clouds: {}\n');
    await expect(places.target('b')).rejects.toMatchObject({ code: 'CONFIG' });
    await expect(places.target('b')).rejects.toMatchObject({ code: 'CONFIG' });
    const later = performance.now() + 61_000;
    vi.spyOn(performance, 'now').mockReturnValue(later);
    const auth = 'auth: { auth_url: "http://127.0.0.1:1/v3", username: u, password: p, project_name: p }';
    await fs.writeFile(clouds, `clouds: { later: { ${auth}, region_name: r } }\n`, { mode: 0o600 });
    // nobody answers there; that it is asked is enough
    setTimeout(() => stop.abort(), 200);
    await expect(places.target('b')).rejects.not.toMatchObject({ code: 'CONFIG' });
    await places.close();
  } finally {
    await fs.rm(dir, { recursive: true, force: true });
  }
});
