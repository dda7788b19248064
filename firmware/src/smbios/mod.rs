//! SMBIOS 3.0: who made the machine, its processors and its memory (DMTF DSP0134 3.0, "§" below).
//!
//! The identity is neutral unless set. OVMF adds type 0 (itself) when there is none, places the tables and fills in
//! their address.

mod structure;

#[cfg(test)]
mod tests;

use structure::{Field, Structures};

use crate::{AddressRange, RamSplit};

/// fw_cfg file of the entry point.
pub const ANCHOR_FILE: &str = "etc/smbios/smbios-anchor";
/// fw_cfg file of the structures.
pub const TABLES_FILE: &str = "etc/smbios/smbios-tables";

/// Largest memory module shown: bigger machines have several.
const MODULE_MAX: u64 = 16 << 30;

/// Handles, a range for each type.
mod handle {
    pub const SYSTEM: u16 = 0x100;
    pub const BOARD: u16 = 0x200;
    pub const CHASSIS: u16 = 0x300;
    pub const PROCESSOR: u16 = 0x400;
    pub const MEMORY: u16 = 0x1000;
    pub const MODULE: u16 = 0x1100;
    pub const MAPPED: u16 = 0x3000;
    pub const BOOT: u16 = 0x3100;
    pub const END: u16 = 0x3200;
    /// "No error information structure" (§7.17, §7.18).
    pub const NO_ERROR: u16 = 0xfffe;
    /// No cache described (§7.5).
    pub const NONE: u16 = 0xffff;
}

/// Why no tables can be made.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SmbiosError {
    /// A string would break the table.
    #[error("SMBIOS string `{0}` has control characters in it: take them out")]
    BadString(String),
    /// A processor count of 0, or more than a table can tell.
    #[error(
        "{sockets} sockets of {cores} cores of {threads} threads cannot be described: use 1 to 255 sockets and up to 65535 threads a socket"
    )]
    BadTopology {
        /// Sockets.
        sockets: u16,
        /// Cores a socket.
        cores: u16,
        /// Threads a core.
        threads: u16,
    },
    /// More memory modules than handles.
    #[error("{0} bytes of RAM are more than SMBIOS can describe here: use less than 64 TiB")]
    TooMuchMemory(u64),
}

/// Who the machine says it is. An empty string means "not specified".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Manufacturer of the system, the board and the chassis.
    pub manufacturer: String,
    /// Product name.
    pub product: String,
    /// Version.
    pub version: String,
    /// Serial number.
    pub serial: String,
    /// UUID in the order it is written in. All zero: not present.
    pub uuid: [u8; 16],
    /// Stock-keeping unit.
    pub sku: String,
    /// Product family.
    pub family: String,
    /// The mainboard.
    pub board: Board,
    /// Type 0, if not OVMF's own.
    pub bios: Option<Bios>,
}

/// The mainboard of an [`Identity`]. An empty manufacturer is the system's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Board {
    /// Manufacturer.
    pub manufacturer: String,
    /// Product name.
    pub product: String,
    /// Version.
    pub version: String,
    /// Serial number.
    pub serial: String,
}

/// The firmware as type 0 shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bios {
    /// Vendor.
    pub vendor: String,
    /// Version.
    pub version: String,
    /// Release date, mm/dd/yyyy.
    pub date: String,
}

impl Default for Identity {
    fn default() -> Self {
        Self {
            manufacturer: "Tenon".to_owned(),
            product: "Standard PC".to_owned(),
            version: "1.0".to_owned(),
            serial: String::new(),
            uuid: [0; 16],
            sku: String::new(),
            family: String::new(),
            board: Board {
                product: "Mainboard".to_owned(),
                ..Board::default()
            },
            bios: None,
        }
    }
}

/// The processors: all sockets alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Processors {
    /// Sockets, 1 to 255.
    pub sockets: u16,
    /// Cores a socket.
    pub cores: u16,
    /// Threads a core.
    pub threads: u16,
    /// Vendor.
    pub manufacturer: String,
    /// Brand string.
    pub version: String,
    /// CPUID leaf 1: EAX in the low half, EDX in the high half.
    pub id: u64,
    /// Clock in MHz, 0 for unknown.
    pub mhz: u16,
}

/// The two fw_cfg files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SmbiosFiles {
    /// [`ANCHOR_FILE`]: a 3.0 entry point, address zero.
    pub anchor: Vec<u8>,
    /// [`TABLES_FILE`].
    pub tables: Vec<u8>,
}

