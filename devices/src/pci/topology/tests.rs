use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use vmm_sys_util::eventfd::EventFd;

use super::*;
use crate::pci::{Bar, BarKind, ConfigSpace, Identity, RootPortConfig};
use crate::{Backing, BusDevice, Space};

/// A function with a 16 KiB memory BAR, a 1 MiB prefetchable one and 32 ports, and an event 0x10 into each.
#[derive(Debug)]
struct Fake {
    space: Mutex<ConfigSpace>,
    resets: AtomicU32,
}

#[derive(Debug)]
struct Nothing;
impl BusDevice for Nothing {
    fn read(&self, _offset: u64, _data: &mut [u8]) {}
    fn write(&self, _offset: u64, _data: &[u8]) -> Effect {
        Effect::None
    }
}

impl Fake {
    fn new(device: u16, header_type: u8) -> Arc<Self> {
        let mut space = ConfigSpace::new(&Identity {
            vendor: 0x1234,
            device,
            header_type,
            ..Identity::default()
        });
        let bars = [
            (0, BarKind::Memory32 { prefetch: false }, 16 << 10),
            (1, BarKind::Io, 32),
            (2, BarKind::Memory64 { prefetch: true }, 1 << 20),
        ];
        for (index, kind, size) in bars {
            space.set_bar(index, Bar { kind, size });
        }
        space.seal();
        Arc::new(Self {
            space: Mutex::new(space),
            resets: AtomicU32::new(0),
        })
    }
}

impl PciFunction for Fake {
    fn config_read(&self, register: u16) -> u32 {
        self.space.lock().unwrap().read(register)
    }
    fn config_write(&self, register: u16, value: u32, enables: ByteEnables) -> Effect {
        let moved = self.space.lock().unwrap().write(register, value, enables);
        if moved { Effect::Relayout } else { Effect::None }
    }
    fn regions(&self, regions: &mut Vec<Region>) {
        regions.extend(self.space.lock().unwrap().decoded_bars().map(|bar| Region {
            space: bar.space,
            base: bar.base,
            size: bar.size,
            backing: Backing::Device {
                device: Arc::new(Nothing),
                offset: 0,
            },
        }));
    }
    fn io_events(&self, events: &mut Vec<IoEvent>) {
        events.extend(self.space.lock().unwrap().decoded_bars().map(|bar| IoEvent {
            space: bar.space,
            address: bar.base + 0x10,
            width: 4,
            value: None,
            event: Arc::new(EventFd::new(0).unwrap()),
        }));
    }
    fn reset(&self) {
        self.resets.fetch_add(1, Ordering::Relaxed);
        self.space.lock().unwrap().reset();
    }
}

const PORT: Slot = Slot::new(2, 0);

struct Machine {
    topology: PciTopology,
    port: Arc<RootPort>,
    gpu: Arc<Fake>,
    audio: Arc<Fake>,
}

/// A function at 01.0, and a port at 02.0 with a GPU and its audio function behind it.
fn machine() -> Machine {
    let mut topology = PciTopology::new();
    let port = Arc::new(RootPort::new(&RootPortConfig {
        io_window: true,
        ..RootPortConfig::default()
    }));
    let (gpu, audio) = (Fake::new(0x0001, 0x00), Fake::new(0x0002, 0x80));
    topology.add(Slot::new(1, 0), Fake::new(0x0003, 0x80)).unwrap();
    topology.add_port(PORT, Arc::clone(&port)).unwrap();
    topology.add_behind(PORT, 0, Arc::clone(&gpu) as _).unwrap();
    topology.add_behind(PORT, 1, Arc::clone(&audio) as _).unwrap();
    Machine {
        topology,
        port,
        gpu,
        audio,
    }
}

const fn at(bus: u8, device: u8, function: u8, register: u16) -> ConfigAddress {
    ConfigAddress {
        bus,
        device,
        function,
        register,
    }
}

impl Machine {
    fn read(&self, address: ConfigAddress) -> u32 {
        let mut data = [0; 4];
        self.topology.config_read(address, &mut data);
        u32::from_le_bytes(data)
    }

    fn write(&self, address: ConfigAddress, value: u32) -> Effect {
        self.topology.config_write(address, &value.to_le_bytes())
    }

