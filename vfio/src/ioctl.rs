//! The VFIO system calls that vfio-ioctls does not offer, or offers without an error: everything on groups and device
//! descriptors. Thin: numbers and bytes in, `io::Result` out. Layouts and numbers are those of
//! `include/uapi/linux/vfio.h`, through vfio-bindings.
#![expect(unsafe_code, reason = "ioctl and the descriptors it returns have no safe form")]

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::mem::{offset_of, size_of};
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::os::unix::fs::FileExt;

use devices::HostMapping;
use libc::c_ulong;
use vfio_bindings::bindings::vfio::*;

use crate::host::Bdf;
use crate::io::{Area, Dependent, DeviceIo, IrqData, IrqInfo, IrqRequest, RegionInfo};

/// `_IO(VFIO_TYPE, VFIO_BASE + number)`. A number means different things on a container and on a device descriptor.
const fn request(number: u32) -> c_ulong {
    ((VFIO_TYPE as c_ulong) << 8) | (VFIO_BASE + number) as c_ulong
}

const SET_IOMMU: c_ulong = request(2);
const GROUP_GET_STATUS: c_ulong = request(3);
const GROUP_SET_CONTAINER: c_ulong = request(4);
const GROUP_UNSET_CONTAINER: c_ulong = request(5);
const GROUP_GET_DEVICE_FD: c_ulong = request(6);
const DEVICE_GET_INFO: c_ulong = request(7);
const DEVICE_GET_REGION_INFO: c_ulong = request(8);
const DEVICE_GET_IRQ_INFO: c_ulong = request(9);
const DEVICE_SET_IRQS: c_ulong = request(10);
const DEVICE_RESET: c_ulong = request(11);
const DEVICE_GET_PCI_HOT_RESET_INFO: c_ulong = request(12);
const DEVICE_PCI_HOT_RESET: c_ulong = request(13);
const IOMMU_GET_INFO: c_ulong = request(12);

/// An ioctl argument that begins with its own size (`argsz`), as all the structures of VFIO do. The kernel touches no
/// more than `argsz` bytes, and only [`Argument::new`] sets that, to the length of the buffer.
#[derive(Debug)]
struct Argument {
    words: Vec<u64>,
}

impl Argument {
    /// At least `len` zeroed bytes.
    #[expect(
        clippy::indexing_slicing,
        reason = "there is at least one word, and the slices are constant"
    )]
    fn new(len: usize) -> Self {
        let mut words = vec![0u64; len.div_ceil(8).max(1)];
        let argsz = u32::try_from(words.len() * 8).unwrap_or(u32::MAX);
        words[0] = u64::from_ne_bytes({
            let mut first = [0; 8];
            first[..4].copy_from_slice(&argsz.to_ne_bytes());
            first
        });
        Self { words }
    }

    #[expect(clippy::indexing_slicing, reason = "the slice starts at 0 or 4 of 8 bytes")]
    fn with(mut self, offset: usize, value: u32) -> Self {
        // Offset 0 is argsz, which stays the buffer's length.
        if let (Some(word), true) = (self.words.get_mut(offset / 8), offset >= 4) {
            let mut bytes = word.to_ne_bytes();
            bytes[offset % 8 / 4 * 4..][..4].copy_from_slice(&value.to_ne_bytes());
            *word = u64::from_ne_bytes(bytes);
        }
        self
    }

    /// 32 bits at `offset`; 0 beyond the end.
    fn u32(&self, offset: usize) -> u32 {
        let bytes = self.words.get(offset / 8).copied().unwrap_or(0).to_ne_bytes();
        match offset % 8 {
            0 => u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]),
            _ => u32::from_ne_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
        }
    }

    /// 64 bits at `offset`; 0 beyond the end.
    fn u64(&self, offset: usize) -> u64 {
        u64::from(self.u32(offset)) | u64::from(self.u32(offset + 4)) << 32
    }

    /// How much the kernel would have liked to write.
    fn wanted(&self) -> usize {
        self.u32(0) as usize
    }

    fn call(&mut self, fd: &impl AsRawFd, request: c_ulong) -> io::Result<u32> {
        // SAFETY: the requests used with an `Argument` take a pointer to a structure that begins with `argsz`, and the
        // kernel keeps to that size, which is the length of this live, exclusively borrowed buffer.
        check(unsafe { libc::ioctl(fd.as_raw_fd(), request, self.words.as_mut_ptr()) })
    }

    /// Walks a chain of capabilities (`vfio_info_cap_header`: id, version, next): (id, offset) of each.
    fn capabilities(&self, first: usize) -> Vec<(u32, usize)> {
        let mut found = Vec::new();
        let mut at = first;
        // The kernel's chain is finite and goes forward; the bound is for a kernel that errs.
        while at >= 8 && at.is_multiple_of(4) && at < self.words.len() * 8 && found.len() < 64 {
            found.push((self.u32(at) & 0xffff, at));
            at = self.u32(at + offset_of!(vfio_info_cap_header, next)) as usize;
        }
        found
    }
}

