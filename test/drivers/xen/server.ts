/**
 * A double of a XAPI host. It refuses every call that is not of the published datamodel, keeps objects as XAPI does, and
 * lets qemu-img read the images it is sent. No part of it ran on a Xen host: see docs/platforms/xen.md.
 */
import { execFileSync } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { createReadStream, createWriteStream, mkdtempSync, rmSync, statSync, truncateSync } from 'node:fs';
import * as http from 'node:http';
import * as https from 'node:https';
import * as os from 'node:os';
import * as path from 'node:path';
import { text } from 'node:stream/consumers';
import { pipeline } from 'node:stream/promises';
import { METHODS, OPTIONAL, REQUIRED } from './datamodel.ts';

type Record_ = Record<string, unknown>;

class Failure extends Error {
  readonly args: string[];
  constructor(code: string, ...args: string[]) {
    super(code);
    this.args = args;
  }
}

/** Faults a test asks for; each is told once. */
export interface Faults {
  /** The task of the next import fails with it after this many bytes. */
  failImport?: { code: string; args: string[]; afterBytes: number };
  /** The connection of the next import is cut after this many bytes, and its task stays pending. */
  cutImport?: number;
  /** A byte of the next imported disk is flipped. */
  damage?: boolean;
  /** The next transfer is redirected. */
  redirect?: string;
}

/** The double. */
export class XapiServer {
  readonly username = 'root';
  readonly password = `pw ${randomUUID()}`;
  readonly dir = mkdtempSync(path.join(os.tmpdir(), 'port-image-xapi-'));
  readonly objects = new Map<string, { type: string; record: Record_ }>();
  /** Every path that was asked for, with its query. */
  readonly paths: string[] = [];
  readonly methods: string[] = [];
  faults: Faults = {};
  readonly #sessions = new Set<string>();
  readonly #server: http.Server | https.Server;
  readonly #scheme: 'http' | 'https';

  /** Behind TLS where it is given a key and certificate, PEM. */
  constructor(tls?: { key: string; cert: string }) {
    const listener: http.RequestListener = (req, res) => {
      this.#handle(req, res).catch((error: unknown) => res.destroy(error as Error));
    };
    this.#scheme = tls === undefined ? 'http' : 'https';
    this.#server = tls === undefined ? http.createServer(listener) : https.createServer(tls, listener);
  }

  async start(): Promise<string> {
    this.add('SR', {
      name_label: 'Local storage',
      content_type: 'user',
      physical_size: 2 ** 40,
      physical_utilisation: 0,
    });
    this.add('SR', { name_label: 'tools', content_type: 'iso', physical_size: 1, physical_utilisation: 1 });
    this.add('network', { name_label: 'Pool-wide network' });
    this.add('VM', {
      name_label: 'Other install media',
      is_a_template: true,
      power_state: 'Halted',
      other_config: { default_template: 'true', 'install-methods': 'cdrom' },
      VBDs: [],
    });
    await new Promise<void>((resolve) => this.#server.listen(0, '127.0.0.1', resolve));
    const { port } = this.#server.address() as { port: number };
    return `${this.#scheme}://127.0.0.1:${port}`;
  }

  stop(): void {
    this.#server.closeAllConnections();
    this.#server.close();
    rmSync(this.dir, { recursive: true, force: true });
  }

  /** Sessions that were not closed. */
  get openSessions(): number {
    return this.#sessions.size;
  }

  add(type: string, record: Record_): string {
    const ref = `OpaqueRef:${randomUUID()}`;
    this.objects.set(ref, { type, record: { uuid: randomUUID(), ...record } });
    return ref;
  }

  /** Records of a class. */
  all(type: string): Record_[] {
    return [...this.objects.values()].flatMap((o) => (o.type === type ? [o.record] : []));
  }

  #get(type: string, ref: unknown): Record_ {
    const found = this.objects.get(String(ref));
    if (found?.type !== type) throw new Failure('HANDLE_INVALID', type, String(ref));
    return found.record;
  }

