/** Commands that make a machine of an image file by hand, on hypervisors. Words in capitals are the operator's to fill in. */
import { powershellWord } from '../../core/powershell-word.ts';
import { shellWord } from '../../core/shell-word.ts';
import { printable } from '../../core/text.ts';
import { type FurtherDisk, fileWord, type HandOverFile, type PlatformHandOver } from './hand-over-types.ts';

const vmware: PlatformHandOver = {
  title: 'VMware vSphere',
  commands({ name, file, hasData }) {
    const machine = shellWord(name);
    return [
      `govc import.spec ${fileWord(file)} > import.json     # then name the network in it`,
      `govc import.ova -m -options import.json -name ${machine} ${fileWord(file)}`,
      `govc vm.markastemplate ${machine}`,
      `govc vm.clone -vm ${machine} -on=false NEW`,
      ...(hasData ? ['govc vm.change -vm NEW -f guestinfo.userdata=user-data.yaml'] : []),
      'govc vm.power -on NEW',
    ];
  },
};

const xen: PlatformHandOver = {
  title: 'XCP-ng, XenServer',
  commands({ name, file, virtualBytes, firmware }) {
    return [
      `xe vdi-create sr-uuid=SR type=user virtual-size=${virtualBytes} name-label=${shellWord(name)}     # prints VDI`,
      `xe vdi-import uuid=VDI format=vhd filename=${shellWord(file)}`,
      `xe vm-install template='Other install media' new-name-label=${shellWord(name)}     # prints VM`,
      `xe vm-param-set uuid=VM HVM-boot-policy='BIOS order' HVM-boot-params:order=c HVM-boot-params:firmware=${firmware}`,
      'xe vm-memory-limits-set uuid=VM static-min=2GiB dynamic-min=2GiB dynamic-max=2GiB static-max=2GiB',
      'xe vbd-create vm-uuid=VM vdi-uuid=VDI device=0 bootable=true type=Disk mode=RW',
      'xe vif-create vm-uuid=VM network-uuid=NETWORK device=0',
      'xe vm-start uuid=VM',
    ];
  },
};

const hyperv: PlatformHandOver = {
  title: 'Hyper-V',
  commands({ file, ...rest }) {
    return [
      `copy ${powershellWord(file)} and the script to the host, then in an elevated PowerShell:`,
      `& ${powershellWord(`.\\${scriptName({ ...rest, file })}`)} -Switch SWITCH`,
    ];
  },
  scripts: (file) => [{ name: scriptName(file), text: hypervScript(file) }],
};

function scriptName({ name }: HandOverFile): string {
  return `${name}-hyperv.ps1`;
}

/** A script for Windows PowerShell 5.1 and later. The byte order mark makes 5.1 read it as UTF-8. */
function hypervScript({ name, file, firmware }: HandOverFile): string {
  const lines = [
    `# Makes a Hyper-V machine of ${printable(file)}. The disk is copied: the file beside this script stays as it is.`,
    'param(',
    `    [string]$Name = ${powershellWord(name)},`,
    '    [Parameter(Mandatory)][string]$Switch,',
    '    [string]$Folder = (Get-VMHost).VirtualHardDiskPath,',
    '    [UInt64]$Memory = 2GB,',
    '    [int]$Processors = 2,',
    '    [string]$Seed,',
    '    [switch]$SecureBoot',
    ')',
    "$ErrorActionPreference = 'Stop'",
    `$source = Join-Path $PSScriptRoot ${powershellWord(file)}`,
    "$disk = Join-Path $Folder ($Name + '.vhdx')",
    'if (Test-Path -LiteralPath $disk) { throw "$disk exists already" }',
    'Copy-Item -LiteralPath $source -Destination $disk',
    `$vm = New-VM -Name $Name -Generation ${firmware === 'uefi' ? 2 : 1} -MemoryStartupBytes $Memory -VHDPath $disk -SwitchName $Switch`,
    'Set-VM -VM $vm -ProcessorCount $Processors -CheckpointType Standard -AutomaticCheckpointsEnabled $false',
    ...(firmware === 'uefi'
      ? [
          '# Linux is signed by the authority for third parties; a guest whose boot loader is not signed needs it off.',
          'if ($SecureBoot) {',
          '    Set-VMFirmware -VM $vm -EnableSecureBoot On -SecureBootTemplate MicrosoftUEFICertificateAuthority',
          '} else {',
          '    Set-VMFirmware -VM $vm -EnableSecureBoot Off',
          '}',
          'Set-VMFirmware -VM $vm -FirstBootDevice (Get-VMHardDiskDrive -VM $vm)',
        ]
      : ["if ($SecureBoot) { throw 'a machine of generation 1 has no Secure Boot' }"]),
    '# An ISO labelled cidata with meta-data and user-data (NoCloud).',
    'if ($Seed) { Add-VMDvdDrive -VM $vm -Path $Seed }',
    "Get-VMIntegrationService -VM $vm | Where-Object Name -eq 'Guest Service Interface' | Enable-VMIntegrationService",
    '$vm',
  ];
  return `\ufeff${lines.join('\r\n')}\r\n`;
}

const qemu: PlatformHandOver = {
  title: 'libvirt',
  commands({ file, firmware, hasData }) {
    const uefi = firmware === 'uefi' ? ' --boot uefi' : '';
    return [
      `virt-install --import --memory 2048 --vcpus 2 --osinfo detect=on,require=off${uefi} \\`,
      `  --disk ${diskWord(file)},bus=virtio --disk seed.iso,device=cdrom --network network=default,model=virtio`,
      `# seed.iso has the label cidata and the files meta-data (instance-id, local-hostname${hasData ? ', port_image' : ''}) and user-data.`,
    ];
  },
  further: (_machine, { file }: FurtherDisk) => [`libvirt: one more  --disk ${diskWord(file)},bus=virtio`],
};

/** virt-install splits at commas; a comma in a value is written twice (virt-install(1), "--disk"). */
function diskWord(file: string): string {
  return shellWord(file.replaceAll(',', ',,'));
}

/** By name of the platform. */
export const HYPERVISOR_HAND_OVERS: Readonly<Record<string, PlatformHandOver>> = {
  vmware,
  xen,
  hyperv,
  qemu,
};