fn check(result: i32) -> io::Result<u32> {
    u32::try_from(result).map_err(|_| io::Error::last_os_error())
}

fn call_plain(fd: &impl AsRawFd, request: c_ulong, value: c_ulong) -> io::Result<u32> {
    // SAFETY: used with the requests that take a number or nothing: no memory is touched.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), request, value) })
}

/// Whether every device of the group is in VFIO's hands or nobody's.
pub(crate) fn group_viable(group: &File) -> io::Result<bool> {
    let mut status = Argument::new(size_of::<vfio_group_status>());
    status.call(group, GROUP_GET_STATUS)?;
    Ok(status.u32(offset_of!(vfio_group_status, flags)) & VFIO_GROUP_FLAGS_VIABLE != 0)
}

/// Puts a group into a container.
pub(crate) fn set_container(group: &File, container: RawFd) -> io::Result<()> {
    // SAFETY: the request reads one int, which lives across the call.
    check(unsafe { libc::ioctl(group.as_raw_fd(), GROUP_SET_CONTAINER, &raw const container) }).map(drop)
}

/// Takes a group out of its container.
pub(crate) fn unset_container(group: &File) -> io::Result<()> {
    call_plain(group, GROUP_UNSET_CONTAINER, 0).map(drop)
}

/// Chooses the type1v2 IOMMU driver for a container that holds a group.
pub(crate) fn set_type1(container: &impl AsRawFd) -> io::Result<()> {
    call_plain(container, SET_IOMMU, c_ulong::from(VFIO_TYPE1v2_IOMMU)).map(drop)
}

/// What the IOMMU of a container can map.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct IommuInfo {
    /// Page sizes as a bitmap.
    pub page_sizes: u64,
    /// Inclusive ranges of IOVA that may be mapped; empty where the kernel does not say (before 5.4).
    pub ranges: Vec<std::ops::RangeInclusive<u64>>,
    /// Mappings that may still be made; `None` where the kernel does not say (before 5.10).
    pub mappings_left: Option<u32>,
}

