import { expect, test } from 'vitest';
import { readModulesDep } from '../../tools/modules-dep.ts';

test('names are folded, packed modules known, other lines left out', () => {
  const text = [
    'kernel/drivers/scsi/hv_storvsc.ko: kernel/drivers/hv/hv_vmbus.ko kernel/drivers/scsi/scsi_mod.ko',
    'kernel/drivers/net/xen-netfront.ko.xz:',
    'no module: at/all.txt',
    '',
    'garbage',
  ].join('\n');
  expect([...readModulesDep(text)]).toEqual([
    ['hv_storvsc', ['hv_vmbus', 'scsi_mod']],
    ['xen_netfront', []],
  ]);
});
