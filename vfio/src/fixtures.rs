//! Config spaces of functions that matter, put together after `lspci -xxxx` listings. BARs hold host addresses, as the
//! kernel shows them when a device is opened.

/// Writes values into a config space.
pub(crate) struct Build(pub Vec<u8>);

impl Build {
    pub(crate) fn new(ids: (u16, u16), class: u32, size: usize) -> Self {
        let mut bytes = vec![0; size];
        bytes[0..2].copy_from_slice(&ids.0.to_le_bytes());
        bytes[2..4].copy_from_slice(&ids.1.to_le_bytes());
        bytes[9..12].copy_from_slice(&class.to_le_bytes()[..3]);
        Self(bytes)
    }

    pub(crate) fn put<const N: usize>(mut self, offset: usize, bytes: [u8; N]) -> Self {
        self.0[offset..offset + N].copy_from_slice(&bytes);
        self
    }

    pub(crate) fn u16(self, offset: usize, value: u16) -> Self {
        self.put(offset, value.to_le_bytes())
    }

    pub(crate) fn u32(self, offset: usize, value: u32) -> Self {
        self.put(offset, value.to_le_bytes())
    }

    /// Status with a capability list that begins at `first`.
    pub(crate) fn chain(self, first: u8) -> Self {
        self.u16(6, 0x0010).put(0x34, [first])
    }

    pub(crate) fn ext(self, offset: usize, id: u16, version: u32, next: u32) -> Self {
        self.u32(offset, u32::from(id) | version << 16 | next << 20)
    }
}

/// QEMU's bochs-display behind a root port: an endpoint with no interrupt.
pub(crate) fn bochs_display() -> Vec<u8> {
    Build::new((0x1234, 0x1111), 0x038000, 4096)
        .chain(0x80)
        .u32(0x10, 0xe000_0008)
        .u32(0x18, 0xfea0_0000)
        .put(0x80, [0x10, 0, 0x02, 0x00])
        .u32(0x84, 0x0000_8000)
        .u32(0x8c, 0x0000_0411)
        .u16(0x92, 0x0011)
        .0
}

/// QEMU's intel-hda: conventional PCI, MSI with a 64-bit address, INTA.
pub(crate) fn intel_hda() -> Vec<u8> {
    Build::new((0x8086, 0x2668), 0x040300, 256)
        .chain(0x60)
        .u32(0x10, 0xfea1_0000)
        .put(0x3c, [0x0b, 0x01])
        .put(0x60, [0x05, 0, 0x80, 0x00])
        .0
}

/// QEMU's ich9-intel-hda at 00:1b.0, in QEMU a conventional function too.
pub(crate) fn ich9_hda() -> Vec<u8> {
    Build::new((0x8086, 0x293e), 0x040300, 256)
        .chain(0x60)
        .u32(0x10, 0xfea2_0000)
        .put(0x3c, [0x0b, 0x01])
        .put(0x60, [0x05, 0, 0x80, 0x00])
        .0
}

/// The 7 Series HDA of a real board: an integrated endpoint with PM, MSI and Express.
pub(crate) fn panther_point_hda() -> Vec<u8> {
    Build::new((0x8086, 0x1e20), 0x040300, 4096)
        .chain(0x50)
        .u32(0x10, 0xf7c1_0004)
        .put(0x3c, [0x03, 0x01])
        .put(0x50, [0x01, 0x60, 0x42, 0xc8])
        .put(0x60, [0x05, 0x70, 0x80, 0x00])
        .put(0x70, [0x10, 0x00, 0x91, 0x00])
        .u32(0x74, 0x1000_0000)
        .ext(0x100, 0x02, 1, 0x130)
        .ext(0x130, 0x05, 1, 0)
        .0
}

/// A GeForce GTX 960: five BARs of all kinds, MSI, Express without FLR, a resizable BAR among the extended capabilities.
pub(crate) fn gtx_960() -> Vec<u8> {
    Build::new((0x10de, 0x1401), 0x030000, 4096)
        .chain(0x60)
        .u32(0x10, 0xf600_0000)
        .u32(0x14, 0xe000_000c)
        .u32(0x1c, 0xf000_000c)
        .u32(0x24, 0x0000_e001)
        .u32(0x30, 0xf700_0000)
        .put(0x3c, [0x0b, 0x01])
        .put(0x60, [0x01, 0x68, 0x03, 0x00, 0x08])
        .put(0x68, [0x05, 0x78, 0x80, 0x00])
        .put(0x78, [0x10, 0x00, 0x02, 0x00])
        .u32(0x7c, 0x00e8_8de1)
        .ext(0x100, 0x02, 1, 0x250)
        .ext(0x250, 0x18, 1, 0x258)
        .ext(0x258, 0x1e, 1, 0x128)
        .ext(0x128, 0x04, 1, 0x420)
        .ext(0x420, 0x01, 2, 0x600)
        .ext(0x600, 0x0b, 1, 0xbb0)
        .ext(0xbb0, 0x15, 1, 0)
        .0
}

/// An NVMe drive: MSI-X of 17 vectors with table and pending bits in BAR 0, FLR, SR-IOV and ARI.
pub(crate) fn nvme() -> Vec<u8> {
    Build::new((0x1b36, 0x0010), 0x010802, 4096)
        .chain(0x40)
        .u32(0x10, 0xfea0_0004)
        .put(0x3c, [0x0b, 0x01])
        .put(0x40, [0x11, 0x80, 0x10, 0x00])
        .u32(0x44, 0x0000_2000)
        .u32(0x48, 0x0000_3000)
        .put(0x60, [0x01, 0x00, 0x03, 0x00, 0x08])
        .put(0x80, [0x10, 0x60, 0x02, 0x00])
        .u32(0x84, 0x1000_8000)
        .ext(0x100, 0x0e, 1, 0x120)
        .ext(0x120, 0x10, 1, 0x160)
        .ext(0x160, 0x01, 2, 0)
        .0
}