/// Asks a container's IOMMU for its limits.
pub(crate) fn iommu_info(container: &impl AsRawFd) -> io::Result<IommuInfo> {
    let mut info = Argument::new(size_of::<vfio_iommu_type1_info>());
    info.call(container, IOMMU_GET_INFO)?;
    if info.wanted() > info.words.len() * 8 {
        info = Argument::new(info.wanted());
        info.call(container, IOMMU_GET_INFO)?;
    }
    let mut found = IommuInfo {
        page_sizes: info.u64(offset_of!(vfio_iommu_type1_info, iova_pgsizes)),
        ..IommuInfo::default()
    };
    if info.u32(offset_of!(vfio_iommu_type1_info, flags)) & VFIO_IOMMU_INFO_CAPS == 0 {
        return Ok(found);
    }
    for (id, at) in info.capabilities(info.u32(offset_of!(vfio_iommu_type1_info, cap_offset)) as usize) {
        match id {
            VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE => {
                let count = info.u32(at + offset_of!(vfio_iommu_type1_info_cap_iova_range, nr_iovas)) as usize;
                let first = at + size_of::<vfio_iommu_type1_info_cap_iova_range>();
                found.ranges = (0..count.min(info.words.len()))
                    .map(|index| first + index * size_of::<vfio_iova_range>())
                    .map(|range| info.u64(range)..=info.u64(range + offset_of!(vfio_iova_range, end)))
                    .collect();
            }
            VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL => {
                found.mappings_left = Some(info.u32(at + offset_of!(vfio_iommu_type1_info_dma_avail, avail)));
            }
            _ => {}
        }
    }
    Ok(found)
}

/// An open device descriptor and what the kernel says about its regions and interrupts.
#[derive(Debug)]
pub(crate) struct DeviceFile {
    file: File,
    flags: u32,
    regions: Vec<RegionInfo>,
    irqs: Vec<IrqInfo>,
}

impl DeviceFile {
    /// Opens a function of a group that is in a container.
    pub(crate) fn open(group: &File, bdf: Bdf) -> io::Result<Self> {
        let name = CString::new(bdf.to_string())?;
        // SAFETY: the request reads a NUL-terminated string, which lives across the call.
        let fd = check(unsafe { libc::ioctl(group.as_raw_fd(), GROUP_GET_DEVICE_FD, name.as_ptr()) })?;
        // SAFETY: the kernel has just made this descriptor for us; nobody else owns it.
        let file = unsafe { File::from_raw_fd(RawFd::try_from(fd).map_err(io::Error::other)?) };
        let mut info = Argument::new(size_of::<vfio_device_info>());
        info.call(&file, DEVICE_GET_INFO)?;
        let flags = info.u32(offset_of!(vfio_device_info, flags));
        if flags & VFIO_DEVICE_FLAGS_PCI == 0 {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "VFIO says it is not a PCI device",
            ));
        }
        // A region that cannot be described keeps its place, empty: the VGA region of what is no VGA adapter is one.
        let regions = info
            .u32(offset_of!(vfio_device_info, num_regions))
            .min(VFIO_PCI_NUM_REGIONS);
        let irqs = info.u32(offset_of!(vfio_device_info, num_irqs)).min(VFIO_PCI_NUM_IRQS);
        Ok(Self {
            flags,
            regions: (0..regions)
                .map(|index| region_info(&file, index).unwrap_or_default())
                .collect(),
            irqs: (0..irqs)
                .map(|index| irq_info(&file, index).unwrap_or_default())
                .collect(),
            file,
        })
    }

    /// Where in the file `len` bytes at `offset` of a region are.
    fn place(&self, region: u32, offset: u64, len: usize) -> io::Result<u64> {
        let info = self.region(region);
        let end = offset.checked_add(len as u64).ok_or(io::ErrorKind::InvalidInput)?;
        if end > info.size {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        info.offset
            .checked_add(offset)
            .ok_or_else(|| io::ErrorKind::InvalidInput.into())
    }
}

