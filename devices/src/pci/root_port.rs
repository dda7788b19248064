//! A PCI Express root port: the bridge behind which assigned devices sit. Its own registers only; who is behind it is the topology's.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use super::express::{self, Link};
use super::port_capabilities::{self as capabilities, PM_CONTROL, PM_STATE};
use super::spec::{COMMAND, COMMAND_IO, COMMAND_MEMORY, HEADER_BRIDGE};
use super::{ByteEnables, ConfigSpace, Identity, PciFunction};
use crate::lock::lock;
use crate::{Effect, Region, Space};

// The type 1 header (PCIe 6.0 §7.5.1.3).
const PRIMARY_BUS: u16 = 0x18;
const SECONDARY_BUS: u16 = 0x19;
const SUBORDINATE_BUS: u16 = 0x1a;
const IO_BASE: u16 = 0x1c;
const IO_LIMIT: u16 = 0x1d;
const MEMORY_BASE: u16 = 0x20;
const MEMORY_LIMIT: u16 = 0x22;
const PREFETCHABLE_BASE: u16 = 0x24;
const PREFETCHABLE_LIMIT: u16 = 0x26;
const PREFETCHABLE_BASE_UPPER: u16 = 0x28;
const PREFETCHABLE_LIMIT_UPPER: u16 = 0x2c;
const BRIDGE_CONTROL: u16 = 0x3e;

/// I/O base and limit: bits 15:12 of the address; 16-bit addressing (§7.5.1.3.6).
const IO_WRITABLE: u8 = 0xf0;
/// Memory base and limit: bits 31:20 of the address (§7.5.1.3.8).
const MEMORY_WRITABLE: u16 = 0xfff0;
/// Prefetchable base and limit: the window takes 64-bit addresses (§7.5.1.3.9). Without it no BAR goes above 4 GiB.
const PREFETCHABLE_64: u16 = 0x0001;
/// Secondary Status: the bits that record errors (§7.5.1.3.7).
const SECONDARY_STATUS: u16 = 0x1e;
const SECONDARY_STATUS_CLEARABLE: u16 = 0xf900;
/// Bridge Control: the secondary bus is held in reset (§7.5.1.3.13).
const SECONDARY_BUS_RESET: u16 = 1 << 6;
/// Bridge Control: parity, SERR#, secondary bus reset. VGA forwarding is hard-wired to zero: nothing here decodes legacy VGA.
const BRIDGE_CONTROL_WRITABLE: u16 = 0x0003 | SECONDARY_BUS_RESET;

/// What a root port is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RootPortConfig {
    /// Vendor ID.
    pub vendor: u16,
    /// Device ID.
    pub device: u16,
    /// Revision ID.
    pub revision: u8,
    /// Number of the port, different for each port of the machine.
    pub port: u8,
    /// Number of the slot below it, or none for a device that is soldered in. A slot is never hot-pluggable.
    pub slot: Option<u16>,
    /// The link it reports.
    pub link: Link,
    /// Whether it can forward I/O. Each window takes 4 KiB of the 64 KiB there are, so only where a device has I/O BARs.
    pub io_window: bool,
    /// Whether it has Advanced Error Reporting.
    pub aer: bool,
}

impl Default for RootPortConfig {
    /// The generic port of the Red Hat ID space, which every operating system drives by its class.
    fn default() -> Self {
        Self {
            vendor: 0x1b36,
            device: 0x000c,
            revision: 0,
            port: 0,
            slot: None,
            link: Link::default(),
            io_window: false,
            aer: false,
        }
    }
}

/// The bus numbers the guest gave a port; all zero until it did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BusNumbers {
    /// The bus the port is on.
    pub primary: u8,
    /// The bus below the port.
    pub secondary: u8,
    /// The highest bus below the port.
    pub subordinate: u8,
}

/// An address range that a port may forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// First address.
    pub base: u64,
    /// Last address.
    pub last: u64,
}

impl Window {
    fn new(base: u64, last: u64) -> Option<Self> {
        (base <= last).then_some(Self { base, last })
    }

    /// Whether all `size` bytes from `base` on are inside.
    pub fn contains(&self, base: u64, size: u64) -> bool {
        let Some(last) = size.checked_sub(1).and_then(|more| base.checked_add(more)) else {
            return false;
        };
        self.base <= base && last <= self.last
    }
}

/// What a port forwards at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Forwarding {
    io: Option<Window>,
    memory: Option<Window>,
    prefetchable: Option<Window>,
}

