//! ACPI tables and the three fw_cfg files that carry them to the firmware.
//!
//! Fixed-hardware ACPI (the ICH9 power-management block exists anyway: OVMF's timer is in it). The tables are built from
//! what the firmware has programmed by the time it asks: the ECAM base and the bridge windows are input, not constants.

mod dsdt;
mod fixed;

use std::collections::BTreeMap;

use acpi_tables::{Aml, rsdp::Rsdp, xsdt::XSDT};

use crate::{
    AddressRange, RamSplit,
    table_loader::{self, Command, LoaderError, Zone, Zones},
};

pub use dsdt::intx_gsi;

/// fw_cfg file of the tables.
pub const TABLES_FILE: &str = "etc/acpi/tables";
/// fw_cfg file of the RSDP.
pub const RSDP_FILE: &str = "etc/acpi/rsdp";
/// fw_cfg file of the script.
pub const LOADER_FILE: &str = "etc/table-loader";

/// Size of `etc/acpi/tables`, whatever it holds: OVMF reads the sizes before the tables are built.
pub const TABLES_SIZE: usize = 128 << 10;
/// Size of `etc/table-loader`.
pub const LOADER_SIZE: usize = 4 << 10;
/// Size of `etc/acpi/rsdp` (ACPI 6.5 §5.2.5.3, revision 2).
pub const RSDP_SIZE: usize = 36;

/// `_OSC` control bits granted by default (PCI Firmware 3.3 table 4-5): native hot-plug, PME, AER and the capability
/// structure. SHPC stays off: there is no such controller.
pub const OSC_CONTROL: u32 = 0x1d;

/// The I/O ports a PCI host bridge forwards: all but the configuration mechanism itself at 0xCF8.
pub const IO_WINDOWS: [PortRange; 2] = [
    PortRange { first: 0, last: 0xcf7 },
    PortRange {
        first: 0xd00,
        last: 0xffff,
    },
];

/// Where a kernel booted without firmware finds the tables: the BIOS segments, with the RSDP at a 16-byte boundary in
/// them (ACPI 6.5 §5.2.5.1).
pub const KERNEL_TABLES: AddressRange = AddressRange::new(0xe_0000, 0x2_0000);

/// One virtual processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuEntry {
    /// Its local APIC id, as CPUID shows it.
    pub apic_id: u32,
}

/// The PCI configuration window the firmware enabled (PCIEXBAR).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ecam {
    /// Guest physical address of bus 0.
    pub base: u64,
    /// Buses covered from 0: 64, 128 or 256.
    pub buses: u16,
}

impl Ecam {
    /// The addresses covered, 1 MiB a bus.
    #[must_use]
    pub const fn range(&self) -> AddressRange {
        AddressRange::new(self.base, (self.buses as u64) << 20)
    }
}

/// I/O ports from `first` to `last`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    /// First port.
    pub first: u16,
    /// Last port.
    pub last: u16,
}

/// Who the tables say made the machine. Space-padded ASCII.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OemIds {
    /// OEM id.
    pub oem_id: [u8; 6],
    /// OEM table id, the same in every table.
    pub oem_table_id: [u8; 8],
    /// OEM revision.
    pub oem_revision: u32,
    /// Id of the tool that made the tables.
    pub creator_id: [u8; 4],
    /// Its revision.
    pub creator_revision: u32,
}

impl Default for OemIds {
    fn default() -> Self {
        Self {
            oem_id: *b"TENON ",
            oem_table_id: *b"TENONVM ",
            oem_revision: 1,
            creator_id: *b"TNON",
            creator_revision: 1,
        }
    }
}

