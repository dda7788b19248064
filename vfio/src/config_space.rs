//! The guest's view of config space: a mask says which bits are ours, the rest are the device's.
//!
//! The kernel filters what goes to the device, so the rule is to pass everything on but what must differ in a guest:
//! BARs and ROM (the guest's addresses), the capability chains (rebuilt), MSI and MSI-X (the kernel programs the
//! device's, we keep the guest's), the multifunction bit (the guest's slot is not the host's), the interrupt line, and
//! what a function must show to sit behind a root port.
//!
//! Section numbers are of the PCI Express Base Specification 6.0.

use devices::pci::{Bar, BarKind, ByteEnables, spec};

use crate::discover::{Capability, Config, EXT_ARI, EXT_SRIOV, Layout, port_type};

/// Bits of COMMAND a guest can set: I/O, memory, master, parity, SERR#, INTx disable (§7.5.1.1.3).
const COMMAND_WRITABLE: u16 = 0x0547;
/// MSI control: enable and multiple message enable (§7.7.1.2).
const MSI_CONTROL_WRITABLE: u16 = 0x0071;
/// MSI-X control: enable and function mask (§7.7.2.2).
const MSIX_CONTROL_WRITABLE: u16 = 0xc000;

/// What the caller decides about a function's config space.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct View {
    /// The guest's slot has more functions.
    pub multifunction: bool,
    /// INTx is wired up; without it the function shows no interrupt pin.
    pub intx: bool,
    /// Bytes of the ROM BAR; 0 for none.
    pub rom: u64,
}

/// Config space as the guest sees it.
#[derive(Debug, Clone)]
pub(crate) struct ConfigSpace {
    size: u16,
    /// Our bits.
    shadow: Vec<u8>,
    /// Bits that are read from `shadow`.
    emulated: Vec<u8>,
    /// Bits of `shadow` that the guest's writes change.
    writable: Vec<u8>,
    /// Bytes whose writes do not reach the device.
    kept: Vec<bool>,
    power_on: Vec<u8>,
    bars: [Option<Bar>; 6],
}

impl ConfigSpace {
    /// The view of a function whose config space holds `config`.
    pub(crate) fn new(config: Config<'_>, layout: &Layout, bars: [Option<Bar>; 6], view: View) -> Self {
        let len = usize::from(layout.size);
        let mut space = Self {
            size: layout.size,
            shadow: vec![0; len],
            emulated: vec![0; len],
            writable: vec![0; len],
            kept: vec![false; len],
            power_on: Vec::new(),
            bars,
        };
        space.header(layout, view);
        space.standard_chain(config, layout);
        space.extended_chain(layout);
        space.power_on = space.shadow.clone();
        space
    }

    fn header(&mut self, layout: &Layout, view: View) {
        // COMMAND reaches the device too, so its bytes are not kept; only the memory bit is read from here (`device.rs`
        // says why).
        self.put(spec::COMMAND, &[0; 2], &spec::COMMAND_MEMORY.to_le_bytes());
        self.allow(spec::COMMAND, &COMMAND_WRITABLE.to_le_bytes());
        let multifunction = if view.multifunction {
            spec::HEADER_MULTIFUNCTION
        } else {
            0
        };
        self.own(spec::HEADER_TYPE, &[multifunction]);
        self.own(spec::BAR0, &[0; 24]);
        for (index, bar) in (0u16..).zip(self.bars) {
            if let Some(bar) = bar {
                self.bar(spec::BAR0 + 4 * index, bar);
            }
        }
        self.own(spec::ROM_BAR, &[0; 4]);
        if let Some(mask) = view.rom.checked_sub(1) {
            // Address bits from 11 up, and the enable bit.
            let mask = !u32::try_from(mask).unwrap_or(u32::MAX) & 0xffff_f800;
            self.allow(spec::ROM_BAR, &(mask | spec::ROM_ENABLE).to_le_bytes());
        }
        // The line is a note of the firmware to the operating system: the host's is of no use.
        self.own(spec::INTERRUPT_LINE, &[0]);
        self.allow(spec::INTERRUPT_LINE, &[0xff]);
        self.own(spec::INTERRUPT_PIN, &[if view.intx { layout.interrupt_pin } else { 0 }]);
    }

    fn bar(&mut self, register: u16, bar: Bar) {
        let prefetch = |flag: bool| if flag { spec::BAR_PREFETCH } else { 0 };
        let (flags, fixed) = match bar.kind {
            BarKind::Io => (spec::BAR_IO, 0x3),
            BarKind::Memory32 { prefetch: flag } => (prefetch(flag), 0xf),
            BarKind::Memory64 { prefetch: flag } => (spec::BAR_MEMORY_64 | prefetch(flag), 0xf),
        };
        // Addresses start out as 0, not as the host's: those would leak, and mean nothing here.
        self.put(register, &flags.to_le_bytes(), &[]);
        let [a, b, c, d, high @ ..] = (!(bar.size - 1) & !fixed).to_le_bytes();
        self.allow(register, &[a, b, c, d]);
        if matches!(bar.kind, BarKind::Memory64 { .. }) {
            self.allow(register + 4, &high);
        }
    }