    /// Bus 1 behind the port, all its windows open and enabled, and the GPU in each of them.
    fn enumerate(&self) {
        let _ = self.write(at(0, 2, 0, 0x18), 0x0001_0100);
        let _ = self.write(at(0, 2, 0, 0x1c), 0x0000_6060);
        let _ = self.write(at(0, 2, 0, 0x20), 0xc000_c000);
        let _ = self.write(at(0, 2, 0, 0x24), 0x0001_0001);
        let _ = self.write(at(0, 2, 0, 0x28), 0x80);
        let _ = self.write(at(0, 2, 0, 0x2c), 0x80);
        let _ = self.write(at(1, 0, 0, 0x10), 0xc000_4000);
        let _ = self.write(at(1, 0, 0, 0x14), 0x6000);
        let _ = self.write(at(1, 0, 0, 0x18), 0);
        let _ = self.write(at(1, 0, 0, 0x1c), 0x80);
        assert_eq!(self.write(at(1, 0, 0, 0x04), 3), Effect::Relayout);
        assert!(self.topology.regions().is_empty(), "the port forwards nothing yet");
        assert_eq!(self.write(at(0, 2, 0, 0x04), 3), Effect::Relayout);
    }

    fn bases(&self) -> Vec<u64> {
        self.topology.regions().iter().map(|region| region.base).collect()
    }
}

#[test]
fn routes_by_the_ports_bus_numbers() {
    let machine = machine();
    assert_eq!(machine.read(at(0, 1, 0, 0)), 0x0003_1234);
    assert_eq!(machine.read(at(1, 0, 0, 0)), u32::MAX, "no bus number yet");
    let _ = machine.write(at(0, 2, 0, 0x18), 0x0005_0300);
    assert_eq!(machine.read(at(3, 0, 0, 0)), 0x0001_1234);
    assert_eq!(machine.read(at(3, 0, 1, 0)), 0x0002_1234);
    assert_eq!(machine.read(at(3, 0, 2, 0)), u32::MAX);
    assert_eq!(machine.read(at(3, 1, 0, 0)), u32::MAX, "a link has one device");
    assert_eq!(machine.read(at(4, 0, 0, 0)), u32::MAX, "no bridge behind the port");
    assert_eq!(machine.read(at(1, 0, 0, 0)), u32::MAX);
    assert_eq!(machine.read(at(0, 3, 0, 0)), u32::MAX);
    assert_eq!(machine.write(at(0, 3, 0, 0x04), 3), Effect::None);
}

#[test]
fn the_multifunction_bit_says_what_is_there() {
    let machine = machine();
    let _ = machine.write(at(0, 2, 0, 0x18), 0x0001_0100);
    let header = |address: ConfigAddress| machine.read(address) >> 16 & 0xff;
    assert_eq!(
        header(at(0, 1, 0, 0x0c)),
        0x00,
        "claimed by the function, but it is alone"
    );
    assert_eq!(header(at(0, 2, 0, 0x0c)), 0x01);
    assert_eq!(header(at(1, 0, 0, 0x0c)), 0x80, "denied by the function");
    let mut byte = [0];
    machine.topology.config_read(at(1, 0, 0, 0x0e), &mut byte);
    assert_eq!(byte, [0x80]);
    let mut topology = PciTopology::new();
    topology.add(Slot::new(0x1f, 2), Fake::new(1, 0)).unwrap();
    topology.add(Slot::new(0x1f, 0), Fake::new(1, 0)).unwrap();
    topology.config_read(at(0, 0x1f, 0, 0x0e), &mut byte);
    assert_eq!(byte, [0x80]);
}

#[test]
fn accesses_of_any_width_and_alignment() {
    let machine = machine();
    let mut eight = [0; 8];
    machine.topology.config_read(at(0, 1, 0, 0), &mut eight);
    assert_eq!(eight, [0x34, 0x12, 3, 0, 0, 0, 0, 0]);
    let mut across = [0; 4];
    machine.topology.config_read(at(0, 1, 0, 2), &mut across);
    assert_eq!(across, [3, 0, 0, 0]);
    machine.topology.config_read(at(0, 1, 0, 0xffe), &mut across);
    assert_eq!(across, [0, 0, 0xff, 0xff], "beyond the end");
    let _ = machine
        .topology
        .config_write(at(0, 1, 0, 0x10), &[0, 0, 0x10, 0xc0, 0x00, 0x70, 0, 0]);
    assert_eq!(machine.read(at(0, 1, 0, 0x10)), 0xc010_0000);
    assert_eq!(machine.read(at(0, 1, 0, 0x14)), 0x7001);
    let _ = machine.topology.config_write(at(0, 1, 0, 0x3c), &[0x0b]);
    assert_eq!(machine.read(at(0, 1, 0, 0x3c)), 0x0b);
    let _ = machine.topology.config_write(at(0, 1, 0, 0xffe), &[1; 8]);
}