impl Forwarding {
    /// Whether an access anywhere in `region` reaches the other side.
    pub(super) fn passes(&self, region: &Region) -> bool {
        let windows = match region.space {
            Space::Port => [self.io, None],
            Space::Memory => [self.memory, self.prefetchable],
        };
        windows
            .iter()
            .flatten()
            .any(|window| window.contains(region.base, region.size))
    }
}

/// What a config write did to a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PortWrite {
    /// For the machine.
    pub(super) effect: Effect,
    /// The link went down: everything behind the port is to be reset (PCIe 6.0 §6.6.1).
    pub(super) link_lost: bool,
}

/// A root port.
#[derive(Debug)]
pub struct RootPort {
    space: Mutex<ConfigSpace>,
    io_window: bool,
    express: u16,
    power_management: u16,
    populated: AtomicBool,
}

impl RootPort {
    /// A port as at power-on, with nothing behind it.
    pub fn new(config: &RootPortConfig) -> Self {
        let mut space = ConfigSpace::new(&Identity {
            vendor: config.vendor,
            device: config.device,
            class: 0x06_04_00,
            revision: config.revision,
            header_type: HEADER_BRIDGE,
            interrupt_pin: 1,
            ..Identity::default()
        });
        add_header(&mut space, config.io_window);
        let power_management = capabilities::add_power_management(&mut space);
        let express = express::add(&mut space, config.link, config.slot, config.port);
        capabilities::add_msi(&mut space);
        if config.aer {
            capabilities::add_aer(&mut space);
        }
        capabilities::add_acs(&mut space);
        space.seal();
        Self {
            space: Mutex::new(space),
            io_window: config.io_window,
            express,
            power_management,
            populated: AtomicBool::new(false),
        }
    }

    /// The bus numbers as the guest programmed them.
    pub fn bus_numbers(&self) -> BusNumbers {
        let space = lock(&self.space);
        BusNumbers {
            primary: space.get_u8(PRIMARY_BUS),
            secondary: space.get_u8(SECONDARY_BUS),
            subordinate: space.get_u8(SUBORDINATE_BUS),
        }
    }

    /// The I/O window as programmed, enabled or not. `None` if closed (base above limit) or not implemented.
    pub fn io_window(&self) -> Option<Window> {
        self.io(&lock(&self.space))
    }

    /// The 32-bit memory window as programmed, enabled or not. `None` if closed.
    pub fn memory_window(&self) -> Option<Window> {
        memory(&lock(&self.space))
    }

    /// The prefetchable window as programmed, enabled or not. `None` if closed.
    pub fn prefetchable_window(&self) -> Option<Window> {
        prefetchable(&lock(&self.space))
    }

    /// Something sits behind the port: its link is up.
    pub(super) fn populate(&self) {
        self.populated.store(true, Ordering::Relaxed);
    }

    /// Whether config accesses reach what is behind the port.
    pub(super) fn link_up(&self) -> bool {
        self.is_link_up(&lock(&self.space))
    }

    /// What the port forwards now.
    pub(super) fn forwarding(&self) -> Forwarding {
        self.current_forwarding(&lock(&self.space))
    }

    /// A config write, with what it means to the functions behind the port.
    pub(super) fn write(&self, register: u16, value: u32, enables: ByteEnables) -> PortWrite {
        let mut space = lock(&self.space);
        let forwarding = self.current_forwarding(&space);
        let link_up = self.is_link_up(&space);
        let state = space.get_u8(self.power_management + PM_CONTROL);
        space.write(register, value, enables);
        self.keep_power_state(&mut space, state);
        let link_lost = link_up && !self.is_link_up(&space);
        let moved = forwarding != self.current_forwarding(&space);
        PortWrite {
            effect: if link_lost || moved {
                Effect::Relayout
            } else {
                Effect::None
            },
            link_lost,
        }
    }

    /// D1 and D2 are not implemented; a write that asks for them is discarded (PCI-PM 1.2 §3.2.4).
    fn keep_power_state(&self, space: &mut ConfigSpace, before: u8) {
        let now = space.get_u8(self.power_management + PM_CONTROL);
        if matches!(now & PM_STATE, 1 | 2) {
            let kept = now & !PM_STATE | before & PM_STATE;
            space.set(self.power_management + PM_CONTROL, &[kept]);
        }
    }

