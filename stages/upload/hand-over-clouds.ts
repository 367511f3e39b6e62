/** Commands that make an instance of an image file by hand, in clouds. Words in capitals are the operator's to fill in. */
import { shellWord } from '../../core/shell-word.ts';
import { type FurtherDisk, fileWord, type HandOverFile, type PlatformHandOver } from './hand-over-types.ts';

const json = (value: unknown): string => shellWord(JSON.stringify(value));

/** Names of Compute Engine: lower case, digits and hyphens, 63 characters (RFC 1035). */
function gceName(name: string): string {
  const plain = name.toLowerCase().replace(/[^a-z0-9-]/g, '-');
  return (/^[a-z]/.test(plain) ? plain : `image-${plain}`).slice(0, 63).replace(/-+$/, '');
}

const openstack: PlatformHandOver = {
  title: 'OpenStack',
  commands({ name, file, format, gib, firmware, hasData }) {
    const uefi =
      firmware === 'uefi' ? ' --property hw_firmware_type=uefi --property hw_machine_type=q35' : '';
    return [
      `openstack image create --disk-format ${format} --container-format bare --min-disk ${gib} \\`,
      `  --property hw_qemu_guest_agent=yes --property img_config_drive=mandatory${uefi} \\`,
      `  --file ${fileWord(file)} ${shellWord(name)}`,
      `openstack server create --image ${shellWord(name)} --flavor FLAVOR --network NETWORK --config-drive True ${shellWord(name)}`,
      ...(hasData
        ? [
            '# The provision document reaches the instance as port_image in vendor_data2.json: name a dynamic vendor data',
            '# target port_image in nova.conf ([api] vendordata_providers, vendordata_dynamic_targets) that answers with it.',
          ]
        : []),
    ];
  },
  further(machine: string, { artifact, file, name, gib, registered, place }: FurtherDisk) {
    const cloud = place === undefined ? '' : ` --os-cloud ${shellWord(place)}`;
    const volume = shellWord(name);
    return [
      ...(registered === undefined
        ? [
            `openstack${cloud} image create --disk-format ${artifact.format} --container-format bare --min-disk ${gib} --file ${fileWord(file)} ${volume}`,
          ]
        : []),
      `openstack${cloud} volume create --image ${registered?.id ?? volume} --size ${gib} ${volume}`,
      `openstack${cloud} server add volume ${shellWord(machine)} ${volume}`,
    ];
  },
};

const aws: PlatformHandOver = {
  title: 'AWS',
  commands({ name, file, firmware, arch }) {
    const container = { Format: 'RAW', UserBucket: { S3Bucket: 'BUCKET', S3Key: file } };
    const device = [{ DeviceName: '/dev/xvda', Ebs: { SnapshotId: 'SNAPSHOT', VolumeType: 'gp3' } }];
    const mode = firmware === 'uefi' ? 'uefi' : 'legacy-bios';
    return [
      '# needs the role vmimport (docs.aws.amazon.com, VM Import/Export, "Required service role")',
      `aws s3 cp ${fileWord(file)} ${shellWord(`s3://BUCKET/${file}`)}`,
      `aws ec2 import-snapshot --disk-container ${json(container)}`,
      'aws ec2 describe-import-snapshot-tasks --import-task-ids TASK',
      `aws ec2 register-image --name ${shellWord(name)} --architecture ${arch === 'aarch64' ? 'arm64' : 'x86_64'} --virtualization-type hvm \\`,
      `  --boot-mode ${mode} --ena-support --imds-support v2.0 --root-device-name /dev/xvda \\`,
      `  --block-device-mappings ${json(device)}`,
    ];
  },
};

const azure: PlatformHandOver = {
  title: 'Azure',
  commands({ name, file, bytes, firmware, arch, hasData }) {
    const group = '--resource-group GROUP';
    const generation = `--hyper-v-generation ${firmware === 'uefi' ? 'V2' : 'V1'}`;
    const disk = `--name ${shellWord(name)}`;
    return [
      `az disk create ${group} ${disk} --os-type Linux ${generation}${arch === 'aarch64' ? ' --architecture Arm64' : ''} \\`,
      `  --upload-type Upload --upload-size-bytes ${bytes} --sku Standard_LRS`,
      `az disk grant-access ${group} ${disk} --access-level Write --duration-in-seconds 86400`,
      `azcopy copy ${fileWord(file)} 'URL_OF_GRANT_ACCESS' --blob-type PageBlob`,
      `az disk revoke-access ${group} ${disk}`,
      `az image create ${group} ${disk} --source ${shellWord(name)} --os-type Linux ${generation}`,
      `az vm create ${group} --name VM --image ${shellWord(name)}${hasData ? ' --custom-data user-data.yaml' : ''}`,
    ];
  },
};

const gcp: PlatformHandOver = {
  title: 'Google Cloud',
  commands({ name, file, firmware, arch, hasData }) {
    const image = gceName(name);
    const features = firmware === 'uefi' ? ' --guest-os-features=UEFI_COMPATIBLE' : '';
    return [
      `gcloud storage cp ${fileWord(file)} ${shellWord(`gs://BUCKET/${file}`)}`,
      `gcloud compute images create ${image} --source-uri=${shellWord(`gs://BUCKET/${file}`)} --architecture=${arch === 'aarch64' ? 'ARM64' : 'X86_64'}${features}`,
      `gcloud compute instances create ${image} --image=${image}${hasData ? ' --metadata-from-file=user-data=user-data.yaml' : ''}`,
    ];
  },
};

const oci: PlatformHandOver = {
  title: 'Oracle Cloud',
  commands({ name, file, firmware }) {
    return [
      `oci os object put --bucket-name BUCKET --file ${fileWord(file)} --name ${shellWord(file)}`,
      'oci compute image import from-object --compartment-id COMPARTMENT --namespace NAMESPACE --bucket-name BUCKET \\',
      `  --name ${shellWord(file)} --display-name ${shellWord(name)} --source-image-type QCOW2 --launch-mode PARAVIRTUALIZED`,
      ...(firmware === 'uefi'
        ? ['# then set Compute.Firmware to UEFI_64 in the capabilities of the image']
        : []),
    ];
  },
};

const alibaba: PlatformHandOver = {
  title: 'Alibaba Cloud',
  commands({ name, file, firmware, arch }: HandOverFile) {
    return [
      '# needs the role AliyunECSImageImportDefaultRole',
      `aliyun oss cp ${fileWord(file)} ${shellWord(`oss://BUCKET/${file}`)}`,
      `aliyun ecs ImportImage --RegionId REGION --ImageName ${shellWord(name)} --OSType linux --Platform 'Others Linux' \\`,
      `  --Architecture ${arch === 'aarch64' ? 'arm64' : 'x86_64'} --BootMode ${firmware === 'uefi' ? 'UEFI' : 'BIOS'} --DiskDeviceMapping.1.Format QCOW2 \\`,
      `  --DiskDeviceMapping.1.OSSBucket BUCKET --DiskDeviceMapping.1.OSSObject ${shellWord(file)}`,
    ];
  },
};

/** By name of the platform. */
export const CLOUD_HAND_OVERS: Readonly<Record<string, PlatformHandOver>> = {
  openstack,
  aws,
  azure,
  gcp,
  oci,
  alibaba,
};