/// Describes a machine.
///
/// # Errors
/// Input that SMBIOS cannot carry.
pub fn build(identity: &Identity, processors: &Processors, ram: &RamSplit) -> Result<SmbiosFiles, SmbiosError> {
    check_strings(identity, processors)?;
    let mut out = Structures::default();
    if let Some(bios) = &identity.bios {
        firmware(&mut out, bios);
    }
    system(&mut out, identity);
    chassis(&mut out, identity);
    sockets(&mut out, processors)?;
    memory(&mut out, ram)?;
    // §7.33: no errors detected.
    out.add(32, handle::BOOT, &[Field::Zeros(6), Field::Byte(0)]);
    // OVMF walks until it meets this one.
    out.add(127, handle::END, &[]);
    let tables = out.into_bytes();
    Ok(SmbiosFiles {
        anchor: anchor(tables.len() as u32),
        tables,
    })
}

fn check_strings(identity: &Identity, processors: &Processors) -> Result<(), SmbiosError> {
    let Identity {
        manufacturer,
        product,
        version,
        serial,
        sku,
        family,
        board,
        bios,
        uuid: _,
    } = identity;
    let mut strings = vec![manufacturer, product, version, serial, sku, family];
    strings.extend([&board.manufacturer, &board.product, &board.version, &board.serial]);
    strings.extend([&processors.manufacturer, &processors.version]);
    strings.extend(bios.iter().flat_map(|bios| [&bios.vendor, &bios.version, &bios.date]));
    match strings.into_iter().find(|string| string.chars().any(char::is_control)) {
        Some(bad) => Err(SmbiosError::BadString(bad.escape_default().to_string())),
        None => Ok(()),
    }
}

/// 64-bit entry point (§5.2.2).
fn anchor(tables: u32) -> Vec<u8> {
    let mut anchor = b"_SM3_\0\x18\x03\x00\x00\x01\x00".to_vec();
    anchor.extend_from_slice(&tables.to_le_bytes());
    anchor.extend_from_slice(&[0; 8]);
    anchor[5] = crate::checksum(&anchor);
    anchor
}

/// Type 0 (§7.1): a UEFI firmware of 64 KiB, plug-and-play characteristics not given.
fn firmware(out: &mut Structures, bios: &Bios) {
    let strings = [
        Field::Text(&bios.vendor),
        Field::Text(&bios.version),
        Field::Word(0),
        Field::Text(&bios.date),
    ];
    let rest = [
        Field::Byte(0),
        Field::Quad(1 << 3),
        Field::Byte(0),
        Field::Byte(1 << 3),
        Field::Word(0),
        Field::Word(0xffff),
    ];
    out.add(0, 0, &[&strings[..], &rest].concat());
}

/// Types 1 and 2 (§7.2, §7.3).
fn system(out: &mut Structures, identity: &Identity) {
    let Identity {
        manufacturer,
        product,
        version,
        serial,
        sku,
        family,
        board,
        ..
    } = identity;
    let names = [
        Field::Text(manufacturer),
        Field::Text(product),
        Field::Text(version),
        Field::Text(serial),
    ];
    // Woken by the power switch.
    let rest = [
        Field::Uuid(identity.uuid),
        Field::Byte(6),
        Field::Text(sku),
        Field::Text(family),
    ];
    out.add(1, handle::SYSTEM, &[&names[..], &rest].concat());

    let maker = if board.manufacturer.is_empty() {
        manufacturer
    } else {
        &board.manufacturer
    };
    let names = [
        Field::Text(maker),
        Field::Text(&board.product),
        Field::Text(&board.version),
        Field::Text(&board.serial),
    ];
    // A hosting board (bit 0), motherboard (0x0A), without contained objects.
    let rest = [
        Field::Zeros(1),
        Field::Byte(1),
        Field::Zeros(1),
        Field::Word(handle::CHASSIS),
        Field::Byte(0x0a),
        Field::Byte(0),
    ];
    out.add(2, handle::BOARD, &[&names[..], &rest].concat());
}

/// Type 3 (§7.4): a desktop, all states safe (3), security unknown (2).
fn chassis(out: &mut Structures, identity: &Identity) {
    let names = [
        Field::Text(&identity.manufacturer),
        Field::Byte(3),
        Field::Text(&identity.version),
        Field::Text(&identity.serial),
    ];
    let rest = [
        Field::Zeros(1),
        Field::Byte(3),
        Field::Byte(3),
        Field::Byte(3),
        Field::Byte(2),
        Field::Zeros(8),
        Field::Text(&identity.sku),
    ];
    out.add(3, handle::CHASSIS, &[&names[..], &rest].concat());
}