    fn is_link_up(&self, space: &ConfigSpace) -> bool {
        let disabled = space.read(self.express + express::LINK_CONTROL) & express::LINK_DISABLE != 0;
        let in_reset = space.get_u16(BRIDGE_CONTROL) & SECONDARY_BUS_RESET != 0;
        self.populated.load(Ordering::Relaxed) && !disabled && !in_reset
    }

    fn current_forwarding(&self, space: &ConfigSpace) -> Forwarding {
        let command = space.get_u16(COMMAND);
        let in_d0 = space.get_u8(self.power_management + PM_CONTROL) & PM_STATE == 0;
        let up = in_d0 && self.is_link_up(space);
        let by_memory = up && command & COMMAND_MEMORY != 0;
        Forwarding {
            io: self.io(space).filter(|_| up && command & COMMAND_IO != 0),
            memory: memory(space).filter(|_| by_memory),
            prefetchable: prefetchable(space).filter(|_| by_memory),
        }
    }

    fn io(&self, space: &ConfigSpace) -> Option<Window> {
        let address = |register| u64::from(space.get_u8(register) & IO_WRITABLE) << 8;
        Window::new(address(IO_BASE), address(IO_LIMIT) | 0xfff).filter(|_| self.io_window)
    }
}

fn add_header(space: &mut ConfigSpace, io_window: bool) {
    space.allow(PRIMARY_BUS, &[0xff, 0xff, 0xff]);
    if io_window {
        space.allow(IO_BASE, &[IO_WRITABLE, IO_WRITABLE]);
    }
    space.allow_clear(SECONDARY_STATUS, &SECONDARY_STATUS_CLEARABLE.to_le_bytes());
    for register in [MEMORY_BASE, MEMORY_LIMIT, PREFETCHABLE_BASE, PREFETCHABLE_LIMIT] {
        space.allow(register, &MEMORY_WRITABLE.to_le_bytes());
    }
    for register in [PREFETCHABLE_BASE, PREFETCHABLE_LIMIT] {
        space.set(register, &PREFETCHABLE_64.to_le_bytes());
    }
    for register in [PREFETCHABLE_BASE_UPPER, PREFETCHABLE_LIMIT_UPPER] {
        space.allow(register, &u32::MAX.to_le_bytes());
    }
    space.allow(BRIDGE_CONTROL, &BRIDGE_CONTROL_WRITABLE.to_le_bytes());
}

fn memory(space: &ConfigSpace) -> Option<Window> {
    let address = |register| u64::from(space.get_u16(register) & MEMORY_WRITABLE) << 16;
    Window::new(address(MEMORY_BASE), address(MEMORY_LIMIT) | 0xf_ffff)
}

fn prefetchable(space: &ConfigSpace) -> Option<Window> {
    let address = |low, high| u64::from(space.read(high)) << 32 | u64::from(space.get_u16(low) & MEMORY_WRITABLE) << 16;
    Window::new(
        address(PREFETCHABLE_BASE, PREFETCHABLE_BASE_UPPER),
        address(PREFETCHABLE_LIMIT, PREFETCHABLE_LIMIT_UPPER) | 0xf_ffff,
    )
}

impl PciFunction for RootPort {
    fn config_read(&self, register: u16) -> u32 {
        let space = lock(&self.space);
        let value = space.read(register);
        let populated = self.populated.load(Ordering::Relaxed);
        match register.checked_sub(self.express) {
            Some(express::LINK_CONTROL) if !self.is_link_up(&space) => {
                value & !(express::LINK_ACTIVE | express::LINK_RATE)
            }
            Some(express::SLOT_CONTROL) if !populated => value & !express::SLOT_PRESENCE,
            _ => value,
        }
    }

    /// Functions behind the port are not reset from here: the topology, which knows them, takes the write to the port's place.
    fn config_write(&self, register: u16, value: u32, enables: ByteEnables) -> Effect {
        self.write(register, value, enables).effect
    }

    /// None: a port has no BARs.
    fn regions(&self, _regions: &mut Vec<Region>) {}

