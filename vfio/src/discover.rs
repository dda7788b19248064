//! From the bytes of a function's config space to what is in it. Pure: no device is touched, so that captured config
//! spaces and random bytes test it. A device in a bad state returns anything at all; whatever comes, this ends and
//! does not panic.
//!
//! Section numbers are of the PCI Express Base Specification 6.0 unless another document is named.

use std::collections::BTreeSet;

use devices::pci::spec;

/// Extended capability: alternative routing-ID (PCI Code and ID Assignment 1.11 §3).
pub const EXT_ARI: u16 = 0x0e;
/// Extended capability: single root I/O virtualisation.
pub const EXT_SRIOV: u16 = 0x10;
/// Extended capability: resizable BAR.
pub const EXT_REBAR: u16 = 0x15;

/// Extended capabilities the guest must not see.
///
/// SR-IOV: firmware would size the virtual functions' BARs, which are not there. ARI: its next-function number is that
/// of the host's bus. Resizable BAR: its control register would resize the host's BAR under the mapping.
pub const HIDDEN_EXTENDED: [u16; 3] = [EXT_SRIOV, EXT_ARI, EXT_REBAR];

/// A capability and where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capability {
    /// Capability ID: 8 bits for standard ones, 16 for extended ones.
    pub id: u16,
    /// Version of an extended capability; 0 for standard ones.
    pub version: u8,
    /// Offset in config space.
    pub offset: u16,
    /// Bytes up to the next capability in order of place, or to the end of its space. At least what belongs to it.
    pub room: u16,
}

/// The MSI capability (§7.7.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MsiLayout {
    /// Offset in config space.
    pub offset: u16,
    /// The control register with nothing enabled.
    pub control: u16,
}

impl MsiLayout {
    /// 64-bit message address.
    pub fn wide(&self) -> bool {
        self.control & (1 << 7) != 0
    }

    /// Per-vector masking.
    pub fn maskable(&self) -> bool {
        self.control & (1 << 8) != 0
    }

    /// Vectors the function can ask for: 1–32.
    pub fn vectors(&self) -> u16 {
        1 << ((self.control >> 1) & 7).min(5)
    }

    /// Offset of the message data within the capability.
    pub fn data(&self) -> u16 {
        if self.wide() { 0x0c } else { 0x08 }
    }

    /// Length of the capability: 10, 14, 20 or 24 bytes.
    pub fn length(&self) -> u16 {
        match (self.wide(), self.maskable()) {
            (false, false) => 10,
            (true, false) => 14,
            (false, true) => 20,
            (true, true) => 24,
        }
    }
}

/// The MSI-X capability (§7.7.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MsixLayout {
    /// Offset in config space.
    pub offset: u16,
    /// Vectors: 1–2048.
    pub vectors: u16,
    /// BAR that holds the table.
    pub table_bar: u8,
    /// Offset of the table in that BAR.
    pub table_offset: u64,
    /// BAR that holds the pending bits.
    pub pba_bar: u8,
    /// Offset of the pending bits in that BAR.
    pub pba_offset: u64,
}

impl MsixLayout {
    /// Bytes of the table: 16 a vector.
    pub fn table_size(&self) -> u64 {
        u64::from(self.vectors) * 16
    }

    /// Bytes of the pending bits: whole 64-bit words.
    pub fn pba_size(&self) -> u64 {
        u64::from(self.vectors).div_ceil(64) * 8
    }
}

/// The PCI Express capability (§7.5.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExpressLayout {
    /// Offset in config space.
    pub offset: u16,
    /// Capability version: 0 on some early devices, 1, or 2.
    pub version: u8,
    /// Device/port type (§7.5.3.2).
    pub port_type: u8,
    /// Function level reset (device capabilities bit 28).
    pub flr: bool,
}

/// Device/port types of the PCI Express capability (§7.5.3.2).
pub mod port_type {
    /// PCI Express endpoint.
    pub const ENDPOINT: u8 = 0;
    /// Legacy PCI Express endpoint.
    pub const LEGACY_ENDPOINT: u8 = 1;
    /// Root complex integrated endpoint.
    pub const INTEGRATED_ENDPOINT: u8 = 9;
}

/// The power management capability (§7.5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PowerLayout {
    /// Offset in config space.
    pub offset: u16,
    /// Going from D3hot to D0 does not reset the function (PMCSR bit 3).
    pub no_soft_reset: bool,
}

