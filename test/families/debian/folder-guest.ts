/** GuestFiles over a folder, for tests without an appliance. Links are not followed out of the folder. */
import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import type { FileKind, GuestFiles, WriteOptions } from '../../../core/guest.ts';

/** A guest that is a folder. */
export class FolderGuest implements GuestFiles {
  readonly root: string;
  constructor(root: string) {
    this.root = root;
  }
  at(guestPath: string): string {
    return path.join(this.root, path.normalize(`/${guestPath}`));
  }
  async kind(guestPath: string): Promise<FileKind> {
    const stat = await fs.lstat(this.at(guestPath)).catch(() => undefined);
    if (stat === undefined) return 'missing';
    return stat.isFile() ? 'file' : stat.isDirectory() ? 'dir' : stat.isSymbolicLink() ? 'symlink' : 'other';
  }
  async read(guestPath: string): Promise<Buffer | undefined> {
    return fs.readFile(this.at(guestPath)).catch(() => undefined);
  }
  async readText(guestPath: string): Promise<string | undefined> {
    return (await this.read(guestPath))?.toString('utf8');
  }
  async list(guestPath: string): Promise<string[]> {
    return (await fs.readdir(this.at(guestPath)).catch(() => [])).sort();
  }
  async glob(pattern: string): Promise<string[]> {
    const out: string[] = [];
    for await (const found of fs.glob(pattern.replace(/^\//, ''), { cwd: this.root })) out.push(`/${found}`);
    return out.sort();
  }
  readLink(guestPath: string): Promise<string> {
    return fs.readlink(this.at(guestPath));
  }
  async mode(guestPath: string): Promise<number> {
    return (await fs.lstat(this.at(guestPath))).mode & 0o7777;
  }
  async write(guestPath: string, content: string | Uint8Array, options: WriteOptions = {}): Promise<void> {
    await fs.mkdir(path.dirname(this.at(guestPath)), { recursive: true });
    await fs.writeFile(this.at(guestPath), content);
    if (options.mode !== undefined) await fs.chmod(this.at(guestPath), options.mode);
  }
  async mkdir(guestPath: string, mode = 0o755): Promise<void> {
    await fs.mkdir(this.at(guestPath), { recursive: true, mode });
  }
  symlink(target: string, guestPath: string): Promise<void> {
    return fs.symlink(target, this.at(guestPath));
  }
  rename(from: string, to: string): Promise<void> {
    return fs.rename(this.at(from), this.at(to));
  }
  remove(guestPath: string): Promise<void> {
    return fs.rm(this.at(guestPath), { recursive: true, force: true });
  }
}
