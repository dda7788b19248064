//! What lies where in BAR 0, and the config space that says so.

use super::Placement;
use crate::pci::spec::{CAP_MSIX, CAP_VENDOR, HEADER_MULTIFUNCTION};
use crate::pci::{Bar, BarKind, ConfigSpace, Identity};
use crate::virtio::VirtioDevice;
use crate::virtio::spec;

/// Each structure has a page of its own.
const PAGE: u32 = 0x1000;
const COMMON: u32 = 0;
const ISR: u32 = PAGE;
const DEVICE: u32 = 2 * PAGE;
const NOTIFY: u32 = 3 * PAGE;
const MSIX_TABLE: u32 = 4 * PAGE;
const MSIX_PENDING: u32 = 5 * PAGE;
const BAR_SIZE: u64 = 8 * PAGE as u64;

/// Bytes of the common configuration up to `queue_device` (virtio 1.2 §4.1.4.3); what follows needs features not offered.
pub(super) const COMMON_SIZE: u32 = 0x38;
/// Bytes between the notification addresses of two queues.
pub(super) const NOTIFY_MULTIPLIER: u32 = 4;

/// Offset of message control within the MSI-X capability (PCIe 6.0 §7.7.2.2).
const MSIX_CONTROL: u16 = 2;
/// Message control: bits the guest writes, enable and function mask.
const MSIX_CONTROL_WRITABLE: u16 = 0xc000;

/// A structure in the BAR.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// Common configuration.
    Common,
    /// ISR status.
    Isr,
    /// The device's configuration.
    Device,
    /// Notifications.
    Notify,
    /// MSI-X table.
    MsixTable,
    /// MSI-X pending bits.
    MsixPending,
}

/// Where the capabilities ended up.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    /// The capability for access through config space.
    window: u16,
    /// The MSI-X capability.
    msix: u16,
}

impl Layout {
    /// The config space of a function for `device`, sealed.
    pub(super) fn build(device: &dyn VirtioDevice, placement: &Placement) -> (Self, ConfigSpace) {
        let queues = device.queue_sizes().len() as u32;
        let mut config = ConfigSpace::new(&Identity {
            vendor: spec::PCI_VENDOR,
            device: spec::PCI_DEVICE_BASE.wrapping_add(device.device_type()),
            class: device.pci_class(),
            revision: spec::PCI_REVISION,
            subsystem_vendor: spec::PCI_VENDOR,
            subsystem: spec::PCI_SUBSYSTEM,
            header_type: if placement.multifunction {
                HEADER_MULTIFUNCTION
            } else {
                0
            },
            interrupt_pin: placement.pin,
        });
        // Not prefetchable, as reading ISR clears it; 32-bit, as nothing else fits a bridge's window for that kind.
        let bar = Bar {
            kind: BarKind::Memory32 { prefetch: false },
            size: BAR_SIZE,
        };
        config.set_bar(0, bar);
        let msix = config.add_capability(CAP_MSIX, &msix(queues), &MSIX_CONTROL_WRITABLE.to_le_bytes());
        for (kind, offset, len) in [
            (spec::PCI_CAP_COMMON, COMMON, COMMON_SIZE),
            (spec::PCI_CAP_ISR, ISR, 4),
            (spec::PCI_CAP_DEVICE, DEVICE, device.config_size()),
        ] {
            config.add_capability(CAP_VENDOR, &structure(kind, 16, offset, len), &[]);
        }
        let mut notify = structure(spec::PCI_CAP_NOTIFY, 20, NOTIFY, NOTIFY_MULTIPLIER * queues).to_vec();
        notify.extend_from_slice(&NOTIFY_MULTIPLIER.to_le_bytes());
        config.add_capability(CAP_VENDOR, &notify, &[]);

        let mut window = structure(spec::PCI_CAP_PCI, 20, 0, 0).to_vec();
        window.extend_from_slice(&[0; 4]);
        // The guest writes `bar`, `offset`, `length` and `pci_cfg_data` (virtio 1.2 §4.1.4.9).
        let writable = [
            0, 0, 0xff, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
        ];
        let window = config.add_capability(CAP_VENDOR, &window, &writable);
        config.seal();
        (Self { window, msix }, config)
    }

    /// The structure at `offset` of the BAR, and the offset within it.
    pub(super) fn part(&self, offset: u64) -> Option<(Part, u64)> {
        let page = u32::try_from(offset / u64::from(PAGE)).ok()?.checked_mul(PAGE)?;
        let part = match page {
            COMMON => Part::Common,
            ISR => Part::Isr,
            DEVICE => Part::Device,
            NOTIFY => Part::Notify,
            MSIX_TABLE => Part::MsixTable,
            MSIX_PENDING => Part::MsixPending,
            _ => return None,
        };
        Some((part, offset % u64::from(PAGE)))
    }

    /// Offset in the BAR of the address that notifies `queue`.
    pub(super) fn notify_offset(queue: usize) -> u64 {
        u64::from(NOTIFY) + queue as u64 * u64::from(NOTIFY_MULTIPLIER)
    }

    /// The BAR offset and length that an access to `register` stands for, if it is `pci_cfg_data` and set to something sensible.
    pub(super) fn window(&self, config: &ConfigSpace, register: u16) -> Option<(u64, usize)> {
        if register != self.window + 16 {
            return None;
        }
        let bar = config.get_u8(self.window + 4);
        let offset = u64::from(config.read(self.window + 8));
        let len = config.read(self.window + 12);
        let sensible = bar == 0 && matches!(len, 1 | 2 | 4) && offset % u64::from(len) == 0;
        (sensible && offset < BAR_SIZE).then_some((offset, len as usize))
    }

    /// MSI-X message control as it is after a write to `register`, if that is where it lies.
    pub(super) fn msix_control(&self, config: &ConfigSpace, register: u16) -> Option<u16> {
        (register == self.msix).then(|| config.get_u16(self.msix + MSIX_CONTROL))
    }
}

/// The body of an MSI-X capability for `queues` vectors and one for config changes.
fn msix(queues: u32) -> [u8; 10] {
    let mut body = [0; 10];
    // The table's size is encoded minus one, and the tables lie in BAR 0.
    let words = (queues as u16).to_le_bytes().into_iter();
    let bytes = words.chain(MSIX_TABLE.to_le_bytes()).chain(MSIX_PENDING.to_le_bytes());
    for (target, byte) in body.iter_mut().zip(bytes) {
        *target = byte;
    }
    body
}

/// The body of a `virtio_pci_cap` for a structure in BAR 0 (virtio 1.2 §4.1.4).
fn structure(kind: u8, cap_len: u8, offset: u32, len: u32) -> [u8; 14] {
    let mut body = [0; 14];
    let head = [cap_len, kind, 0, 0, 0, 0].into_iter();
    let bytes = head.chain(offset.to_le_bytes()).chain(len.to_le_bytes());
    for (target, byte) in body.iter_mut().zip(bytes) {
        *target = byte;
    }
    body
}