fn region_info(device: &File, index: u32) -> io::Result<RegionInfo> {
    let ask = |len: usize| {
        let mut info = Argument::new(len).with(offset_of!(vfio_region_info, index), index);
        info.call(device, DEVICE_GET_REGION_INFO).map(|_| info)
    };
    let mut info = ask(size_of::<vfio_region_info>())?;
    if info.wanted() > info.words.len() * 8 {
        info = ask(info.wanted())?;
    }
    let flags = info.u32(offset_of!(vfio_region_info, flags));
    let mut region = RegionInfo {
        mappable: flags & VFIO_REGION_INFO_FLAG_MMAP != 0,
        size: info.u64(offset_of!(vfio_region_info, size)),
        offset: info.u64(offset_of!(vfio_region_info, offset)),
        ..RegionInfo::default()
    };
    if flags & VFIO_REGION_INFO_FLAG_CAPS == 0 {
        return Ok(region);
    }
    for (id, at) in info.capabilities(info.u32(offset_of!(vfio_region_info, cap_offset)) as usize) {
        match id {
            VFIO_REGION_INFO_CAP_SPARSE_MMAP => {
                let count = info.u32(at + offset_of!(vfio_region_info_cap_sparse_mmap, nr_areas)) as usize;
                let first = at + size_of::<vfio_region_info_cap_sparse_mmap>();
                let areas = (0..count.min(info.words.len()))
                    .map(|index| first + index * size_of::<vfio_region_sparse_mmap_area>())
                    .map(|area| Area {
                        offset: info.u64(area),
                        size: info.u64(area + offset_of!(vfio_region_sparse_mmap_area, size)),
                    });
                region.sparse = Some(areas.collect());
            }
            VFIO_REGION_INFO_CAP_MSIX_MAPPABLE => region.msix_mappable = true,
            _ => {}
        }
    }
    Ok(region)
}

fn irq_info(device: &File, index: u32) -> io::Result<IrqInfo> {
    let mut info = Argument::new(size_of::<vfio_irq_info>()).with(offset_of!(vfio_irq_info, index), index);
    info.call(device, DEVICE_GET_IRQ_INFO)?;
    Ok(IrqInfo {
        count: info.u32(offset_of!(vfio_irq_info, count)),
        no_resize: info.u32(offset_of!(vfio_irq_info, flags)) & VFIO_IRQ_INFO_NORESIZE != 0,
    })
}

impl DeviceIo for DeviceFile {
    fn region(&self, region: u32) -> RegionInfo {
        self.regions.get(region as usize).cloned().unwrap_or_default()
    }

    fn irq(&self, index: u32) -> IrqInfo {
        self.irqs.get(index as usize).copied().unwrap_or_default()
    }

    fn can_reset(&self) -> bool {
        self.flags & VFIO_DEVICE_FLAGS_RESET != 0
    }

    fn read(&self, region: u32, offset: u64, data: &mut [u8]) -> io::Result<()> {
        let at = self.place(region, offset, data.len())?;
        self.file.read_exact_at(data, at)
    }

    fn write(&self, region: u32, offset: u64, data: &[u8]) -> io::Result<()> {
        let at = self.place(region, offset, data.len())?;
        self.file.write_all_at(data, at)
    }

    fn map(&self, region: u32, area: Area, align: u64) -> io::Result<HostMapping> {
        let len = usize::try_from(area.size).map_err(io::Error::other)?;
        let at = self.place(region, area.offset, len)?;
        HostMapping::shared(&self.file, at, len, usize::try_from(align).unwrap_or(4096), true)
    }

    fn set_irqs(&self, irq: &IrqRequest<'_>) -> io::Result<u32> {
        let header = size_of::<vfio_irq_set>();
        let (data, count) = match irq.data {
            IrqData::Count(count) => (VFIO_IRQ_SET_DATA_NONE, count as usize),
            IrqData::Events(events) => (VFIO_IRQ_SET_DATA_EVENTFD, events.len()),
        };
        let mut set = Argument::new(header + count_of(irq) * size_of::<RawFd>())
            .with(offset_of!(vfio_irq_set, flags), data | irq.action.flag())
            .with(offset_of!(vfio_irq_set, index), irq.index)
            .with(offset_of!(vfio_irq_set, start), irq.start)
            .with(
                offset_of!(vfio_irq_set, count),
                u32::try_from(count).unwrap_or(u32::MAX),
            );
        if let IrqData::Events(events) = irq.data {
            for (index, event) in events.iter().enumerate() {
                // -1 takes the vector's event away but leaves the vector enabled.
                let fd = event.map_or(-1, |event| event.as_raw_fd());
                set = set.with(
                    header + index * size_of::<RawFd>(),
                    u32::from_ne_bytes(fd.to_ne_bytes()),
                );
            }
        }
        set.call(&self.file, DEVICE_SET_IRQS)
    }