/// Type 4 for each socket (§7.5).
fn sockets(out: &mut Structures, processors: &Processors) -> Result<(), SmbiosError> {
    let Processors {
        sockets,
        cores,
        threads,
        ..
    } = *processors;
    let total = cores
        .checked_mul(threads)
        .filter(|total| *total != 0 && (1..=255).contains(&sockets));
    let total = total.ok_or(SmbiosError::BadTopology {
        sockets,
        cores,
        threads,
    })?;
    // The old fields say 0xFF when the count does not fit; the real one follows at the end.
    let short = |count: u16| Field::Byte(count.min(0xff) as u8);
    // Bits 2, 3, 4, 5: 64-bit, multi-core, hardware threads, execute protection.
    let features = 1 << 2 | u16::from(cores > 1) << 3 | u16::from(threads > 1) << 4 | 1 << 5;
    for socket in 0..sockets {
        let designation = format!("CPU{socket}");
        let fields = [
            Field::Text(&designation),
            Field::Byte(3), // central processor
            Field::Byte(1), // family: other
            Field::Text(&processors.manufacturer),
            Field::Quad(processors.id),
            Field::Text(&processors.version),
            Field::Zeros(3), // voltage, external clock: unknown
            Field::Word(processors.mhz),
            Field::Word(processors.mhz),
            Field::Byte(0x41), // populated, enabled
            Field::Byte(1),    // upgrade: other
            Field::Word(handle::NONE),
            Field::Word(handle::NONE),
            Field::Word(handle::NONE),
            Field::Zeros(3), // serial number, asset tag, part number
            short(cores),
            short(cores),
            short(total),
            Field::Word(features),
            Field::Word(1), // family 2: other
            Field::Word(cores),
            Field::Word(cores),
            Field::Word(total),
        ];
        out.add(4, handle::PROCESSOR + socket, &fields);
    }
    Ok(())
}

/// Types 16, 17 and 19: one array, its modules, and where it appears (§7.17, §7.18, §7.20).
fn memory(out: &mut Structures, ram: &RamSplit) -> Result<(), SmbiosError> {
    let total = ram.low + ram.high;
    let modules = total.div_ceil(MODULE_MAX);
    if modules > 0x1000 {
        return Err(SmbiosError::TooMuchMemory(total));
    }
    let kib = total >> 10;
    let (capacity, extended) = if kib < 0x8000_0000 {
        (kib as u32, 0)
    } else {
        (0x8000_0000, total)
    };
    // On the board (3), system memory (3), no error correction (3).
    let array = [Field::Byte(3), Field::Byte(3), Field::Byte(3), Field::Double(capacity)];
    let rest = [
        Field::Word(handle::NO_ERROR),
        Field::Word(modules as u16),
        Field::Quad(extended),
    ];
    out.add(16, handle::MEMORY, &[&array[..], &rest].concat());
    for index in 0..modules {
        module(out, index as u16, (total - index * MODULE_MAX).min(MODULE_MAX));
    }
    for (index, range) in [Some(ram.low_range()), ram.high_range()]
        .into_iter()
        .flatten()
        .enumerate()
    {
        mapped(out, index as u16, &range, modules.min(0xff) as u8);
    }
    Ok(())
}

fn module(out: &mut Structures, index: u16, size: u64) {
    let mib = size >> 20;
    // 0x7FFF refers to the extended field, in MiB; bit 15 makes the unit KiB for what is not whole MiB.
    let (size, extended) = match mib {
        0x7fff.. => (0x7fff, mib as u32),
        0..32 if !size.is_multiple_of(1 << 20) => (0x8000 | (size >> 10) as u16, 0),
        _ => (mib as u16, 0),
    };
    let locator = format!("DIMM {index}");
    let fields = [
        Field::Word(handle::MEMORY),
        Field::Word(handle::NO_ERROR),
        Field::Word(64),
        Field::Word(64),
        Field::Word(size),
        Field::Byte(9), // DIMM
        Field::Byte(0), // in no set
        Field::Text(&locator),
        Field::Zeros(1), // bank
        Field::Byte(7),  // RAM
        Field::Word(2),  // other
        Field::Zeros(2), // speed: unknown
        Field::Zeros(4), // manufacturer, serial number, asset tag, part number
        Field::Zeros(1), // rank: unknown
        Field::Double(extended),
        Field::Zeros(8), // configured speed, voltages: unknown
    ];
    out.add(17, handle::MODULE + index, &fields);
}

fn mapped(out: &mut Structures, index: u16, range: &AddressRange, width: u8) {
    let (first, last) = (range.base, range.base + (range.size.max(1) - 1));
    // KiB, the last one included; all-ones refers to the extended fields, in bytes.
    let kib = |address: u64| u32::try_from(address >> 10).ok().filter(|kib| *kib != u32::MAX);
    let fields = match (kib(first), kib(last)) {
        (Some(first), Some(last)) => [
            Field::Double(first),
            Field::Double(last),
            Field::Quad(0),
            Field::Quad(0),
        ],
        _ => [
            Field::Double(u32::MAX),
            Field::Double(u32::MAX),
            Field::Quad(first),
            Field::Quad(last),
        ],
    };
    let [start, end, extended_start, extended_end] = fields;
    let array = [Field::Word(handle::MEMORY), Field::Byte(width)];
    out.add(
        19,
        handle::MAPPED + index,
        &[&[start, end][..], &array, &[extended_start, extended_end]].concat(),
    );
}