  #check(type: string, value: unknown, where: string): void {
    const bad = (): never => {
      throw new Failure('FIELD_TYPE_ERROR', where, JSON.stringify(value));
    };
    if (type === 'string' && typeof value !== 'string') bad();
    if (type === 'bool' && typeof value !== 'boolean') bad();
    if (type === 'int' && !Number.isSafeInteger(value)) bad();
    if (type.endsWith(' ref')) this.#get(type.slice(0, -4), value);
    if (type.startsWith('enum ') && !type.slice(5).split(' ').includes(String(value))) bad();
    if (type === 'map') {
      const texts = typeof value === 'object' && value !== null ? Object.values(value) : [0];
      if (!texts.every((v) => typeof v === 'string')) bad();
    }
    if (type.endsWith(' record')) this.#checkRecord(type.slice(0, -7), value as Record_);
  }

  #checkRecord(type: string, record: Record_): void {
    for (const [field, of] of Object.entries(REQUIRED[type] ?? {}))
      this.#check(of, record[field], `${type}.${field}`);
    const known = [...Object.keys(REQUIRED[type] ?? {}), ...(OPTIONAL[type] ?? [])];
    const odd = Object.keys(record).find((field) => !known.includes(field));
    if (odd !== undefined) throw new Failure('FIELD_TYPE_ERROR', `${type}.${odd}`);
  }

  async #handle(req: http.IncomingMessage, res: http.ServerResponse): Promise<void> {
    this.paths.push(req.url ?? '');
    const url = new URL(req.url ?? '', 'http://host');
    if (url.pathname === '/jsonrpc' && req.method === 'POST') {
      const { id, jsonrpc, method, params } = JSON.parse(await text(req));
      let answer: Record_;
      try {
        if (jsonrpc !== '2.0') throw new Failure('MESSAGE_METHOD_UNKNOWN', String(jsonrpc));
        answer = { result: this.#call(method, params) };
      } catch (error) {
        if (!(error instanceof Failure)) throw error;
        answer = { error: { code: 1, message: error.message, data: error.args } };
      }
      res.end(JSON.stringify({ jsonrpc: '2.0', id, ...answer }));
      return;
    }
    const session = /(?:^|; )session_id=([^;]+)/.exec(req.headers.cookie ?? '')?.[1];
    if (session === undefined || !this.#sessions.has(session)) {
      res.writeHead(401).end();
      return;
    }
    if (this.faults.redirect !== undefined) {
      const location = this.faults.redirect;
      delete this.faults.redirect;
      req.resume();
      res.writeHead(302, { location }).end();
      return;
    }
    if (url.pathname === '/import_raw_vdi' && req.method === 'PUT') return this.#import(url, req, res);
    if (url.pathname === '/export_raw_vdi' && req.method === 'GET') return this.#export(url, res);
    res.writeHead(404).end();
  }

  #call(method: string, params: unknown[]): unknown {
    this.methods.push(method);
    const types = METHODS[method];
    if (types === undefined) throw new Failure('MESSAGE_METHOD_UNKNOWN', method);
    if (method === 'session.login_with_password') {
      if (params[0] !== this.username || params[1] !== this.password) {
        throw new Failure('SESSION_AUTHENTICATION_FAILED', String(params[0]), 'Authentication failure');
      }
      const session = `OpaqueRef:${randomUUID()}`;
      this.#sessions.add(session);
      return session;
    }
    const [session, ...args] = params;
    if (!this.#sessions.has(String(session))) throw new Failure('SESSION_INVALID', String(session));
    if (args.length !== types.length) {
      throw new Failure(
        'MESSAGE_PARAMETER_COUNT_MISMATCH',
        method,
        String(types.length),
        String(args.length),
      );
    }
    types.forEach((type, i) => {
      this.#check(type, args[i], `${method} ${i}`);
    });
    if (method === 'session.logout') {
      this.#sessions.delete(String(session));
      return '';
    }
    return this.#do(method, args);
  }

  #do(method: string, args: unknown[]): unknown {
    const [type = '', message = ''] = method.split('.');
    const [first, second] = args;
    switch (message) {
      case 'get_record':
        return this.#get(type, first);
      case 'get_by_name_label':
        return [...this.objects].flatMap(([ref, o]) =>
          o.type === type && o.record.name_label === first ? [ref] : [],
        );
      case 'get_by_uuid': {
        const found = [...this.objects].find(([, o]) => o.type === type && o.record.uuid === first);
        if (found === undefined) throw new Failure('UUID_INVALID', type, String(first));
        return found[0];
      }
      case 'destroy':
        return this.#destroy(type, String(first));
      case 'cancel':
        this.#get(type, first).status = 'cancelled';
        return '';
      case 'clone': {
        const source = this.#get('VM', first);
        return this.add('VM', {
          ...structuredClone(source),
          uuid: randomUUID(),
          name_label: second,
          VBDs: [],
        });
      }
      case 'set_memory_limits':
        this.#get('VM', first).memory = args.slice(1);
        return '';
      case 'create':
        return this.#create(type, args);
      default:
        if (!message.startsWith('set_')) throw new Failure('MESSAGE_METHOD_UNKNOWN', method);
        this.#get(type, first)[message.slice(4)] = second;
        return '';
    }
  }

  #create(type: string, args: unknown[]): string {
    if (type === 'task') return this.add('task', { name_label: args[0], status: 'pending', error_info: [] });
    const record = args[0] as Record_;
    if (type === 'VDI') return this.add('VDI', { name_label: '', ...record, VBDs: [] });
    const ref = this.add(type, record);
    if (type === 'VBD') {
      for (const [of, field] of [
        ['VM', 'VM'],
        ['VDI', 'VDI'],
      ] as const) {
        (this.#get(of, record[field]).VBDs as string[]).push(ref);
      }
    }
    return ref;
  }

  #destroy(type: string, ref: string): string {
    const record = this.#get(type, ref);
    if (type === 'VM' && (record.other_config as Record_).default_template === 'true') {
      throw new Failure('VM_CANNOT_DELETE_DEFAULT_TEMPLATE', ref);
    }
    if (type === 'VDI' && (record.VBDs as string[]).length > 0)
      throw new Failure('VDI_IN_USE', ref, 'destroy');
    this.objects.delete(ref);
    if (type !== 'VM') return '';
    for (const [vbd, object] of [...this.objects]) {
      if (object.type !== 'VBD' || object.record.VM !== ref) continue;
      const vdi = this.objects.get(String(object.record.VDI))?.record;
      if (vdi !== undefined) vdi.VBDs = (vdi.VBDs as string[]).filter((v) => v !== vbd);
      this.objects.delete(vbd);
    }
    return '';
  }

  /** As import_raw_vdi.ml: no chunked encoding, 200 before the body is read, the task tells how it ended. */
  async #import(url: URL, req: http.IncomingMessage, res: http.ServerResponse): Promise<void> {
    const format = url.searchParams.get('format');
    const vdi = this.#get('VDI', url.searchParams.get('vdi'));
    const task = this.#get('task', url.searchParams.get('task_id'));
    const length = Number(req.headers['content-length'] ?? Number.NaN);
    if (req.headers['transfer-encoding'] !== undefined || !Number.isSafeInteger(length)) {
      task.status = 'failure';
      task.error_info = ['INTERNAL_ERROR', 'Cannot handle encoding'];
      res.writeHead(404).end();
      return;
    }
    res.writeHead(200, { connection: 'close' });
    res.flushHeaders();
    const { failImport, cutImport, damage } = this.faults;
    this.faults = {};
    const stopAt = failImport?.afterBytes ?? cutImport;
    const file = path.join(this.dir, randomUUID());
    let seen = 0;
    const counted = async function* () {
      for await (const chunk of req) {
        seen += chunk.length;
        yield chunk;
        if (stopAt !== undefined && seen >= stopAt) return;
      }
    };
    await pipeline(counted(), createWriteStream(file));
    if (cutImport !== undefined) {
      req.socket.destroy();
      return;
    }
    if (failImport !== undefined) {
      task.status = 'failure';
      task.error_info = [failImport.code, ...failImport.args];
      req.socket.destroy();
      return;
    }
    const raw = `${file}.raw`;
    const from = { vhd: 'vpc', raw: 'raw', qcow2: 'qcow2' }[format ?? ''];
    if (from === undefined || seen !== length) throw new Error('a bad import');
    execFileSync('qemu-img', ['convert', '-f', from, '-O', 'raw', file, raw]);
    // A VDI larger than the image reads as zeros behind it.
    if (statSync(raw).size > Number(vdi.virtual_size)) throw new Error('larger than the VDI');
    truncateSync(raw, Number(vdi.virtual_size));
    if (damage === true) {
      execFileSync('dd', [`of=${raw}`, 'bs=1', 'seek=4096', 'conv=notrunc', 'status=none'], { input: 'x' });
    }
    vdi.file = raw;
    task.status = 'success';
    res.end();
  }

  async #export(url: URL, res: http.ServerResponse): Promise<void> {
    const vdi = this.#get('VDI', url.searchParams.get('vdi'));
    if (url.searchParams.get('format') !== 'raw' || typeof vdi.file !== 'string')
      throw new Error('a bad export');
    res.writeHead(200, { connection: 'close' });
    await pipeline(createReadStream(vdi.file), res);
  }
}