#[test]
fn functions_behind_a_port_decode_what_it_forwards() {
    let machine = machine();
    machine.enumerate();
    assert_eq!(machine.bases(), [0xc000_4000, 0x6000, 0x80_0000_0000]);
    assert_eq!(machine.topology.io_events().len(), 3);
    assert_eq!(machine.write(at(0, 2, 0, 0x20), 0xc100_c100), Effect::Relayout);
    assert_eq!(machine.bases(), [0x6000, 0x80_0000_0000]);
    let events: Vec<u64> = machine.topology.io_events().iter().map(|event| event.address).collect();
    assert_eq!(events, [0x6010, 0x80_0000_0010]);
    let _ = machine.write(at(0, 2, 0, 0x04), 1);
    assert_eq!(machine.bases(), [0x6000]);
    let _ = machine.write(at(0, 2, 0, 0x04), 2);
    assert_eq!(machine.bases(), [0x80_0000_0000]);
}

#[test]
fn a_region_that_leaves_the_window_is_not_forwarded() {
    let machine = machine();
    machine.enumerate();
    let _ = machine.write(at(0, 2, 0, 0x1c), 0x0000_5050);
    let _ = machine.write(at(1, 0, 0, 0x18), 0x0010_0000);
    assert_eq!(
        machine.bases(),
        [0xc000_4000],
        "the ports and the prefetchable BAR are outside"
    );
}

#[test]
fn functions_on_the_root_bus_decode_by_themselves() {
    let machine = machine();
    let _ = machine.write(at(0, 1, 0, 0x10), 0xd000_0000);
    assert_eq!(machine.write(at(0, 1, 0, 0x04), 2), Effect::Relayout);
    assert_eq!(machine.bases(), [0xd000_0000]);
    assert!(
        machine
            .topology
            .regions()
            .iter()
            .all(|region| region.space == Space::Memory)
    );
}

#[test]
fn a_secondary_bus_reset_resets_what_is_behind() {
    let machine = machine();
    machine.enumerate();
    let control = at(0, 2, 0, 0x3e);
    let resets = || {
        (
            machine.gpu.resets.load(Ordering::Relaxed),
            machine.audio.resets.load(Ordering::Relaxed),
        )
    };
    assert_eq!(machine.topology.config_write(control, &[0x40, 0]), Effect::Relayout);
    assert_eq!(resets(), (1, 1));
    assert_eq!(machine.read(at(1, 0, 0, 0)), u32::MAX, "no link while in reset");
    let _ = machine.topology.config_write(control, &[0x40, 0]);
    assert_eq!(resets(), (1, 1), "only the edge counts");
    assert_eq!(
        machine.topology.config_write(control, &[0, 0]),
        Effect::Relayout,
        "forwards again"
    );
    assert_eq!(machine.read(at(1, 0, 0, 0x04)) & 0x7, 0);
    assert!(machine.topology.regions().is_empty());
    assert_eq!(
        machine.port.bus_numbers().secondary,
        1,
        "the port itself keeps its state"
    );
}

#[test]
fn reset_reaches_everything() {
    let machine = machine();
    machine.enumerate();
    machine.topology.reset();
    assert_eq!(machine.gpu.resets.load(Ordering::Relaxed), 1);
    assert_eq!(machine.audio.resets.load(Ordering::Relaxed), 1);
    assert_eq!(machine.port.bus_numbers().secondary, 0);
    assert!(machine.topology.regions().is_empty());
}

#[test]
fn a_place_is_given_once() {
    let mut machine = machine();
    let topology = &mut machine.topology;
    let function = || Fake::new(9, 0) as Arc<dyn PciFunction>;
    assert_eq!(topology.add(PORT, function()), Err(TopologyError::Taken(PORT)));
    let outside = Slot::new(32, 0);
    assert_eq!(
        topology.add(outside, function()),
        Err(TopologyError::NoSuchSlot(outside))
    );
    let plain = Slot::new(1, 0);
    assert_eq!(
        topology.add_behind(plain, 0, function()),
        Err(TopologyError::NoPort(plain))
    );
    assert!(matches!(
        topology.add_behind(PORT, 1, function()),
        Err(TopologyError::TakenBehind { .. })
    ));
    assert!(matches!(
        topology.add_behind(PORT, 8, function()),
        Err(TopologyError::NoSuchSlot(_))
    ));
}

#[test]
fn no_write_of_a_guest_panics() {
    let machine = machine();
    machine.enumerate();
    let mut seed = 0x2545_f491_4f6c_dd1du64;
    for _ in 0..20_000 {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        let address = ConfigAddress::from_ecam((seed >> 8) & 0x1f_ffff);
        let length = [1, 2, 4, 8][(seed & 3) as usize];
        let _ = machine.topology.config_write(address, &seed.to_le_bytes()[..length]);
        let mut data = vec![0; length];
        machine.topology.config_read(address, &mut data);
        if seed & 0xff00 == 0 {
            let _ = (machine.topology.regions(), machine.topology.io_events());
        }
    }
}
