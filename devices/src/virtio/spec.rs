//! Numbers of the virtio 1.2 specification.

/// PCI vendor of virtio devices (§4.1.2).
pub const PCI_VENDOR: u16 = 0x1af4;
/// PCI device ID of virtio device 0 (§4.1.2.1).
pub const PCI_DEVICE_BASE: u16 = 0x1040;
/// PCI revision of a device without the legacy interface: at least 1 (§4.1.2.1).
pub const PCI_REVISION: u8 = 1;
/// PCI subsystem ID. At least 0x40 without the legacy interface (§4.1.2.1); drivers for Windows are matched by this one.
pub const PCI_SUBSYSTEM: u16 = 0x1100;

/// Device ID of a block device (§5.2.1).
pub const DEVICE_BLOCK: u16 = 2;

/// Status: the guest saw the device (§2.1).
pub const STATUS_ACKNOWLEDGE: u8 = 1;
/// Status: the guest has a driver.
pub const STATUS_DRIVER: u8 = 2;
/// Status: the driver is ready.
pub const STATUS_DRIVER_OK: u8 = 4;
/// Status: features are agreed on.
pub const STATUS_FEATURES_OK: u8 = 8;
/// Status: the device cannot go on.
pub const STATUS_NEEDS_RESET: u8 = 0x40;
/// Status: the driver gave up.
pub const STATUS_FAILED: u8 = 0x80;

/// Feature: indirect descriptors (§6).
pub const F_INDIRECT_DESC: u64 = 1 << 28;
/// Feature: used_event and avail_event.
pub const F_EVENT_IDX: u64 = 1 << 29;
/// Feature: virtio 1.0 or later.
pub const F_VERSION_1: u64 = 1 << 32;

/// Available ring's flag: the driver wants no interrupts (§2.7.6).
pub const AVAIL_F_NO_INTERRUPT: u16 = 1;

/// Capability's cfg_type: common configuration (§4.1.4).
pub const PCI_CAP_COMMON: u8 = 1;
/// Capability's cfg_type: notifications.
pub const PCI_CAP_NOTIFY: u8 = 2;
/// Capability's cfg_type: ISR status.
pub const PCI_CAP_ISR: u8 = 3;
/// Capability's cfg_type: device configuration.
pub const PCI_CAP_DEVICE: u8 = 4;
/// Capability's cfg_type: access through PCI config space.
pub const PCI_CAP_PCI: u8 = 5;

/// ISR: a queue's buffers were used (§4.1.4.5).
pub const ISR_QUEUE: u8 = 1;
/// ISR: the device's config changed.
pub const ISR_CONFIG: u8 = 2;
/// No MSI-X vector (§4.1.5.1.2).
pub const NO_VECTOR: u16 = 0xffff;

/// Block feature: the segments of a request are limited by `seg_max` (§5.2.3).
pub const BLK_F_SEG_MAX: u64 = 1 << 2;
/// Block feature: read-only.
pub const BLK_F_RO: u64 = 1 << 5;
/// Block feature: `blk_size` is valid.
pub const BLK_F_BLK_SIZE: u64 = 1 << 6;
/// Block feature: flush requests.
pub const BLK_F_FLUSH: u64 = 1 << 9;
/// Block feature: `topology` is valid.
pub const BLK_F_TOPOLOGY: u64 = 1 << 10;
/// Block feature: discard requests.
pub const BLK_F_DISCARD: u64 = 1 << 13;
/// Block feature: write-zeroes requests.
pub const BLK_F_WRITE_ZEROES: u64 = 1 << 14;

/// Block request: read (§5.2.6).
pub const BLK_T_IN: u32 = 0;
/// Block request: write.
pub const BLK_T_OUT: u32 = 1;
/// Block request: flush.
pub const BLK_T_FLUSH: u32 = 4;
/// Block request: the serial.
pub const BLK_T_GET_ID: u32 = 8;
/// Block request: discard.
pub const BLK_T_DISCARD: u32 = 11;
/// Block request: write zeroes.
pub const BLK_T_WRITE_ZEROES: u32 = 13;

/// Block status: done.
pub const BLK_S_OK: u8 = 0;
/// Block status: failed.
pub const BLK_S_IOERR: u8 = 1;
/// Block status: not a request of this device.
pub const BLK_S_UNSUPP: u8 = 2;

/// Bytes of a sector, whatever `blk_size` says.
pub const SECTOR: u64 = 512;
/// Bytes of a disk's serial.
pub const BLK_ID_BYTES: usize = 20;
