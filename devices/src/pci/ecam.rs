//! Config space as memory: the Enhanced Configuration Access Mechanism (PCIe 6.0 §7.2.2).

use std::sync::Arc;

use super::{ConfigAddress, HostBridge, PciTopology};
use crate::{Backing, BusDevice, Effect, Region, Space};

/// The memory window through which a guest reaches every function's 4096 bytes, at the place the host bridge's PCIEXBAR says.
#[derive(Debug)]
pub struct Ecam {
    topology: Arc<PciTopology>,
    bridge: Arc<HostBridge>,
}

impl Ecam {
    /// The window onto `topology` that `bridge` places.
    pub fn new(topology: Arc<PciTopology>, bridge: Arc<HostBridge>) -> Self {
        Self { topology, bridge }
    }

    /// Where the window is now; `None` while PCIEXBAR is disabled.
    ///
    /// Not among the topology's regions: the topology would have to hold a device that holds the topology.
    pub fn region(self: &Arc<Self>) -> Option<Region> {
        let (base, size) = self.bridge.ecam()?;
        Some(Region {
            space: Space::Memory,
            base,
            size,
            backing: Backing::Device {
                device: Arc::clone(self) as Arc<dyn BusDevice>,
                offset: 0,
            },
        })
    }
}

impl BusDevice for Ecam {
    fn read(&self, offset: u64, data: &mut [u8]) {
        self.topology.config_read(ConfigAddress::from_ecam(offset), data);
    }

    fn write(&self, offset: u64, data: &[u8]) -> Effect {
        self.topology.config_write(ConfigAddress::from_ecam(offset), data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pci::{ByteEnables, PciFunction, Slot};

    #[test]
    fn reaches_functions_at_the_place_the_bridge_says() {
        let bridge = Arc::new(HostBridge::new());
        let mut topology = PciTopology::new();
        topology
            .add(Slot::new(0, 0), Arc::clone(&bridge) as Arc<dyn PciFunction>)
            .unwrap();
        let ecam = Arc::new(Ecam::new(Arc::new(topology), Arc::clone(&bridge)));
        assert!(ecam.region().is_none());
        assert_eq!(
            bridge.config_write(0x60, 0xe000_0001, ByteEnables::ALL),
            Effect::Relayout
        );
        let region = ecam.region().unwrap();
        assert_eq!((region.base, region.size), (0xe000_0000, 256 << 20));

        let mut data = [0; 8];
        ecam.read(0x60, &mut data);
        assert_eq!(data, [1, 0, 0, 0xe0, 0, 0, 0, 0]);
        let mut word = [0; 2];
        ecam.read(0x02, &mut word);
        assert_eq!(word, [0xc0, 0x29]);
        ecam.read(1 << 20, &mut data);
        assert_eq!(data, [0xff; 8], "nothing on bus 1");
        assert_eq!(ecam.write(0x60, &[0]), Effect::Relayout);
        assert!(ecam.region().is_none());
    }
}
