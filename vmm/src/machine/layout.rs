//! Every guest address and line that the board wires, in one table.
//!
//! | what | where |
//! |---|---|
//! | host bridge | 00:00.0 |
//! | root ports, one a host slot of assigned functions | 00:01.0 .. 00:0f.0 |
//! | disks | 00:10.0 .. 00:1e.0 |
//! | LPC bridge | 00:1f.0 |
//! | RAM | 0 .. at most 2 GiB, and from 4 GiB |
//! | 32-bit PCI windows | between low RAM and [`PCI32_END`], less the ECAM window |
//! | KVM's own pages | 0xFEFFC000, 16 KiB |
//! | flash | below 4 GiB |
//! | GSI 4, 8, 9 | COM1, RTC, SCI |
//! | GSI 16 .. 19 | INTx |

use devices::pci::Slot;
use firmware::AddressRange;

/// The host bridge, which OVMF knows the machine by.
pub const HOST_BRIDGE: Slot = Slot::new(0, 0);
/// The LPC bridge (ICH9).
pub const LPC: Slot = Slot::new(0x1f, 0);
/// Device number of the first root port.
pub const FIRST_PORT: u8 = 0x01;
/// Device numbers for root ports.
pub const PORTS: u8 = 15;
/// Device number of the first disk.
pub const FIRST_DISK: u8 = 0x10;
/// Device numbers for disks.
pub const DISKS: u8 = 15;

/// System control interrupt of ACPI.
pub const SCI_GSI: u32 = 9;
/// The real-time clock's interrupt.
pub const RTC_GSI: u32 = 8;

/// End of what PCI may use below 4 GiB; above are IOAPIC, LAPIC, KVM's pages and the flash.
pub const PCI32_END: u64 = 0xfc00_0000;
/// Below this lies no flash: the largest is 8 MiB.
pub const FLASH_FLOOR: u64 = (1 << 32) - (8 << 20);
/// IOAPIC, LAPIC and KVM's pages: memory no PCI device may claim.
pub const CHIPSET: AddressRange = AddressRange::new(0xfec0_0000, FLASH_FLOOR - 0xfec0_0000);
/// Where a kernel booted without firmware finds the ECAM window; OVMF programs its own choice.
pub const DIRECT_ECAM: u64 = 0xe000_0000;
/// Its size: 256 buses of 1 MiB.
pub const DIRECT_ECAM_SIZE: u64 = 256 << 20;
