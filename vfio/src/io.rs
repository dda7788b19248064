//! What a VFIO device descriptor does for the rest of the crate, as a trait: the tests put a made-up device behind it.

use std::fmt;
use std::io;
use std::os::fd::RawFd;

use devices::HostMapping;
use vfio_bindings::bindings::vfio::{
    VFIO_IRQ_SET_ACTION_MASK, VFIO_IRQ_SET_ACTION_TRIGGER, VFIO_IRQ_SET_ACTION_UNMASK, VFIO_PCI_CONFIG_REGION_INDEX,
};
use vmm_sys_util::eventfd::EventFd;

use crate::host::Bdf;

/// The region that is config space.
pub(crate) const CONFIG_REGION: u32 = VFIO_PCI_CONFIG_REGION_INDEX;

/// Bytes of a region from an offset on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Area {
    /// Offset in the region.
    pub offset: u64,
    /// Bytes.
    pub size: u64,
}

/// What the kernel says about a region of a device: a BAR, the ROM, config space.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RegionInfo {
    /// Bytes; 0 for a region that does not exist.
    pub size: u64,
    /// Where the region begins in the device's file.
    pub offset: u64,
    /// Whether any of it can be mapped.
    pub mappable: bool,
    /// If present, only these parts can be mapped.
    pub sparse: Option<Vec<Area>>,
    /// Whether the pages of the MSI-X table can be mapped together with the rest (Linux 4.16 and later).
    pub msix_mappable: bool,
}

/// What the kernel says about an interrupt index of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct IrqInfo {
    /// Vectors; 0 where there is no such interrupt.
    pub count: u32,
    /// The number of vectors is fixed when the index is enabled.
    pub no_resize: bool,
}

/// What to do with vectors of an interrupt index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IrqAction {
    /// Signal these events; with a count of 0, disable the index.
    Trigger,
    /// Mask now, or whenever the event is signalled.
    Mask,
    /// Unmask now, or whenever the event is signalled.
    Unmask,
}

impl IrqAction {
    pub(crate) fn flag(self) -> u32 {
        match self {
            IrqAction::Trigger => VFIO_IRQ_SET_ACTION_TRIGGER,
            IrqAction::Mask => VFIO_IRQ_SET_ACTION_MASK,
            IrqAction::Unmask => VFIO_IRQ_SET_ACTION_UNMASK,
        }
    }
}

/// The vectors an [`IrqRequest`] is about.
#[derive(Debug, Clone, Copy)]
pub enum IrqData<'a> {
    /// So many, without events.
    Count(u32),
    /// One for each entry; `None` is a vector without an event.
    Events(&'a [Option<&'a EventFd>]),
}

/// One VFIO_DEVICE_SET_IRQS.
#[derive(Debug, Clone, Copy)]
pub struct IrqRequest<'a> {
    /// Interrupt index (`VFIO_PCI_INTX_IRQ_INDEX` and so on).
    pub index: u32,
    /// First vector.
    pub start: u32,
    /// What to do.
    pub action: IrqAction,
    /// The vectors.
    pub data: IrqData<'a>,
}

impl<'a> IrqRequest<'a> {
    /// Signals `events` from vector `start` on.
    pub fn trigger(index: u32, start: u32, events: &'a [Option<&'a EventFd>]) -> Self {
        Self {
            index,
            start,
            action: IrqAction::Trigger,
            data: IrqData::Events(events),
        }
    }

    /// Disables the index.
    pub fn disable(index: u32) -> Self {
        Self {
            index,
            start: 0,
            action: IrqAction::Trigger,
            data: IrqData::Count(0),
        }
    }
}

/// A function that a hot reset hits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dependent {
    /// Its IOMMU group.
    pub group: u32,
    /// Its address.
    pub function: Bdf,
}

/// A VFIO device descriptor.
pub trait DeviceIo: Send + Sync + fmt::Debug {
    /// What the kernel said about a region when the device was opened; size 0 where there is none.
    fn region(&self, region: u32) -> RegionInfo;

    /// What the kernel said about an interrupt index; count 0 where there is none.
    fn irq(&self, index: u32) -> IrqInfo;

    /// Whether [`DeviceIo::reset`] does anything.
    fn can_reset(&self) -> bool;

    /// Reads from a region. The kernel keeps to accesses of 1, 2, 4 and 8 bytes.
    ///
    /// # Errors
    /// Beyond the end, memory decode off or the device asleep (EIO).
    fn read(&self, region: u32, offset: u64, data: &mut [u8]) -> io::Result<()>;

    /// Writes to a region.
    ///
    /// # Errors
    /// As for reads.
    fn write(&self, region: u32, offset: u64, data: &[u8]) -> io::Result<()>;

    /// Maps part of a region at a host address that is a multiple of `align`.
    ///
    /// # Errors
    /// What `mmap` says.
    fn map(&self, region: u32, area: Area, align: u64) -> io::Result<HostMapping>;

    /// Sets up interrupts. Returns 0, or how many vectors could have been enabled where it was not all of them.
    ///
    /// # Errors
    /// What the kernel says.
    fn set_irqs(&self, request: &IrqRequest<'_>) -> io::Result<u32>;

    /// Resets this function alone.
    ///
    /// # Errors
    /// What the kernel says.
    fn reset(&self) -> io::Result<()>;

    /// Which functions a hot reset hits.
    ///
    /// # Errors
    /// ENODEV where there is no slot or bus to reset.
    fn hot_reset_info(&self) -> io::Result<Vec<Dependent>>;

    /// Resets the slot or bus, given the descriptors of all groups hit.
    ///
    /// # Errors
    /// What the kernel says.
    fn hot_reset(&self, groups: &[RawFd]) -> io::Result<()>;
}
