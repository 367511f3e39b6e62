/** moto as EC2 and EBS for uploads, and what it keeps of a snapshot. */

import { createHash } from 'node:crypto';
import * as http from 'node:http';
import type { AddressInfo } from 'node:net';
import { Ec2Gaps, type GateAnswer } from './ec2-gaps.ts';

/** A gate before moto that counts, checks and breaks requests. */
export interface Gate {
  url: string;
  /** Blocks put, by number, with how often. */
  puts: Map<number, number>;
  /** RegisterImage requests as they were sent. */
  registered: URLSearchParams[];
  /** Parents of snapshots, which moto forgets. */
  parents: Map<string, string>;
  /** Checksums that did not fit their block or their snapshot. */
  wrong: string[];
  /** Answers a request itself when it returns one. */
  fault: (request: {
    method: string;
    path: string;
    puts: number;
  }) => { status: number; type: string } | undefined;
  gaps: Ec2Gaps;
  close(): Promise<void>;
}

/** moto forgets what an image was registered with and shows a disk of its own; this shows what was asked for. */
function withRegistered(xml: string, registered: readonly URLSearchParams[]): string {
  const tag = (name: string, value: string) => `<${name}>${value}</${name}>`;
  return xml
    .split(/(?=<imageId>)/)
    .map((part) => {
      const name = /<name>([^<]*)<\/name>/.exec(part)?.[1];
      const asked = registered.findLast((r) => r.get('Name') === name);
      if (asked === undefined) return part;
      const disks: string[] = [];
      for (let n = 1; asked.has(`BlockDeviceMapping.${n}.DeviceName`); n++) {
        const of = (key: string) => asked.get(`BlockDeviceMapping.${n}.${key}`) ?? '';
        disks.push(
          tag(
            'item',
            tag('deviceName', of('DeviceName')) + tag('ebs', tag('snapshotId', of('Ebs.SnapshotId'))),
          ),
        );
      }
      return part.replace(
        /<blockDeviceMapping>[\s\S]*?<\/blockDeviceMapping>/,
        tag('blockDeviceMapping', disks.join('')),
      );
    })
    .join('');
}

/** EBS checks every block's checksum and the LINEAR one of the whole; moto does not, so the gate does. */
export async function startGate(moto: string): Promise<Gate> {
  const digests = new Map<string, Map<number, Buffer>>();
  let count = 0;
  const gate: Gate = {
    url: '',
    puts: new Map(),
    registered: [],
    parents: new Map(),
    wrong: [],
    fault: () => undefined,
    gaps: new Ec2Gaps(),
    close: async () => {},
  };
  const server = http.createServer(async (request, response) => {
    try {
      const pieces: Buffer[] = [];
      for await (const piece of request as AsyncIterable<Buffer>) pieces.push(piece);
      const body = Buffer.concat(pieces);
      const { pathname, search } = new URL(request.url ?? '/', moto);
      const [, , snapshot = '', word = '', block = ''] = pathname.split('/');
      const isPut = request.method === 'PUT' && word === 'blocks';
      if (isPut) count += 1;
      const fault = gate.fault({ method: request.method ?? '', path: pathname, puts: count });
      if (fault !== undefined) {
        response.writeHead(fault.status, {
          'x-amzn-errortype': fault.type,
          'content-type': 'application/json',
        });
        response.end(JSON.stringify({ Message: fault.type, __type: fault.type }));
        return;
      }
      if (isPut) {
        const index = Number(block);
        const digest = createHash('sha256').update(body).digest();
        if (digest.toString('base64') !== request.headers['x-amz-checksum'])
          gate.wrong.push(`block ${block}`);
        gate.puts.set(index, (gate.puts.get(index) ?? 0) + 1);
        const own = digests.get(snapshot) ?? new Map<number, Buffer>();
        digests.set(snapshot, own.set(index, digest));
      }
      if (request.method === 'POST' && pathname.startsWith('/snapshots/completion/')) {
        const own = digests.get(pathname.split('/').at(-1) ?? '') ?? new Map<number, Buffer>();
        const hash = createHash('sha256');
        for (const index of [...own.keys()].sort((a, b) => a - b)) hash.update(own.get(index) ?? '');
        const told = request.headers['x-amz-checksum'];
        if (
          hash.digest('base64') !== told ||
          Number(request.headers['x-amz-changedblockscount']) !== own.size
        )
          gate.wrong.push('completion');
      }
      const asked = new URLSearchParams(pathname === '/' ? body.toString() : '');
      if (asked.get('Action') === 'RegisterImage' && asked.get('DryRun') !== 'true')
        gate.registered.push(asked);
      const {
        host: _,
        connection: __,
        'content-length': ___,
        'transfer-encoding': ____,
        ...headers
      } = request.headers as Record<string, string>;
      const ask = (content: Buffer | string) =>
        fetch(new URL(pathname + search, moto), {
          method: request.method ?? 'GET',
          headers,
          ...(content.length === 0 ? {} : { body: content }),
        });
      const say = ({ status, headers: told, body: text }: GateAnswer) => {
        response.writeHead(status, told);
        response.end(text);
      };
      const refused = gate.gaps.before(asked);
      if (refused !== undefined) return say(refused);
      if (request.method === 'POST' && pathname === '/snapshots') {
        // moto tells blocks of 512 bytes.
        const begin = async () =>
          JSON.stringify({ ...JSON.parse(await (await ask(body)).text()), BlockSize: 524_288 });
        const started = await gate.gaps.start(body.toString(), begin);
        const { ParentSnapshotId } = JSON.parse(body.toString()) as { ParentSnapshotId?: string };
        const { SnapshotId } = JSON.parse(started.body) as { SnapshotId?: string };
        if (ParentSnapshotId !== undefined && SnapshotId !== undefined)
          gate.parents.set(SnapshotId, ParentSnapshotId);
        return say(started);
      }
      const answer = await ask(body);
      if (request.method === 'POST' && pathname.startsWith('/snapshots/completion/') && answer.ok)
        gate.gaps.completed(pathname.split('/').at(-1) ?? '');
      response.writeHead(
        answer.status,
        Object.fromEntries(
          [...answer.headers].filter(
            ([name]) => !/^(content-encoding|content-length|transfer-encoding|connection)$/.test(name),
          ),
        ),
      );
      const told = Buffer.from(await answer.arrayBuffer());
      if (!asked.has('Action')) {
        response.end(told);
        return;
      }
      const shown = await gate.gaps.after(asked, told.toString(), (further) => ask(further.toString()));
      response.end(asked.get('Action') === 'DescribeImages' ? withRegistered(shown, gate.registered) : shown);
    } catch (error) {
      response.destroy(error as Error);
    }
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  gate.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  gate.close = () =>
    new Promise((resolve) => {
      server.close(() => resolve());
      server.closeAllConnections();
    });
  return gate;
}