/// The machine as the tables describe it.
#[derive(Clone, Debug)]
pub struct Platform<'a> {
    /// Processors, the boot processor first. A processor's `_UID` is its index.
    pub cpus: &'a [CpuEntry],
    /// Guest RAM: no window may overlap it.
    pub ram: RamSplit,
    /// First port of the power-management block (PMBASE).
    pub pm_base: u16,
    /// Ports of general-purpose event block 0, if there is one.
    pub gpe0: Option<PortRange>,
    /// Whether the power-management timer counts 32 bits rather than 24.
    pub pm_timer_32bit: bool,
    /// GSI of the system control interrupt: level-triggered, active high.
    pub sci: u8,
    /// Whether the timer's IRQ 0 arrives at IOAPIC pin 2. KVM's default routing has it at pin 0.
    pub irq0_is_gsi2: bool,
    /// PCIEXBAR, if the firmware has enabled it.
    pub ecam: Option<Ecam>,
    /// I/O port windows of the host bridge.
    pub io_windows: &'a [PortRange],
    /// Memory windows of the host bridge below 4 GiB.
    pub mmio32: &'a [AddressRange],
    /// Memory windows of the host bridge above 4 GiB.
    pub mmio64: &'a [AddressRange],
    /// Further memory nobody may use, besides the ECAM window: flash, KVM's pages.
    pub reserved: &'a [AddressRange],
    /// Whether there is a keyboard controller.
    pub i8042: bool,
    /// Whether there is a 16550 at COM1.
    pub serial: bool,
    /// CMOS index of the century, 0 for none.
    pub century: u8,
    /// `_OSC` control bits granted to the operating system.
    pub osc_control: u32,
    /// Identity.
    pub oem: OemIds,
}

impl<'a> Platform<'a> {
    /// The usual machine: PM block at 0x600 without general-purpose events, SCI 9, no ECAM and no memory windows yet,
    /// COM1, no keyboard controller, KVM's default interrupt routing.
    #[must_use]
    pub fn new(cpus: &'a [CpuEntry], ram: RamSplit) -> Self {
        Self {
            cpus,
            ram,
            pm_base: 0x600,
            gpe0: None,
            pm_timer_32bit: true,
            sci: 9,
            irq0_is_gsi2: false,
            ecam: None,
            io_windows: &IO_WINDOWS,
            mmio32: &[],
            mmio64: &[],
            reserved: &[],
            i8042: false,
            serial: true,
            century: 0x32,
            osc_control: OSC_CONTROL,
            oem: OemIds::default(),
        }
    }

    fn check(&self) -> Result<(), AcpiError> {
        if self.cpus.is_empty() {
            return Err(AcpiError::NoCpus);
        }
        let low = |w: &AddressRange| w.end().is_some_and(|end| end <= 1 << 32);
        let high = |w: &AddressRange| w.base >= 1 << 32 && w.end().is_some();
        let mut taken = vec![("RAM", self.ram.low_range())];
        taken.extend(self.ram.high_range().map(|range| ("RAM", range)));
        taken.extend(self.ecam.map(|ecam| ("the ECAM window", ecam.range())));
        taken.extend(self.reserved.iter().map(|range| ("a reserved range", *range)));
        taken.push(("the interrupt controllers", fixed::INTERRUPT_CONTROLLERS));
        for (window, fits) in self
            .mmio32
            .iter()
            .map(|w| (w, low(w)))
            .chain(self.mmio64.iter().map(|w| (w, high(w))))
        {
            if window.size == 0 || !fits {
                return Err(AcpiError::BadWindow(*window));
            }
            if let Some((what, range)) = taken.iter().find(|(_, range)| range.overlaps(window)) {
                return Err(AcpiError::Overlap {
                    window: *window,
                    what,
                    range: *range,
                });
            }
            taken.push(("another window", *window));
        }
        match self
            .io_windows
            .iter()
            .find(|ports| ports.first > ports.last || (ports.first == 0 && ports.last == 0xffff))
        {
            Some(ports) => Err(AcpiError::BadPorts {
                first: ports.first,
                last: ports.last,
            }),
            None => Ok(()),
        }
    }
}

