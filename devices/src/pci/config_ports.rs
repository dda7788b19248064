//! Config space through ports 0xCF8 and 0xCFC: configuration mechanism #1 (PCI 3.0 §3.2.2.3.2).

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::{ConfigAddress, PciTopology};
use crate::{Backing, BusDevice, Effect, Region, Space};

/// CONFIG_ADDRESS, the first of the eight ports.
const BASE: u64 = 0xcf8;
/// CONFIG_ADDRESS and CONFIG_DATA, four ports each.
const SIZE: u64 = 8;
/// Where CONFIG_DATA starts.
const DATA: u64 = 4;
/// The reset control register of the ICH9 lies inside CONFIG_ADDRESS (ICH9 datasheet §13.7.5).
const RESET_CONTROL: u64 = 1;
/// CONFIG_ADDRESS: CONFIG_DATA reaches config space.
const ENABLE: u32 = 1 << 31;
/// CONFIG_ADDRESS without its reserved bits 30:24 and 1:0, which are read-only zeros.
const ADDRESS_MASK: u32 = 0x80ff_fffc;

/// The eight ports from 0xCF8.
///
/// Only a 32-bit access at 0xCF8 is CONFIG_ADDRESS. An 8-bit one at 0xCF9 belongs to the reset control register, which is another
/// device's; everything else in the first four ports is nobody's.
#[derive(Debug)]
pub struct ConfigPorts {
    topology: Arc<PciTopology>,
    reset_control: Arc<dyn BusDevice>,
    address: AtomicU32,
}

impl ConfigPorts {
    /// The ports onto `topology`. Byte accesses to 0xCF9 go to `reset_control` at offset 0.
    pub fn new(topology: Arc<PciTopology>, reset_control: Arc<dyn BusDevice>) -> Self {
        Self {
            topology,
            reset_control,
            address: AtomicU32::new(0),
        }
    }

    /// The ports.
    pub fn region(self: &Arc<Self>) -> Region {
        Region {
            space: Space::Port,
            base: BASE,
            size: SIZE,
            backing: Backing::Device {
                device: Arc::clone(self) as Arc<dyn BusDevice>,
                offset: 0,
            },
        }
    }

    /// Back to the state at power-on.
    pub fn reset(&self) {
        self.address.store(0, Ordering::Relaxed);
    }

    /// The byte of config space that CONFIG_DATA plus `offset` reaches.
    ///
    /// Address and data are two accesses. Guests serialise the pair with a lock of their own, so nothing is held in between.
    fn target(&self, offset: u64, len: usize) -> Option<ConfigAddress> {
        let lane = offset.checked_sub(DATA).filter(|lane| *lane < 4)?;
        let fits = lane.checked_add(len as u64).is_some_and(|end| end <= 4);
        let address = self.address.load(Ordering::Relaxed);
        if !fits || address & ENABLE == 0 {
            return None;
        }
        let mut target = ConfigAddress::from_mechanism_1(address);
        target.register |= lane as u16;
        Some(target)
    }
}

impl BusDevice for ConfigPorts {
    fn read(&self, offset: u64, data: &mut [u8]) {
        if offset == RESET_CONTROL && data.len() == 1 {
            return self.reset_control.read(0, data);
        }
        if offset == 0 && data.len() == 4 {
            return data.copy_from_slice(&self.address.load(Ordering::Relaxed).to_le_bytes());
        }
        match self.target(offset, data.len()) {
            Some(target) => self.topology.config_read(target, data),
            None => data.fill(0xff),
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> Effect {
        if offset == RESET_CONTROL && data.len() == 1 {
            return self.reset_control.write(0, data);
        }
        if let (0, &[a, b, c, d]) = (offset, data) {
            let address = u32::from_le_bytes([a, b, c, d]) & ADDRESS_MASK;
            self.address.store(address, Ordering::Relaxed);
            return Effect::None;
        }
        match self.target(offset, data.len()) {
            Some(target) => self.topology.config_write(target, data),
            None => Effect::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pci::{HostBridge, Slot};

    #[derive(Debug)]
    struct ResetControl;
    impl BusDevice for ResetControl {
        fn read(&self, offset: u64, data: &mut [u8]) {
            assert_eq!(offset, 0);
            data.fill(0x02);
        }
        fn write(&self, offset: u64, data: &[u8]) -> Effect {
            assert_eq!((offset, data), (0, &[0x06][..]));
            Effect::Reset
        }
    }

    fn ports() -> ConfigPorts {
        let mut topology = PciTopology::new();
        topology.add(Slot::new(0, 0), Arc::new(HostBridge::new())).unwrap();
        ConfigPorts::new(Arc::new(topology), Arc::new(ResetControl))
    }

    fn read<const N: usize>(ports: &ConfigPorts, offset: u64) -> [u8; N] {
        let mut data = [0; N];
        ports.read(offset, &mut data);
        data
    }

    #[test]
    fn reads_bytes_words_and_dwords() {
        let ports = ports();
        assert_eq!(read::<4>(&ports, 4), [0xff; 4], "not enabled");
        assert_eq!(ports.write(0, &0xff00_0003u32.to_le_bytes()), Effect::None);
        assert_eq!(u32::from_le_bytes(read(&ports, 0)), 0x8000_0000, "reserved bits");
        assert_eq!(u32::from_le_bytes(read(&ports, 4)), 0x29c0_8086);
        assert_eq!(u16::from_le_bytes(read(&ports, 6)), 0x29c0);
        assert_eq!(read::<1>(&ports, 5), [0x80]);
        assert_eq!(read::<2>(&ports, 7), [0xff; 2], "beyond the last port");
        assert_eq!(ports.write(0, &0x8000_0800u32.to_le_bytes()), Effect::None);
        assert_eq!(read::<4>(&ports, 4), [0xff; 4], "an empty slot");
    }

    #[test]
    fn writes_reach_the_function() {
        let ports = ports();
        let _ = ports.write(0, &0x8000_0060u32.to_le_bytes());
        assert_eq!(ports.write(7, &[0xb0]), Effect::None);
        assert_eq!(ports.write(4, &[0x01]), Effect::Relayout);
        assert_eq!(u32::from_le_bytes(read(&ports, 4)), 0xb000_0001);
    }

    #[test]
    fn the_reset_register_takes_only_bytes() {
        let ports = ports();
        let _ = ports.write(0, &0x8000_0000u32.to_le_bytes());
        assert_eq!(ports.write(1, &[0x06]), Effect::Reset);
        assert_eq!(read::<1>(&ports, 1), [0x02]);
        assert_eq!(ports.write(1, &[0x06, 0x06]), Effect::None);
        assert_eq!(read::<2>(&ports, 0), [0xff; 2]);
        assert_eq!(ports.write(3, &[0x01]), Effect::None, "a probe of mechanism #2");
        assert_eq!(u32::from_le_bytes(read(&ports, 0)), 0x8000_0000);
        ports.reset();
        assert_eq!(read::<4>(&ports, 0), [0; 4]);
    }
}
