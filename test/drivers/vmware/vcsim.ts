/** govmomi's vCenter simulator behind TLS with a CA of its own, and small OVAs of ours for it. */
import { execFileSync, spawn } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { createWriteStream, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { createInterface } from 'node:readline';
import { pipeline } from 'node:stream/promises';
import { pack } from 'tar-stream';
import { MIB } from '../../../core/sizes.ts';
import type { Artifact } from '../../../core/types.ts';

/** A running simulator. */
export interface Vcsim {
  url: string;
  dir: string;
  caFile: string;
  username: string;
  password: string;
  stop(): void;
}

/** Makes certificates and starts it on a free port. */
export async function startVcsim(program: string): Promise<Vcsim> {
  const dir = mkdtempSync(path.join(os.tmpdir(), 'port-image-vcsim-'));
  const at = (name: string) => path.join(dir, name);
  const openssl = (...args: string[]) => execFileSync('openssl', args, { stdio: 'pipe' });
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'];
  openssl('req', '-x509', ...key, '-subj', '/CN=vcsim CA', '-keyout', at('ca.key'), '-out', at('ca.pem'));
  openssl('req', ...key, '-subj', '/CN=vcsim', '-keyout', at('key.pem'), '-out', at('csr.pem'));
  writeFileSync(at('names'), 'subjectAltName=IP:127.0.0.1\n');
  openssl(
    ...['x509', '-req', '-in', at('csr.pem'), '-CA', at('ca.pem'), '-CAkey', at('ca.key')],
    ...['-CAcreateserial', '-days', '2', '-extfile', at('names'), '-out', at('cert.pem')],
  );
  const username = 'importer';
  const password = `p w:/@%${randomBytes(6).toString('hex')}`;
  const child = spawn(
    program,
    ['-l', '127.0.0.1:0', '-tlscert', at('cert.pem'), '-tlskey', at('key.pem')].concat([
      ...['-username', username, '-password', password],
    ]),
    { stdio: ['ignore', 'pipe', 'ignore'] },
  );
  const url = await new Promise<string>((resolve, reject) => {
    child.once('error', reject).once('exit', () => reject(new Error('vcsim ended')));
    createInterface({ input: child.stdout }).on('line', (line) => {
      const [, port] = /@127\.0\.0\.1:(\d+)\/sdk/.exec(line) ?? [];
      if (port !== undefined) resolve(`https://127.0.0.1:${port}`);
    });
  });
  return {
    url,
    dir,
    caFile: at('ca.pem'),
    username,
    password,
    stop() {
      child.kill('SIGTERM');
      rmSync(dir, { recursive: true, force: true });
    },
  };
}

const RASD = 'http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData';

/** A descriptor with the devices the product's OVAs have; `fields` replaces sub types. */
export function descriptor(
  virtualBytes: number,
  fields: { scsi?: string; nic?: string; diskBytes?: number } = {},
): string {
  const { scsi = 'VirtualSCSI', nic = 'VmxNet3', diskBytes = 0 } = fields;
  const item = (id: number, type: number, more: string) =>
    `<Item><rasd:ElementName>e${id}</rasd:ElementName><rasd:InstanceID>${id}</rasd:InstanceID>` +
    `<rasd:ResourceType>${type}</rasd:ResourceType>${more}</Item>`;
  return `<?xml version="1.0" encoding="UTF-8"?>
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1" xmlns:rasd="${RASD}" xmlns:vmw="http://www.vmware.com/schema/ovf" xmlns:vssd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_VirtualSystemSettingData">
<References><File ovf:href="shop-disk1.vmdk" ovf:id="file1" ovf:size="${diskBytes}"/></References>
<DiskSection><Info>disks</Info><Disk ovf:capacity="${virtualBytes}" ovf:capacityAllocationUnits="byte" ovf:diskId="disk1" ovf:fileRef="file1"/></DiskSection>
<NetworkSection><Info>networks</Info><Network ovf:name="VM Network"><Description>net</Description></Network></NetworkSection>
<VirtualSystem ovf:id="shop"><Info>vm</Info><Name>shop</Name>
<OperatingSystemSection ovf:id="96" vmw:osType="debian12_64Guest"><Info>os</Info></OperatingSystemSection>
<VirtualHardwareSection><Info>hw</Info>
<System><vssd:ElementName>hw</vssd:ElementName><vssd:InstanceID>0</vssd:InstanceID><vssd:VirtualSystemType>vmx-14</vssd:VirtualSystemType></System>
${item(1, 3, '<rasd:VirtualQuantity>2</rasd:VirtualQuantity>')}
${item(2, 4, '<rasd:AllocationUnits>byte * 2^20</rasd:AllocationUnits><rasd:VirtualQuantity>2048</rasd:VirtualQuantity>')}
${item(3, 6, `<rasd:Address>0</rasd:Address><rasd:ResourceSubType>${scsi}</rasd:ResourceSubType>`)}
${item(4, 17, '<rasd:AddressOnParent>0</rasd:AddressOnParent><rasd:HostResource>ovf:/disk/disk1</rasd:HostResource><rasd:Parent>3</rasd:Parent>')}
${item(5, 10, `<rasd:Connection>VM Network</rasd:Connection><rasd:ResourceSubType>${nic}</rasd:ResourceSubType>`)}
</VirtualHardwareSection></VirtualSystem></Envelope>
`;
}

/** Writes an OVA with a disk file of random bytes: the simulator does not look inside. */
export async function writeOva(
  dir: string,
  options: {
    diskBytes?: number;
    virtualBytes?: number;
    scsi?: string;
    nic?: string;
    name?: string;
    manifest?: (text: string) => string;
  } = {},
): Promise<Artifact> {
  const { diskBytes = MIB, virtualBytes = 64 * MIB, manifest = (text: string) => text } = options;
  const disk = randomBytes(diskBytes);
  const ovf = Buffer.from(descriptor(virtualBytes, { ...options, diskBytes }));
  const sum = (data: Buffer) => createHash('sha256').update(data).digest('hex');
  const mf = manifest(`SHA256(shop.ovf)= ${sum(ovf)}\nSHA256(shop-disk1.vmdk)= ${sum(disk)}\n`);
  const tar = pack();
  tar.entry({ name: 'shop.ovf' }, ovf);
  tar.entry({ name: 'shop.mf' }, Buffer.from(mf));
  tar.entry({ name: 'shop-disk1.vmdk' }, disk);
  tar.finalize();
  const file = path.join(dir, options.name ?? 'shop.ova');
  await pipeline(tar, createWriteStream(file, { mode: 0o600 }));
  const bytes = readFileSync(file);
  return {
    platform: 'vmware',
    path: file,
    format: 'vmdk',
    bytes: bytes.length,
    virtualBytes,
    sha256: sum(bytes),
  };
}