/// Why no tables can be built.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum AcpiError {
    /// There is no processor.
    #[error("the machine has no CPU: ask for at least one")]
    NoCpus,
    /// A memory window is empty or on the wrong side of 4 GiB.
    #[error("PCI memory window {0} is empty, or crosses 4 GiB: Windows stops with 0xA5 on such a window, leave it out")]
    BadWindow(AddressRange),
    /// A window covers something else.
    #[error("PCI memory window {window} overlaps {what} ({range}): shrink the window")]
    Overlap {
        /// The window.
        window: AddressRange,
        /// What it overlaps.
        what: &'static str,
        /// Where that is.
        range: AddressRange,
    },
    /// An I/O window is reversed or covers 0xCF8 by being everything.
    #[error("I/O window {first:#x}..={last:#x} is reversed or leaves no room for port 0xCF8")]
    BadPorts {
        /// First port.
        first: u16,
        /// Last port.
        last: u16,
    },
    /// More tables than room.
    #[error("the ACPI tables take {needed} bytes where {room} are set aside: give the machine fewer CPUs or windows")]
    TooLarge {
        /// Bytes needed.
        needed: usize,
        /// Bytes there are.
        room: usize,
    },
    /// Our own script is wrong.
    #[error("the table loader script does not work")]
    Loader(#[from] LoaderError),
}

/// The three fw_cfg files, made in one go. Their sizes never change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcpiTables {
    /// [`TABLES_FILE`], [`TABLES_SIZE`] bytes; zeros after the tables.
    pub tables: Vec<u8>,
    /// [`RSDP_FILE`], [`RSDP_SIZE`] bytes.
    pub rsdp: Vec<u8>,
    /// [`LOADER_FILE`], [`LOADER_SIZE`] bytes.
    pub loader: Vec<u8>,
    /// How much of `tables` is used.
    used: usize,
}

/// Tables at their addresses, for a kernel booted without firmware.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlacedTables {
    /// Address and contents of each piece of memory to write.
    pub pieces: Vec<(u64, Vec<u8>)>,
    /// Guest physical address of the RSDP.
    pub rsdp: u64,
}

impl AcpiTables {
    /// Builds the tables of `platform`.
    ///
    /// # Errors
    /// Input that would make tables an operating system refuses, or too many tables.
    pub fn build(platform: &Platform<'_>) -> Result<Self, AcpiError> {
        platform.check()?;
        let mut blob = Blob {
            oem: platform.oem,
            tables: Vec::new(),
            script: Vec::new(),
        };
        blob.script.push(allocate(RSDP_FILE, 16, Zone::FSegment));
        blob.script.push(allocate(TABLES_FILE, 64, Zone::High));

        let facs = blob.add_raw(&fixed::facs(), 64);
        let dsdt = blob.add(dsdt::build(platform));
        let fadt = blob.add_with_pointers(fixed::fadt(platform, facs, dsdt), &[(36, 4), (40, 4), (140, 8)]);
        let mut listed = vec![
            fadt,
            blob.add(fixed::madt(platform)),
            blob.add(fixed::waet(&platform.oem)),
        ];
        if let Some(ecam) = platform.ecam {
            listed.push(blob.add(fixed::mcfg(&platform.oem, ecam)));
        }
        let mut xsdt = XSDT::new(
            platform.oem.oem_id,
            platform.oem.oem_table_id,
            platform.oem.oem_revision,
        );
        listed.iter().for_each(|offset| xsdt.add_entry(u64::from(*offset)));
        let entries: Vec<_> = (0..listed.len()).map(|i| (36 + 8 * i, 8)).collect();
        let xsdt = blob.add_with_pointers(bytes_of(&xsdt), &entries);
        let rsdp = blob.rsdp(xsdt);

        let used = blob.tables.len();
        if used > TABLES_SIZE {
            return Err(AcpiError::TooLarge {
                needed: used,
                room: TABLES_SIZE,
            });
        }
        blob.tables.resize(TABLES_SIZE, 0);
        let loader = table_loader::write(&blob.script, LOADER_SIZE)?;
        debug_assert_eq!(loader.len(), LOADER_SIZE);
        Ok(Self {
            tables: blob.tables,
            rsdp,
            loader,
            used,
        })
    }

    /// Three files of the right sizes that describe nothing, to stand in the directory until the firmware asks.
    #[must_use]
    pub fn placeholder() -> Self {
        Self {
            tables: vec![0; TABLES_SIZE],
            rsdp: vec![0; RSDP_SIZE],
            loader: vec![0; LOADER_SIZE],
            used: 0,
        }
    }

