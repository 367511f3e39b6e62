/** The virtual hardware section of an OVF: CIM items, told apart by their ResourceType numbers (CIM_ResourceAllocationSettingData). */
import { type Bus, macOf, type PackedMachine, wholeNumber } from './machine.ts';
import { unitBytes } from './ovf-units.ts';
import type { XmlElement } from './xml.ts';

/** Where a disk was attached. */
export interface OvfPlace {
  bus: Bus;
  /** Number of the controller among those of its bus. */
  controller: number;
  /** Address on the controller. */
  unit: number;
  /** Position among all controllers of the machine, as listed; disks on earlier ones come first. */
  order: number;
}

const TYPE = {
  cpu: '3',
  memory: '4',
  ide: '5',
  scsi: '6',
  nic: '10',
  disk: '17',
  otherStorage: '20',
} as const;

interface Controller {
  bus: Bus;
  number: number;
  order: number;
  model: string | undefined;
}

function busOf(type: string | undefined, model: string): Bus | undefined {
  if (type === TYPE.ide) return 'ide';
  if (type === TYPE.scsi) return /virtio/i.test(model) ? 'virtio' : 'scsi';
  if (type !== TYPE.otherStorage) return undefined;
  if (/nvme/i.test(model)) return 'nvme';
  if (/virtio/i.test(model)) return 'virtio';
  return /sata|ahci/i.test(model) ? 'sata' : 'unknown';
}

/** Items of the machine as deployed by default: ranges and other configurations left out. */
function itemsOf(envelope: XmlElement, system: XmlElement): XmlElement[] {
  const choices = envelope.first('DeploymentOptionSection')?.all('Configuration') ?? [];
  const chosen = (choices.find((c) => c.attribute('default') === 'true') ?? choices[0])?.attribute('id');
  const hardware =
    system.first('VirtualHardwareSection') ??
    system.all('Section').find((s) => s.first('Item') !== undefined);
  return ['Item', 'StorageItem', 'EthernetPortItem']
    .flatMap((name) => hardware?.all(name) ?? [])
    .filter((item) => {
      const configuration = item.attribute('configuration');
      const applies = configuration === undefined || configuration.split(/\s+/).includes(chosen ?? '');
      return applies && (item.attribute('bound') ?? '') === '';
    });
}

function firmwareOf(system: XmlElement): 'bios' | 'uefi' {
  const hardware = system.first('VirtualHardwareSection');
  const vmware = hardware
    ?.all('Config')
    .find((c) => c.attribute('key') === 'firmware')
    ?.attribute('value');
  const virtualBox = system.first('Machine')?.first('Hardware')?.first('Firmware')?.attribute('type');
  return /efi/i.test(vmware ?? '') || /efi/i.test(virtualBox ?? '') ? 'uefi' : 'bios';
}

/** The machine, and the places of its disks by disk or file id. */
export function hardwareOf(
  envelope: XmlElement,
  system: XmlElement,
): { machine: PackedMachine; places: Map<string, OvfPlace> } {
  const items = itemsOf(envelope, system);
  const controllers = new Map<string, Controller>();
  for (const item of items) {
    const model = item.text('ResourceSubType');
    const bus = busOf(item.text('ResourceType'), `${model ?? ''} ${item.text('Description') ?? ''}`);
    if (bus === undefined) continue;
    const number = [...controllers.values()].filter((c) => c.bus === bus).length;
    controllers.set(item.text('InstanceID') ?? '', { bus, number, order: controllers.size, model });
  }
  const places = new Map<string, OvfPlace>();
  for (const item of items) {
    if (item.text('ResourceType') !== TYPE.disk) continue;
    const [, id] = /^(?:ovf:)?\/?(?:disk|file)\/(.+)$/s.exec(item.text('HostResource') ?? '') ?? [];
    if (id === undefined) continue;
    const controller = controllers.get(item.text('Parent') ?? '');
    const unit = Number(item.text('AddressOnParent') ?? 0);
    places.set(id, {
      bus: controller?.bus ?? 'unknown',
      controller: controller?.number ?? 0,
      unit: Number.isInteger(unit) && unit >= 0 && unit < 1024 ? unit : 0,
      order: controller?.order ?? controllers.size,
    });
  }
  const value = (type: string) => items.find((item) => item.text('ResourceType') === type);
  const memory = value(TYPE.memory);
  const memoryBytes =
    (wholeNumber(memory?.text('VirtualQuantity')) ?? Number.NaN) *
    (unitBytes(memory?.text('AllocationUnits') ?? 'MegaBytes') ?? Number.NaN);
  const os =
    system.first('OperatingSystemSection') ??
    system.all('Section').find((s) => s.first('Description') !== undefined);
  return {
    places,
    machine: {
      name: system.text('Name') ?? system.attribute('id'),
      firmware: firmwareOf(system),
      guestOsId: os?.attribute('osType') ?? os?.text('OSType') ?? os?.text('Description'),
      cpus: wholeNumber(value(TYPE.cpu)?.text('VirtualQuantity')),
      memoryBytes: Number.isSafeInteger(memoryBytes) ? memoryBytes : undefined,
      nics: items
        .filter((item) => item.text('ResourceType') === TYPE.nic)
        .map((item) => ({
          mac: macOf(item.text('Address')),
          model: item.text('ResourceSubType'),
          network: item.text('Connection'),
        })),
      controllers: [...controllers.values()].map(({ bus, number, model }) => ({ bus, number, model })),
    },
  };
}
