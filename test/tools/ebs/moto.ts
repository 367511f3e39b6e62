/**
 * moto (https://docs.getmoto.org) as EBS. Its EBS keeps and gives blocks, but tells all of them in one list, in the
 * order they were put, as blocks of 512 bytes, and looks at no token. `startEbsFront` stands before it and answers as
 * https://docs.aws.amazon.com/ebs/latest/APIReference says; the bytes of blocks go through it untouched.
 */
import * as fs from 'node:fs/promises';
import * as http from 'node:http';
import * as net from 'node:net';
import { homedir } from 'node:os';
import * as path from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { run } from '../../../core/command.ts';
import { startBackground } from '../../../tools/background.ts';
import { requires } from '../../support/requires.ts';

/** What is fetched when the machine has no moto. */
const MOTO = 'moto[server]==5.2.1';

/** The program: from the machine, or from a folder of the cache it is fetched into once; undefined without either. */
export async function findMoto(): Promise<string | undefined> {
  if (requires('setpriv') !== undefined) return undefined;
  if (requires('moto_server') === undefined) return 'moto_server';
  const { PORT_IMAGE_CACHE, XDG_CACHE_HOME } = process.env;
  const cache = PORT_IMAGE_CACHE ?? path.join(XDG_CACHE_HOME ?? path.join(homedir(), '.cache'), 'port-image');
  const dir = path.join(cache, MOTO.replace(/[^a-z0-9.]+/g, '-'));
  const complete = path.join(dir, 'complete');
  try {
    if ((await fs.stat(complete).catch(() => undefined)) === undefined) {
      await run('python3', ['-m', 'venv', '--clear', dir]);
      await run(path.join(dir, 'bin/pip'), ['install', '--quiet', MOTO], { timeoutMs: 300_000 });
      await fs.writeFile(complete, '');
    }
    return path.join(dir, 'bin/moto_server');
  } catch {
    return undefined;
  }
}

async function freePort(): Promise<number> {
  const server = net.createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as net.AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** Something that answers at an address. */
export interface Service {
  url: string;
  stop(): Promise<void>;
}

/** Starts moto; returns when it answers. */
export async function startMoto(program: string): Promise<Service> {
  const port = await freePort();
  const moto = startBackground(program, ['-H', '127.0.0.1', '-p', String(port)]);
  const url = `http://127.0.0.1:${port}`;
  for (;;) {
    const answer = await fetch(`${url}/moto-api/`).catch(() => undefined);
    if (answer?.ok) return { url, stop: () => moto.stop() };
    const ended = await Promise.race([moto.exited, setTimeout(100, undefined)]);
    if (ended !== undefined) throw new Error(`moto ended: ${ended.stderr}`);
  }
}

/** How the front answers; may be changed while it runs. */
export interface EbsManner {
  /** Most blocks of one list, whatever was asked for. */
  listedBlocks: number;
  /** Empty lists before each list. */
  emptyLists: number;
  /** Tokens given for another number are refused as expired. */
  tokenAge: number;
  /** Lists blocks last first, as EBS never does. */
  backwards: boolean;
}

interface ListedBlock {
  BlockIndex: number;
  BlockToken: string;
}

const base64 = (text: string) => Buffer.from(text).toString('base64');
const fromBase64 = (text: string) => Buffer.from(text, 'base64').toString();

/** Starts the front before moto. */
export async function startEbsFront(motoUrl: string, manner: EbsManner): Promise<Service> {
  const list = async (url: URL, headers: Record<string, string>): Promise<string> => {
    const told = await (await fetch(new URL(url.pathname, motoUrl), { headers })).text();
    const { Blocks, VolumeSize } = JSON.parse(told) as { Blocks: ListedBlock[]; VolumeSize: number };
    const page = fromBase64(url.searchParams.get('pageToken') ?? '').split(' ');
    const from = Number(page[0] || url.searchParams.get('startingBlockIndex') || 0);
    const empty = Number(page[1] ?? manner.emptyLists);
    const most = Math.min(manner.listedBlocks, Number(url.searchParams.get('maxResults') ?? 10_000));
    const rest = Blocks.map(({ BlockIndex }) => Number(BlockIndex))
      .filter((index) => index >= from)
      .sort((a, b) => a - b);
    const shown = empty > 0 ? [] : rest.slice(0, most);
    if (manner.backwards) shown.reverse();
    const next = empty > 0 ? `${from} ${empty - 1}` : `${rest[most]}`;
    return JSON.stringify({
      Blocks: shown.map((BlockIndex) => ({
        BlockIndex,
        BlockToken: base64(`${manner.tokenAge} ${BlockIndex}`),
      })),
      VolumeSize,
      BlockSize: 512 * 1024,
      ExpiryTime: Date.now() / 1000 + 3600,
      ...(empty > 0 || rest.length > most ? { NextToken: base64(next) } : {}),
    });
  };
  const server = http.createServer(async (request, response) => {
    try {
      const url = new URL(request.url ?? '/', motoUrl);
      const headers = { authorization: request.headers.authorization ?? '' };
      if (url.pathname.endsWith('/blocks')) {
        response.setHeader('content-type', 'application/json');
        response.end(await list(url, headers));
        return;
      }
      const index = url.pathname.split('/').at(-1);
      if (url.searchParams.get('blockToken') !== base64(`${manner.tokenAge} ${index}`)) {
        response.writeHead(400, { 'x-amzn-errortype': 'ValidationException' });
        response.end(JSON.stringify({ Message: 'token expired', Reason: 'INVALID_BLOCK_TOKEN' }));
        return;
      }
      const answer = await fetch(new URL(url.pathname, motoUrl), { headers });
      const given = ['x-amz-checksum', 'x-amz-checksum-algorithm', 'x-amz-data-length', 'content-length'];
      response.writeHead(
        answer.status,
        Object.fromEntries(given.map((n) => [n, answer.headers.get(n) ?? ''])),
      );
      response.end(Buffer.from(await answer.arrayBuffer()));
    } catch (error) {
      response.destroy(error as Error);
    }
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as net.AddressInfo).port}`,
    async stop() {
      const closed = new Promise((resolve) => server.close(resolve));
      server.closeAllConnections();
      await closed;
    },
  };
}