    /// The fw_cfg files by name.
    #[must_use]
    pub fn files(&self) -> [(&'static str, &[u8]); 3] {
        [
            (TABLES_FILE, &self.tables),
            (RSDP_FILE, &self.rsdp),
            (LOADER_FILE, &self.loader),
        ]
    }

    /// Runs our own script to put the tables into the BIOS segments ([`KERNEL_TABLES`]), for a kernel booted without
    /// firmware.
    ///
    /// # Errors
    /// [`AcpiError::TooLarge`] when they do not fit there.
    pub fn place_for_kernel(&self) -> Result<PlacedTables, AcpiError> {
        // The RSDP takes the first 64 bytes, the tables what follows; the padding stays out.
        let head = 64;
        let room = KERNEL_TABLES.size - head;
        if self.used as u64 > room {
            return Err(AcpiError::TooLarge {
                needed: self.used,
                room: room as usize,
            });
        }
        let zones = Zones {
            f_segment: AddressRange::new(KERNEL_TABLES.base, head),
            high: AddressRange::new(KERNEL_TABLES.base + head, room),
        };
        let files = BTreeMap::from([(RSDP_FILE, &self.rsdp[..]), (TABLES_FILE, &self.tables[..self.used])]);
        let done = table_loader::replay(&self.loader, &files, &zones)?;
        let pieces = done.blobs.into_iter().map(|blob| (blob.address, blob.bytes)).collect();
        Ok(PlacedTables {
            pieces,
            rsdp: KERNEL_TABLES.base,
        })
    }
}

/// The tables as they are laid out, and the script that grows with them.
struct Blob {
    oem: OemIds,
    tables: Vec<u8>,
    script: Vec<Command>,
}

impl Blob {
    /// Appends bytes as they are; returns their offset.
    fn add_raw(&mut self, table: &[u8], align: usize) -> u32 {
        let offset = self.tables.len().next_multiple_of(align);
        self.tables.resize(offset, 0);
        self.tables.extend_from_slice(table);
        offset as u32
    }

    /// Appends a table complete with its checksum.
    fn add(&mut self, mut table: Vec<u8>) -> u32 {
        self.sign(&mut table);
        table[9] = crate::checksum(&table);
        self.add_raw(&table, 16)
    }

    /// Appends a table with fields (offset, width) that hold offsets into the blob: the loader makes them addresses,
    /// and sums up after that.
    fn add_with_pointers(&mut self, mut table: Vec<u8>, fields: &[(usize, u8)]) -> u32 {
        self.sign(&mut table);
        let start = self.add_raw(&table, 16);
        for (field, size) in fields {
            self.script.push(pointer(TABLES_FILE, start + *field as u32, *size));
        }
        self.script.push(sum(TABLES_FILE, start + 9, start, table.len() as u32));
        start
    }

    /// Replaces the crate's creator fields (ACPI 6.5 table 5.4, offsets 28 and 32) and clears the checksum.
    fn sign(&self, table: &mut [u8]) {
        table[9] = 0;
        table[28..32].copy_from_slice(&self.oem.creator_id);
        table[32..36].copy_from_slice(&self.oem.creator_revision.to_le_bytes());
    }

    fn rsdp(&mut self, xsdt: u32) -> Vec<u8> {
        let mut rsdp = bytes_of(&Rsdp::new(self.oem.oem_id, u64::from(xsdt)));
        // Checksum of the first 20 bytes and of all (ACPI 6.5 table 5.3): the loader's, once the pointer is right.
        (rsdp[8], rsdp[32]) = (0, 0);
        self.script.push(pointer(RSDP_FILE, 24, 8));
        self.script.push(sum(RSDP_FILE, 8, 0, 20));
        self.script.push(sum(RSDP_FILE, 32, 0, RSDP_SIZE as u32));
        rsdp
    }
}

fn allocate(file: &str, align: u32, zone: Zone) -> Command {
    Command::Allocate {
        file: file.to_owned(),
        align,
        zone,
    }
}

fn pointer(file: &str, offset: u32, size: u8) -> Command {
    Command::AddPointer {
        pointer: file.to_owned(),
        pointee: TABLES_FILE.to_owned(),
        offset,
        size,
    }
}

fn sum(file: &str, result: u32, start: u32, length: u32) -> Command {
    Command::AddChecksum {
        file: file.to_owned(),
        result,
        start,
        length,
    }
}

fn bytes_of(table: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    table.to_aml_bytes(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests;
