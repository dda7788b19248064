//! The hierarchy: who is on the root bus, who is behind which root port, and which of them an access reaches.

use std::sync::Arc;

use thiserror::Error;

use super::spec::{HEADER_MULTIFUNCTION, HEADER_TYPE};
use super::{ByteEnables, ConfigAddress, PciFunction, RootPort, Slot};
use crate::{Effect, IoEvent, Region};

/// Functions a device can have.
const FUNCTIONS: usize = 8;
/// Devices a bus can have.
const DEVICES: usize = 32;
/// The dword that holds the header type, and the multifunction bit in it.
const HEADER_DWORD: u16 = HEADER_TYPE & !3;
const MULTIFUNCTION: u32 = (HEADER_MULTIFUNCTION as u32) << 16;
/// Bytes of a function's config space.
const CONFIG_END: u16 = super::spec::EXTENDED_CONFIG_SIZE as u16;

/// Why a function cannot be put where it was to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum TopologyError {
    /// A bus has 32 devices of 8 functions.
    #[error("PCI slot {0} does not exist: devices go from 00 to 1f, functions from 0 to 7")]
    NoSuchSlot(Slot),
    /// Two functions were given one place.
    #[error("PCI slot {0} is taken")]
    Taken(Slot),
    /// The place behind a port is taken.
    #[error("function {function} behind the root port at {port} is taken")]
    TakenBehind {
        /// The port.
        port: Slot,
        /// The function number.
        function: u8,
    },
    /// What was named is not a root port.
    #[error("there is no root port at PCI slot {0}")]
    NoPort(Slot),
}

/// A root port and the one device behind it.
#[derive(Debug)]
struct PortEntry {
    port: Arc<RootPort>,
    behind: [Option<Arc<dyn PciFunction>>; FUNCTIONS],
}

#[derive(Debug)]
enum Entry {
    Function(Arc<dyn PciFunction>),
    Port(Box<PortEntry>),
}

impl Entry {
    fn function(&self) -> &dyn PciFunction {
        match self {
            Entry::Function(function) => function.as_ref(),
            Entry::Port(entry) => entry.port.as_ref(),
        }
    }
}

/// Whom a config access reaches.
struct Target<'a> {
    function: &'a dyn PciFunction,
    /// Set if the function is a root port.
    port: Option<&'a PortEntry>,
    multifunction: bool,
}

/// All PCI functions of the machine. Filled while the machine is built, and shared without a lock from then on: what changes are the
/// functions' own registers.
#[derive(Debug)]
pub struct PciTopology {
    /// Bus 0, by device << 3 | function.
    root: Vec<Option<Entry>>,
    /// Bit n: device n of bus 0 has functions beside function 0.
    multifunction: u32,
}

impl Default for PciTopology {
    fn default() -> Self {
        Self::new()
    }
}

impl PciTopology {
    /// An empty bus 0.
    pub fn new() -> Self {
        let mut root = Vec::new();
        root.resize_with(DEVICES * FUNCTIONS, || None);
        Self { root, multifunction: 0 }
    }

    /// Puts `function` on the root bus. A device without a function 0 is not found by guests.
    ///
    /// # Errors
    /// The slot does not exist or is taken.
    pub fn add(&mut self, slot: Slot, function: Arc<dyn PciFunction>) -> Result<(), TopologyError> {
        self.put(slot, Entry::Function(function))
    }

    /// Puts a root port on the root bus.
    ///
    /// # Errors
    /// The slot does not exist or is taken.
    pub fn add_port(&mut self, slot: Slot, port: Arc<RootPort>) -> Result<(), TopologyError> {
        let entry = PortEntry {
            port,
            behind: Default::default(),
        };
        self.put(slot, Entry::Port(Box::new(entry)))
    }

    /// Puts `function` behind the root port at `port`, as function number `number` of the one device there.
    ///
    /// # Errors
    /// There is no port, no such function number, or the number is taken.
    pub fn add_behind(&mut self, port: Slot, number: u8, function: Arc<dyn PciFunction>) -> Result<(), TopologyError> {
        let entry = index(port)
            .and_then(|at| self.root.get_mut(at))
            .and_then(Option::as_mut);
        let Some(Entry::Port(entry)) = entry else {
            return Err(TopologyError::NoPort(port));
        };
        let place = entry
            .behind
            .get_mut(usize::from(number))
            .ok_or(TopologyError::NoSuchSlot(Slot::new(0, number)))?;
        if place.is_some() {
            return Err(TopologyError::TakenBehind { port, function: number });
        }
        *place = Some(function);
        entry.port.populate();
        Ok(())
    }

    fn put(&mut self, slot: Slot, entry: Entry) -> Result<(), TopologyError> {
        let place = index(slot)
            .and_then(|at| self.root.get_mut(at))
            .ok_or(TopologyError::NoSuchSlot(slot))?;
        if place.is_some() {
            return Err(TopologyError::Taken(slot));
        }
        *place = Some(entry);
        if slot.function > 0 {
            self.multifunction |= 1 << slot.device;
        }
        Ok(())
    }

    /// Reads config space from `address` on: any alignment and length. What is not there reads as all-ones, as does what lies beyond
    /// the function's 4096 bytes.
    pub fn config_read(&self, address: ConfigAddress, data: &mut [u8]) {
        data.fill(0xff);
        let Some(target) = self.find(address) else { return };
        let mut register = address.register;
        let mut rest = data;
        while register < CONFIG_END && !rest.is_empty() {
            let dword = target.read(register & !3).to_le_bytes();
            let lane = usize::from(register & 3);
            let (now, later) = rest.split_at_mut(rest.len().min(4 - lane));
            for (to, from) in now.iter_mut().zip(dword.iter().skip(lane)) {
                *to = *from;
            }
            register += now.len() as u16;
            rest = later;
        }
    }