    fn reset(&self) {
        lock(&self.space).reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(io_window: bool) -> RootPort {
        let port = RootPort::new(&RootPortConfig {
            io_window,
            slot: Some(1),
            ..RootPortConfig::default()
        });
        port.populate();
        port
    }

    fn write(port: &RootPort, register: u16, value: u32) -> Effect {
        port.config_write(register, value, ByteEnables::ALL)
    }

    #[test]
    fn is_a_bridge_with_a_64_bit_prefetchable_window() {
        let port = port(false);
        assert_eq!(port.config_read(0x00), 0x000c_1b36);
        assert_eq!(port.config_read(0x08) >> 8, 0x06_0400);
        assert_eq!(port.config_read(0x0c), 0x0001_0000);
        assert_eq!(port.config_read(0x24), 0x0001_0001);
        assert_eq!(port.config_read(0x3c), 0x0000_0100, "INTA");
        for register in [0x18, 0x1c, 0x20, 0x24, 0x28, 0x2c, 0x30, 0x38] {
            let _ = write(&port, register, u32::MAX);
        }
        assert_eq!(port.config_read(0x18), 0x00ff_ffff);
        assert_eq!(port.config_read(0x1c), 0, "no I/O window");
        assert_eq!(port.config_read(0x20), 0xfff0_fff0);
        assert_eq!(port.config_read(0x24), 0xfff1_fff1);
        assert_eq!(port.config_read(0x28), u32::MAX);
        assert_eq!(port.config_read(0x38), 0, "no expansion ROM");
        assert_eq!(port.bus_numbers().subordinate, 0xff);
        port.reset();
        assert_eq!(port.bus_numbers(), BusNumbers::default());
    }

    #[test]
    fn windows_follow_their_registers() {
        let port = port(true);
        let _ = write(&port, 0x1c, 0x0000_7060);
        let _ = write(&port, 0x20, 0xc1f0_c000);
        let _ = write(&port, 0x24, 0x0ff1_0001);
        let _ = write(&port, 0x28, 0x40);
        let _ = write(&port, 0x2c, 0x41);
        let window = |base, last| Some(Window { base, last });
        assert_eq!(port.io_window(), window(0x6000, 0x7fff));
        assert_eq!(port.memory_window(), window(0xc000_0000, 0xc1ff_ffff));
        assert_eq!(port.prefetchable_window(), window(0x40_0000_0000, 0x41_0fff_ffff));
        let _ = write(&port, 0x20, 0x0000_fff0);
        assert_eq!(port.memory_window(), None, "closed");
    }

    #[test]
    fn what_it_forwards_is_gated_by_command_and_power() {
        let port = port(false);
        assert_eq!(write(&port, 0x20, 0xc1f0_c000), Effect::None, "decode is off");
        assert_eq!(write(&port, 0x04, 0x2), Effect::Relayout);
        assert_eq!(write(&port, 0x04, 0x6), Effect::None);
        assert!(port.forwarding().memory.is_some());
        assert_eq!(port.forwarding().io, None);
        let pm = port.power_management + PM_CONTROL;
        assert_eq!(write(&port, pm, 1), Effect::None, "D1 is not implemented");
        assert_eq!(port.config_read(pm), 0x8);
        assert_eq!(write(&port, pm, 3), Effect::Relayout);
        assert_eq!(port.forwarding(), Forwarding::default());
        assert_eq!(write(&port, pm, 0), Effect::Relayout);
        assert!(port.forwarding().memory.is_some(), "no soft reset");
    }

    #[test]
    fn the_link_is_down_while_the_bus_is_in_reset_or_disabled() {
        let port = port(false);
        let link = port.express + express::LINK_CONTROL;
        assert_eq!(port.config_read(link) & express::LINK_ACTIVE, express::LINK_ACTIVE);
        let reset = port.write(0x3c, 0x0040_0000, ByteEnables::of(2, 2));
        assert!(reset.link_lost && reset.effect == Effect::Relayout);
        assert_eq!(port.config_read(link) & express::LINK_ACTIVE, 0);
        assert!(!port.write(0x3c, 0x0040_0000, ByteEnables::of(2, 2)).link_lost);
        assert!(!port.write(0x3c, 0, ByteEnables::of(2, 2)).link_lost);
        assert!(port.link_up());
        assert!(port.write(link, express::LINK_DISABLE, ByteEnables::ALL).link_lost);
        assert!(!port.link_up());
    }

    #[test]
    fn an_empty_slot_shows_no_card() {
        let port = RootPort::new(&RootPortConfig {
            slot: Some(7),
            ..RootPortConfig::default()
        });
        assert_eq!(port.config_read(port.express + 0x10), 1 << 28);
        assert_eq!(port.config_read(port.express + 0x18), 0);
        port.populate();
        assert_eq!(port.config_read(port.express + 0x18), 1 << 22);
    }
}