/// What a config space holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// Vendor ID.
    pub vendor: u16,
    /// Device ID.
    pub device: u16,
    /// Class code, 24 bits.
    pub class: u32,
    /// Bytes of config space: 256 or 4096.
    pub size: u16,
    /// Interrupt pin: 0 for none, 1–4 for INTA–INTD.
    pub interrupt_pin: u8,
    /// Standard capabilities in the order of the chain.
    pub standard: Vec<Capability>,
    /// Extended capabilities in the order of the chain, hidden ones among them.
    pub extended: Vec<Capability>,
    /// MSI, if any.
    pub msi: Option<MsiLayout>,
    /// MSI-X, if any.
    pub msix: Option<MsixLayout>,
    /// PCI Express, if any.
    pub express: Option<ExpressLayout>,
    /// Power management, if any.
    pub power: Option<PowerLayout>,
    /// Function level reset through the Advanced Features capability (Conventional PCI ECN "Advanced Capabilities").
    pub af_flr: bool,
}

impl Layout {
    /// Whether the function can be reset alone: by PCI Express or by Advanced Features.
    pub fn has_flr(&self) -> bool {
        self.af_flr || self.express.is_some_and(|express| express.flr)
    }

    /// Whether a trip through D3hot resets the function.
    pub fn has_power_reset(&self) -> bool {
        self.power.is_some_and(|power| !power.no_soft_reset)
    }

    /// The extended capabilities the guest sees.
    pub fn visible_extended(&self) -> impl Iterator<Item = &Capability> {
        self.extended.iter().filter(|capability| !is_hidden(capability.id))
    }

    /// The extended capabilities kept from the guest.
    pub fn hidden_extended(&self) -> impl Iterator<Item = &Capability> {
        self.extended.iter().filter(|capability| is_hidden(capability.id))
    }
}

/// A null capability (ID 0) is what the kernel leaves at the head of a chain where it hides the first one.
fn is_hidden(id: u16) -> bool {
    id == 0 || HIDDEN_EXTENDED.contains(&id)
}

/// Why a config space is of no use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DiscoverError {
    /// All ones, or too few bytes: nothing answers.
    #[error(
        "config space reads as all ones: the device has fallen off the bus, is in D3cold or did not survive its last \
         reset; power the host off and on, and try vfio-pci with disable_idle_d3=1"
    )]
    Absent,
    /// Not a type 0 header.
    #[error("header type {0:#x} is that of a bridge; only endpoints are assigned")]
    HeaderType(u8),
}

/// Reads of config space that never fail: what is not there is all ones, as on a bus.
#[derive(Debug, Clone, Copy)]
pub struct Config<'a>(pub &'a [u8]);

