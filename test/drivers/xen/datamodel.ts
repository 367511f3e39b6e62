/**
 * Signatures of the XAPI methods the product calls, without the session that is first in all but one: transcribed from
 * the published datamodel, xapi-project/xen-api `doc/data/xenapi.json` (commit e2ee48d6883e, 21 Aug 2026). Required fields of
 * constructors are those its descriptions mark with `*`.
 */

/** Methods by name: types of the arguments. */
export const METHODS: Readonly<Record<string, readonly string[]>> = {
  'session.login_with_password': ['string', 'string', 'string', 'string'],
  'session.logout': [],
  'task.create': ['string', 'string'],
  'task.get_record': ['task ref'],
  'task.cancel': ['task ref'],
  'task.destroy': ['task ref'],
  'SR.get_by_uuid': ['string'],
  'SR.get_by_name_label': ['string'],
  'SR.get_record': ['SR ref'],
  'network.get_by_uuid': ['string'],
  'network.get_by_name_label': ['string'],
  'VDI.create': ['VDI record'],
  'VDI.destroy': ['VDI ref'],
  'VDI.get_record': ['VDI ref'],
  'VDI.get_by_name_label': ['string'],
  'VDI.set_name_label': ['VDI ref', 'string'],
  'VM.get_by_uuid': ['string'],
  'VM.get_by_name_label': ['string'],
  'VM.get_record': ['VM ref'],
  'VM.clone': ['VM ref', 'string'],
  'VM.destroy': ['VM ref'],
  'VM.set_other_config': ['VM ref', 'map'],
  'VM.set_name_label': ['VM ref', 'string'],
  'VM.set_name_description': ['VM ref', 'string'],
  'VM.set_is_a_template': ['VM ref', 'bool'],
  'VM.set_domain_type': ['VM ref', 'enum hvm pv pv_in_pvh pvh unspecified'],
  'VM.set_HVM_boot_policy': ['VM ref', 'string'],
  'VM.set_HVM_boot_params': ['VM ref', 'map'],
  'VM.set_memory_limits': ['VM ref', 'int', 'int', 'int', 'int'],
  'VM.set_VCPUs_max': ['VM ref', 'int'],
  'VM.set_VCPUs_at_startup': ['VM ref', 'int'],
  'VBD.create': ['VBD record'],
  'VBD.get_record': ['VBD ref'],
  'VIF.create': ['VIF record'],
};

const QOS = { qos_algorithm_type: 'string', qos_algorithm_params: 'map', other_config: 'map' };

/** Fields a constructor must be given. */
export const REQUIRED: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  VDI: {
    SR: 'SR ref',
    virtual_size: 'int',
    type: 'enum system user ephemeral suspend crashdump ha_statefile metadata redo_log rrd pvs_cache cbt_metadata',
    sharable: 'bool',
    read_only: 'bool',
    other_config: 'map',
  },
  VBD: {
    VM: 'VM ref',
    VDI: 'VDI ref',
    userdevice: 'string',
    bootable: 'bool',
    mode: 'enum RO RW',
    type: 'enum CD Disk Floppy',
    empty: 'bool',
    ...QOS,
  },
  VIF: { device: 'string', network: 'network ref', VM: 'VM ref', MAC: 'string', MTU: 'int', ...QOS },
};

/** Fields a constructor may be given besides. */
export const OPTIONAL: Readonly<Record<string, readonly string[]>> = {
  VDI: ['name_label', 'name_description', 'xenstore_data', 'sm_config', 'tags'],
  VBD: ['device', 'unpluggable', 'currently_attached'],
  VIF: ['currently_attached', 'locking_mode', 'ipv4_allowed', 'ipv6_allowed'],
};
