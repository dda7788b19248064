//! ACPI as the board is wired now: built when the firmware first asks, from what it has programmed by then.

use std::sync::Arc;

use devices::chipset::lpc::{DEFAULT_PM_BASE, LpcBridge};
use devices::pci::{HostBridge, PciTopology, RootPort};
use devices::{Region, Space};
use firmware::acpi::{AcpiError, AcpiTables, CpuEntry, Ecam, OemIds, Platform};
use firmware::e820::KVM_PAGES;
use firmware::{AddressRange, RamSplit, mmio64};

use super::layout::PCI32_END;

/// What ACPI describes, kept to be described again after each reset.
#[derive(Debug, Clone)]
pub struct Description {
    /// Number of vCPUs; APIC ids count from 0.
    pub cpus: u8,
    /// Guest RAM.
    pub ram: RamSplit,
    /// Identity in the table headers.
    pub oem: OemIds,
    /// The flash, if there is one.
    pub flash: Option<AddressRange>,
    /// Where the firmware may have opened its 64-bit window, most likely first.
    pub predicted: Vec<AddressRange>,
    /// The functions and what they decode.
    pub topology: Arc<PciTopology>,
    /// Holds the ECAM base.
    pub host_bridge: Arc<HostBridge>,
    /// Holds the PM base.
    pub lpc: Arc<LpcBridge>,
    /// The ports' windows.
    pub ports: Vec<Arc<RootPort>>,
}

impl Description {
    /// The tables for what is programmed now.
    ///
    /// # Errors
    /// The guest has programmed something no table can describe, such as an ECAM window over its RAM.
    pub fn build(&self) -> Result<AcpiTables, AcpiError> {
        let cpus: Vec<_> = (0..u32::from(self.cpus)).map(|apic_id| CpuEntry { apic_id }).collect();
        let ecam = self.host_bridge.ecam();
        let (mmio32, mmio64) = (windows_below_4g(&self.ram, ecam), self.window_above_4g());
        let mut reserved = vec![KVM_PAGES];
        reserved.extend(self.flash);
        let mut platform = Platform::new(&cpus, self.ram);
        platform.pm_base = self.lpc.pm_base().unwrap_or(DEFAULT_PM_BASE);
        platform.ecam = ecam.map(|(base, size)| Ecam {
            base,
            buses: u16::try_from(size >> 20).unwrap_or(256),
        });
        // The fabric routes the timer's line to IOAPIC input 2, where every PC has it.
        platform.irq0_is_gsi2 = true;
        platform.i8042 = false;
        platform.mmio32 = &mmio32;
        platform.mmio64 = &mmio64;
        platform.reserved = &reserved;
        platform.oem = self.oem;
        tracing::debug!(?ecam, ?mmio32, ?mmio64, "describing the machine to the firmware");
        AcpiTables::build(&platform)
    }

    fn window_above_4g(&self) -> Vec<AddressRange> {
        let is_memory = |region: &Region| region.space == Space::Memory;
        let mut seen: Vec<_> = self
            .topology
            .regions()
            .iter()
            .filter(|r| is_memory(r))
            .map(|r| AddressRange::new(r.base, r.size))
            .collect();
        for port in &self.ports {
            let window = port.prefetchable_window();
            seen.extend(window.map(|w| AddressRange::new(w.base, w.last.saturating_sub(w.base).saturating_add(1))));
        }
        // A closed window has its limit below its base and comes out as one byte: not what the firmware placed there.
        seen.retain(|range| range.size >= 4096);
        mmio64::published(&seen, &self.predicted, self.ram.top())
            .into_iter()
            .collect()
    }

    /// The tables as fw_cfg files, in the order of [`AcpiTables::files`].
    #[must_use]
    pub fn files(&self) -> Vec<Vec<u8>> {
        let tables = self.build().unwrap_or_else(|error| {
            tracing::warn!(%error, "the firmware gets no ACPI tables: it has programmed what none can describe");
            AcpiTables::placeholder()
        });
        tables.files().into_iter().map(|(_, bytes)| bytes.to_vec()).collect()
    }
}

/// The 32-bit hole less the ECAM window, wherever this firmware put that: OVMF of 2022 has it at 0xB0000000 with BARs above it,
/// later ones at 0xE0000000 with BARs below.
fn windows_below_4g(ram: &RamSplit, ecam: Option<(u64, u64)>) -> Vec<AddressRange> {
    let start = ram.mmio32_below(PCI32_END).base;
    let (hole, end) = ecam.map_or((PCI32_END, PCI32_END), |(base, size)| (base, base.saturating_add(size)));
    let below = AddressRange::new(start, hole.clamp(start, PCI32_END) - start);
    let above_start = end.clamp(start, PCI32_END);
    let above = AddressRange::new(above_start, PCI32_END - above_start);
    [below, above].into_iter().filter(|window| window.size > 0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;
    const ECAM_SIZE: u64 = 256 << 20;

    fn windows(ram: u64, ecam: Option<u64>) -> Vec<(u64, u64)> {
        let found = windows_below_4g(&RamSplit::new(ram), ecam.map(|base| (base, ECAM_SIZE)));
        found
            .iter()
            .map(|window| (window.base, window.base + window.size))
            .collect()
    }

    #[test]
    fn both_generations_of_ovmf_find_their_bars_in_a_window() {
        assert_eq!(
            windows(8 * GIB, Some(0xe000_0000)),
            [(0x8000_0000, 0xe000_0000), (0xf000_0000, PCI32_END)]
        );
        assert_eq!(
            windows(8 * GIB, Some(0xb000_0000)),
            [(0x8000_0000, 0xb000_0000), (0xc000_0000, PCI32_END)]
        );
    }

    #[test]
    fn an_ecam_window_elsewhere_costs_nothing_and_one_over_everything_leaves_nothing() {
        assert_eq!(windows(GIB, None), [(0x8000_0000, PCI32_END)]);
        assert_eq!(windows(GIB, Some(0x40_0000_0000)), [(0x8000_0000, PCI32_END)]);
        assert_eq!(windows(GIB, Some(0x7800_0000)), [(0x8800_0000, PCI32_END)]);
        assert_eq!(windows_below_4g(&RamSplit::new(GIB), Some((0, 4 * GIB))), []);
    }
}