    /// The chain of the capabilities that are understood, in the device's order and places.
    fn standard_chain(&mut self, config: Config<'_>, layout: &Layout) {
        let shown: Vec<&Capability> = layout
            .standard
            .iter()
            .filter(|capability| shown(capability, config, layout))
            .collect();
        let status = if shown.is_empty() { 0 } else { spec::STATUS_CAPABILITIES };
        self.put(
            spec::STATUS,
            &status.to_le_bytes(),
            &spec::STATUS_CAPABILITIES.to_le_bytes(),
        );
        self.own(
            spec::CAPABILITIES,
            &[shown.first().map_or(0, |first| low_byte(first.offset))],
        );
        for (position, capability) in shown.iter().enumerate() {
            let next = shown.get(position + 1).map_or(0, |next| low_byte(next.offset));
            self.own(capability.offset, &[low_byte(capability.id), next]);
        }
        if let Some(msi) = layout.msi {
            let rest = vec![0; usize::from(msi.length() - 4)];
            self.own(msi.offset + 2, &msi.control.to_le_bytes());
            self.own(msi.offset + 4, &rest);
            self.allow(msi.offset + 2, &MSI_CONTROL_WRITABLE.to_le_bytes());
            self.allow(msi.offset + 4, &[0xfc, 0xff, 0xff, 0xff]);
            if msi.wide() {
                self.allow(msi.offset + 8, &[0xff; 4]);
            }
            self.allow(msi.offset + msi.data(), &[0xff; 2]);
            if msi.maskable() {
                let vectors = u32::MAX >> (32 - u32::from(msi.vectors()));
                self.allow(msi.offset + msi.data() + 4, &vectors.to_le_bytes());
            }
        }
        if let Some(msix) = layout.msix {
            self.own(msix.offset + 2, &(msix.vectors - 1).to_le_bytes());
            self.allow(msix.offset + 2, &MSIX_CONTROL_WRITABLE.to_le_bytes());
            self.own(msix.offset + 4, &config.u32(msix.offset + 4).to_le_bytes());
            self.own(msix.offset + 8, &config.u32(msix.offset + 8).to_le_bytes());
        }
        self.express(config, layout);
    }

    /// Fits the PCI Express capability to a place behind a root port (§7.5.3).
    fn express(&mut self, config: Config<'_>, layout: &Layout) {
        let Some(express) = layout.express else { return };
        let integrated = express.port_type == port_type::INTEGRATED_ENDPOINT;
        let kind = if integrated {
            port_type::ENDPOINT
        } else {
            express.port_type
        };
        // Version 0 is that of devices made before the specification settled; Windows refuses it.
        let version = express.version.max(1);
        let flags = version | kind << 4;
        self.own(express.offset + 2, &[flags]);
        if integrated {
            // An endpoint below a port has a link; an integrated one has none, and its link registers read as zero:
            // one lane at 2.5 GT/s is the least there is (§7.5.3.6–8, and §7.5.3.18–20 for version 2).
            let bits = |value: u32| value.to_le_bytes();
            self.own(
                express.offset + 0x0c,
                &bits(config.u32(express.offset + 0x0c) & 0xff00_0000 | 0x11),
            );
            self.own(express.offset + 0x10, &bits(0x0011_0000));
            if version >= 2 {
                self.own(express.offset + 0x2c, &bits(0x2));
                self.own(express.offset + 0x30, &bits(0x1));
            }
        }
    }

    fn extended_chain(&mut self, layout: &Layout) {
        // Hidden ones read as nothing and take nothing: a driver that knows the place must not find them either.
        for hidden in layout.hidden_extended() {
            let size = match hidden.id {
                EXT_ARI => 8,
                EXT_SRIOV => 64,
                0 => 4,
                // Resizable BAR: a header and 8 bytes for each of up to 6 BARs (§7.8.6).
                _ => 52,
            };
            self.own(hidden.offset, &vec![0; usize::from(size.min(hidden.room))]);
        }
        let shown: Vec<&Capability> = layout.visible_extended().collect();
        let places = shown.iter().map(|capability| capability.offset).skip(1).chain([0]);
        for (capability, next) in shown.iter().zip(places) {
            let header = u32::from(capability.id) | u32::from(capability.version) << 16 | u32::from(next) << 20;
            self.own(capability.offset, &header.to_le_bytes());
        }
        // The chain always begins at 0x100; where the first one is hidden a null capability leads on (§7.9.28).
        if let Some(first) = shown.first()
            && first.offset != spec::EXTENDED_CAPABILITIES
        {
            self.own(
                spec::EXTENDED_CAPABILITIES,
                &(u32::from(first.offset) << 20).to_le_bytes(),
            );
        }
    }