    /// Writes config space from `address` on: any alignment and length. What is not there swallows it.
    pub fn config_write(&self, address: ConfigAddress, data: &[u8]) -> Effect {
        let Some(target) = self.find(address) else {
            return Effect::None;
        };
        let mut effect = Effect::None;
        let mut register = address.register;
        let mut rest = data;
        while register < CONFIG_END && !rest.is_empty() {
            let lane = usize::from(register & 3);
            let (now, later) = rest.split_at(rest.len().min(4 - lane));
            let mut dword = [0; 4];
            for (to, from) in dword.iter_mut().skip(lane).zip(now) {
                *to = *from;
            }
            let enables = ByteEnables::of(lane, now.len());
            effect = effect.or(target.write(register & !3, u32::from_le_bytes(dword), enables));
            register += now.len() as u16;
            rest = later;
        }
        effect
    }

    /// Everything PCI functions decode now. What is behind a port is there only if the port forwards all of it.
    pub fn regions(&self) -> Vec<Region> {
        let mut regions = Vec::new();
        self.for_each_decoding(|_, decoded| regions.append(decoded));
        regions
    }

    /// The writes that signal events in the kernel now: those of [`PciFunction::io_events`] that lie in what the function decodes.
    pub fn io_events(&self) -> Vec<IoEvent> {
        let mut events = Vec::new();
        let mut own = Vec::new();
        self.for_each_decoding(|function, decoded| {
            function.io_events(&mut own);
            events.extend(
                own.drain(..)
                    .filter(|event| decoded.iter().any(|region| holds(region, event))),
            );
        });
        events
    }

    /// All functions and ports back to the state at power-on. The machine lays regions out anew afterwards.
    pub fn reset(&self) {
        for entry in self.root.iter().flatten() {
            if let Entry::Port(entry) = entry {
                entry.reset_behind();
            }
            entry.function().reset();
        }
    }

    /// Calls `f` for each function with the regions it decodes and can be reached at.
    fn for_each_decoding(&self, mut f: impl FnMut(&dyn PciFunction, &mut Vec<Region>)) {
        let mut decoded = Vec::new();
        for entry in self.root.iter().flatten() {
            entry.function().regions(&mut decoded);
            f(entry.function(), &mut decoded);
            decoded.clear();
            let Entry::Port(entry) = entry else { continue };
            let forwarding = entry.port.forwarding();
            for function in entry.behind.iter().flatten() {
                function.regions(&mut decoded);
                decoded.retain(|region| forwarding.passes(region));
                f(function.as_ref(), &mut decoded);
                decoded.clear();
            }
        }
    }

    fn find(&self, address: ConfigAddress) -> Option<Target<'_>> {
        if address.bus != 0 {
            return self.find_behind(address);
        }
        let at = index(Slot::new(address.device, address.function))?;
        let entry = self.root.get(at)?.as_ref()?;
        Some(Target {
            function: entry.function(),
            port: match entry {
                Entry::Function(_) => None,
                Entry::Port(entry) => Some(entry),
            },
            multifunction: self.multifunction & (1 << address.device) != 0,
        })
    }

    /// The first port to which the bus belongs gets the access. Only its secondary bus has anything on it, and there only device 0: a
    /// link has two ends (PCIe 6.0 §7.3.1).
    fn find_behind(&self, address: ConfigAddress) -> Option<Target<'_>> {
        let entry = self.root.iter().flatten().find_map(|entry| match entry {
            Entry::Port(entry) if entry.claims(address.bus) => Some(entry),
            _ => None,
        })?;
        let secondary = entry.port.bus_numbers().secondary;
        if address.bus != secondary || address.device != 0 || !entry.port.link_up() {
            return None;
        }
        let function = entry.behind.get(usize::from(address.function))?.as_ref()?;
        Some(Target {
            function: function.as_ref(),
            port: None,
            multifunction: entry.behind.iter().skip(1).any(Option::is_some),
        })
    }
}

impl PortEntry {
    fn claims(&self, bus: u8) -> bool {
        let numbers = self.port.bus_numbers();
        numbers.secondary != 0 && (numbers.secondary..=numbers.subordinate).contains(&bus)
    }

    fn reset_behind(&self) {
        for function in self.behind.iter().flatten() {
            function.reset();
        }
    }
}

impl Target<'_> {
    /// The dword at `register`. Whether a device has several functions is known here and not to its functions, which may have come
    /// from another machine's slot.
    fn read(&self, register: u16) -> u32 {
        let value = self.function.config_read(register);
        match (register, self.multifunction) {
            (HEADER_DWORD, true) => value | MULTIFUNCTION,
            (HEADER_DWORD, false) => value & !MULTIFUNCTION,
            _ => value,
        }
    }

    fn write(&self, register: u16, value: u32, enables: ByteEnables) -> Effect {
        let Some(entry) = self.port else {
            return self.function.config_write(register, value, enables);
        };
        let write = entry.port.write(register, value, enables);
        if write.link_lost {
            entry.reset_behind();
        }
        write.effect
    }
}

fn index(slot: Slot) -> Option<usize> {
    let (device, function) = (usize::from(slot.device), usize::from(slot.function));
    (device < DEVICES && function < FUNCTIONS).then_some(device << 3 | function)
}

fn holds(region: &Region, event: &IoEvent) -> bool {
    let width = u64::from(event.width.max(1));
    let end = region.base.saturating_add(region.size);
    region.space == event.space
        && event.address >= region.base
        && event.address.checked_add(width).is_some_and(|last| last <= end)
}

#[cfg(test)]
mod tests;