    fn reset(&self) -> io::Result<()> {
        call_plain(&self.file, DEVICE_RESET, 0).map(drop)
    }

    fn hot_reset_info(&self) -> io::Result<Vec<Dependent>> {
        let (header, entry) = (
            size_of::<vfio_pci_hot_reset_info>(),
            size_of::<vfio_pci_dependent_device>(),
        );
        let mut info = Argument::new(header);
        match info.call(&self.file, DEVICE_GET_PCI_HOT_RESET_INFO) {
            // The count is filled in even where there was no room for the entries.
            Err(error) if error.raw_os_error() != Some(libc::ENOSPC) => return Err(error),
            _ => {}
        }
        let count = (info.u32(offset_of!(vfio_pci_hot_reset_info, count)) as usize).min(4096);
        let mut info = Argument::new(header + count * entry);
        info.call(&self.file, DEVICE_GET_PCI_HOT_RESET_INFO)?;
        let count = (info.u32(offset_of!(vfio_pci_hot_reset_info, count)) as usize).min(count);
        Ok((0..count)
            .map(|index| header + index * entry)
            .map(|at| {
                // The union's group number, then segment (16 bits), bus and devfn.
                let [segment_low, segment_high, bus, devfn] = info.u32(at + 4).to_ne_bytes();
                let segment = u16::from_ne_bytes([segment_low, segment_high]);
                Dependent {
                    group: info.u32(at),
                    function: Bdf::from_devfn(segment.into(), bus, devfn),
                }
            })
            .collect())
    }

    fn hot_reset(&self, groups: &[RawFd]) -> io::Result<()> {
        let header = size_of::<vfio_pci_hot_reset>();
        let mut reset = Argument::new(header + size_of_val(groups)).with(
            offset_of!(vfio_pci_hot_reset, count),
            u32::try_from(groups.len()).unwrap_or(u32::MAX),
        );
        for (index, fd) in groups.iter().enumerate() {
            reset = reset.with(
                header + index * size_of::<RawFd>(),
                u32::from_ne_bytes(fd.to_ne_bytes()),
            );
        }
        reset.call(&self.file, DEVICE_PCI_HOT_RESET).map(drop)
    }
}

fn count_of(irq: &IrqRequest<'_>) -> usize {
    match irq.data {
        IrqData::Count(_) => 0,
        IrqData::Events(events) => events.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_know_their_size_and_keep_it() {
        let argument = Argument::new(20).with(0, 1).with(4, 2).with(8, 3).with(400, 4);
        assert_eq!(argument.wanted(), 24);
        assert_eq!(
            (argument.u32(4), argument.u64(4), argument.u32(8), argument.u32(4000)),
            (2, 3 << 32 | 2, 3, 0)
        );
    }

    #[test]
    fn capability_chains_are_bounded() {
        // A chain that points at itself.
        let argument = Argument::new(64).with(32, 1).with(36, 32);
        assert_eq!(argument.capabilities(32).len(), 64);
        assert!(argument.capabilities(0).is_empty() && argument.capabilities(1 << 20).is_empty());
    }

    #[test]
    fn request_numbers_are_those_of_the_header() {
        // _IO(';', 100) and _IO(';', 113).
        assert_eq!((request(0), DEVICE_PCI_HOT_RESET), (0x3b64, 0x3b71));
    }

    #[test]
    fn errors_carry_the_errno() {
        let null = File::open("/dev/null").unwrap();
        assert_eq!(group_viable(&null).unwrap_err().raw_os_error(), Some(libc::ENOTTY));
        assert!(iommu_info(&null).is_err());
    }
}