    /// Sets bits of the shadow, of which those in `mask` are what the guest reads.
    fn put(&mut self, offset: u16, bytes: &[u8], mask: &[u8]) {
        copy(&mut self.shadow, offset, bytes);
        copy(&mut self.emulated, offset, mask);
    }

    /// Takes bytes over: read from the shadow, and writes stay here.
    fn own(&mut self, offset: u16, bytes: &[u8]) {
        self.put(offset, bytes, &vec![0xff; bytes.len()]);
        copy(&mut self.kept, offset, &vec![true; bytes.len()]);
    }

    fn allow(&mut self, offset: u16, mask: &[u8]) {
        copy(&mut self.writable, offset, mask);
    }

    /// What the guest reads at `register`, asking the device only for what is the device's.
    pub(crate) fn read(&self, register: u16, device: impl FnOnce() -> u32) -> u32 {
        if register >= self.size {
            return u32::MAX;
        }
        let ours = Config(&self.emulated).u32(register);
        let shadow = Config(&self.shadow).u32(register) & ours;
        if ours == u32::MAX {
            shadow
        } else {
            shadow | device() & !ours
        }
    }

    /// Takes a write into the shadow and says which bytes of it go on to the device.
    pub(crate) fn write(&mut self, register: u16, value: u32, enables: ByteEnables) -> [bool; 4] {
        let mut forward = [false; 4];
        for (index, (new, forward)) in value.to_le_bytes().into_iter().zip(&mut forward).enumerate() {
            let at = usize::from(register) + index;
            let (Some(byte), Some(writable), Some(kept)) =
                (self.shadow.get_mut(at), self.writable.get(at), self.kept.get(at))
            else {
                break;
            };
            if enables.has(index) {
                *byte = *byte & !writable | new & writable;
                *forward = !kept;
            }
        }
        forward
    }

    /// Back to power-on.
    pub(crate) fn reset(&mut self) {
        self.shadow.copy_from_slice(&self.power_on);
    }

    /// Our bytes.
    pub(crate) fn shadow(&self) -> Config<'_> {
        Config(&self.shadow)
    }

    /// COMMAND as the guest wrote it.
    pub(crate) fn command(&self) -> u16 {
        self.shadow().u16(spec::COMMAND)
    }

    /// The address in BAR `index`.
    pub(crate) fn bar_address(&self, index: u32) -> u64 {
        let register = spec::BAR0 + 4 * u16::try_from(index).unwrap_or(0);
        let low = u64::from(self.shadow().u32(register));
        match self.bars.get(index as usize).copied().flatten().map(|bar| bar.kind) {
            Some(BarKind::Io) => low & !0x3,
            Some(BarKind::Memory64 { .. }) => u64::from(self.shadow().u32(register + 4)) << 32 | low & !0xf,
            _ => low & !0xf,
        }
    }

    /// The address in the ROM BAR while ROM decode is on.
    pub(crate) fn rom_address(&self) -> Option<u64> {
        let value = self.shadow().u32(spec::ROM_BAR);
        (value & spec::ROM_ENABLE != 0).then_some(u64::from(value & 0xffff_f800))
    }
}

/// MSI, MSI-X, power management and PCI Express are shown only where they made sense: a second one, or one cut off by
/// its neighbour, would be the device's own behind our back.
fn shown(capability: &Capability, config: Config<'_>, layout: &Layout) -> bool {
    let at = Some(capability.offset);
    match low_byte(capability.id) {
        spec::CAP_MSI => at == layout.msi.map(|msi| msi.offset),
        spec::CAP_MSIX => at == layout.msix.map(|msix| msix.offset),
        spec::CAP_PM => at == layout.power.map(|power| power.offset),
        spec::CAP_EXPRESS => layout.express.is_some_and(|express| {
            // Link registers need room up to 0x14, or 0x34 in version 2 (§7.5.3).
            let wanted = if express.version >= 2 { 0x34 } else { 0x14 };
            let fits = express.port_type != port_type::INTEGRATED_ENDPOINT || capability.room >= wanted;
            at == Some(express.offset) && fits && !config.is_empty()
        }),
        _ => true,
    }
}

fn low_byte(value: u16) -> u8 {
    value.to_le_bytes()[0]
}

fn copy<T: Copy>(target: &mut [T], offset: u16, source: &[T]) {
    let at = usize::from(offset);
    for (byte, new) in target.iter_mut().skip(at).zip(source) {
        *byte = *new;
    }
}

#[cfg(test)]
mod tests;