impl Config<'_> {
    /// One byte.
    pub fn u8(&self, offset: u16) -> u8 {
        self.0.get(usize::from(offset)).copied().unwrap_or(0xff)
    }

    /// Two bytes, little-endian.
    pub fn u16(&self, offset: u16) -> u16 {
        u16::from_le_bytes([self.u8(offset), self.u8(offset.saturating_add(1))])
    }

    /// Four bytes, little-endian.
    pub fn u32(&self, offset: u16) -> u32 {
        u32::from(self.u16(offset)) | u32::from(self.u16(offset.saturating_add(2))) << 16
    }

    /// Bytes there are, at most 4096.
    pub fn len(&self) -> u16 {
        u16::try_from(self.0.len().min(4096)).unwrap_or(4096)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Finds out what `config` holds: 256 bytes, or 4096 where extended config space can be reached.
///
/// # Errors
/// Nothing answers, or it is a bridge.
pub fn discover(config: Config<'_>) -> Result<Layout, DiscoverError> {
    if config.len() < 0x40 || config.u16(0) == 0xffff {
        return Err(DiscoverError::Absent);
    }
    let header_type = config.u8(spec::HEADER_TYPE) & 0x7f;
    if header_type != 0 {
        return Err(DiscoverError::HeaderType(header_type));
    }
    let standard = standard_chain(config);
    let first = |id: u8| standard.iter().find(|capability| capability.id == u16::from(id));
    Ok(Layout {
        vendor: config.u16(0x00),
        device: config.u16(0x02),
        class: config.u32(spec::REVISION) >> 8,
        size: config.len(),
        interrupt_pin: config.u8(spec::INTERRUPT_PIN),
        extended: extended_chain(config),
        msi: first(spec::CAP_MSI).and_then(|capability| msi(config, capability)),
        msix: first(spec::CAP_MSIX).and_then(|capability| msix(config, capability)),
        express: first(spec::CAP_EXPRESS).and_then(|capability| express(config, capability)),
        power: first(spec::CAP_PM).and_then(|capability| power(config, capability)),
        af_flr: first(spec::CAP_AF).is_some_and(|capability| {
            // AF capabilities, bit 1: FLR; the capability is 6 bytes long.
            capability.room >= 6 && config.u8(capability.offset + 3) & 2 != 0
        }),
        standard,
    })
}

fn standard_chain(config: Config<'_>) -> Vec<Capability> {
    let mut found = Vec::new();
    if config.u16(spec::STATUS) & spec::STATUS_CAPABILITIES == 0 {
        return found;
    }
    let end = config.len().min(0x100);
    let mut seen = BTreeSet::new();
    // The two low bits of a pointer are reserved and masked (§7.5.1.1.11).
    let mut next = u16::from(config.u8(spec::CAPABILITIES) & 0xfc);
    // A capability lies past the header; a pointer back to one already seen closes a loop.
    while (0x40..end).contains(&next) && seen.insert(next) {
        let id = config.u8(next);
        if id == 0xff {
            break;
        }
        found.push(Capability {
            id: id.into(),
            version: 0,
            offset: next,
            room: 0,
        });
        next = u16::from(config.u8(next + 1) & 0xfc);
    }
    give_room(&mut found, end);
    found
}

fn extended_chain(config: Config<'_>) -> Vec<Capability> {
    let mut found = Vec::new();
    let mut seen = BTreeSet::new();
    let mut next = spec::EXTENDED_CAPABILITIES;
    while (spec::EXTENDED_CAPABILITIES..config.len().saturating_sub(3)).contains(&next) && seen.insert(next) {
        let header = config.u32(next);
        // An absent list is an ID of 0 or, on a bus that does not answer, all ones (§7.6.3).
        if header == 0 || header == u32::MAX {
            break;
        }
        let [low, high, version_next, _] = header.to_le_bytes();
        found.push(Capability {
            id: u16::from_le_bytes([low, high]),
            version: version_next & 0xf,
            offset: next,
            room: 0,
        });
        next = u16::try_from(header >> 20).unwrap_or(0) & 0xffc;
    }
    give_room(&mut found, config.len());
    found
}

fn give_room(capabilities: &mut [Capability], end: u16) {
    let places: BTreeSet<u16> = capabilities.iter().map(|capability| capability.offset).collect();
    for capability in capabilities {
        let next = places.range(capability.offset + 1..).next().copied().unwrap_or(end);
        capability.room = next - capability.offset;
    }
}

fn msi(config: Config<'_>, capability: &Capability) -> Option<MsiLayout> {
    // Message control without enable (bit 0) and multiple message enable (bits 6:4).
    let layout = MsiLayout {
        offset: capability.offset,
        control: config.u16(capability.offset + 2) & !0x71,
    };
    (capability.room >= layout.length()).then_some(layout)
}

fn msix(config: Config<'_>, capability: &Capability) -> Option<MsixLayout> {
    if capability.room < 12 {
        return None;
    }
    let (table, pba) = (config.u32(capability.offset + 4), config.u32(capability.offset + 8));
    let bar = |value: u32| u8::try_from(value & 7).ok().filter(|bar| *bar < 6);
    Some(MsixLayout {
        offset: capability.offset,
        vectors: (config.u16(capability.offset + 2) & 0x7ff) + 1,
        table_bar: bar(table)?,
        table_offset: u64::from(table & !7),
        pba_bar: bar(pba)?,
        pba_offset: u64::from(pba & !7),
    })
}

fn express(config: Config<'_>, capability: &Capability) -> Option<ExpressLayout> {
    let flags = config.u16(capability.offset + 2).to_le_bytes()[0];
    (capability.room >= 12).then(|| ExpressLayout {
        offset: capability.offset,
        version: flags & 0xf,
        port_type: flags >> 4,
        flr: config.u32(capability.offset + 4) & (1 << 28) != 0,
    })
}

fn power(config: Config<'_>, capability: &Capability) -> Option<PowerLayout> {
    (capability.room >= 8).then(|| PowerLayout {
        offset: capability.offset,
        no_soft_reset: config.u16(capability.offset + 4) & (1 << 3) != 0,
    })
}

#[cfg(test)]
pub(crate) mod tests;
