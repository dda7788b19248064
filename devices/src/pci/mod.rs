//! PCI Express as the guest sees it: functions, their config space, and the hierarchy they hang in.

mod address;
mod config_ports;
mod config_space;
mod ecam;
pub mod express;
mod function;
mod host_bridge;
mod port_capabilities;
mod root_port;
pub mod spec;
mod topology;

pub use address::{ConfigAddress, Slot};
pub use config_ports::ConfigPorts;
pub use config_space::{Bar, BarKind, ConfigSpace, DecodedBar, Identity};
pub use ecam::Ecam;
pub use function::{ByteEnables, PciFunction};
pub use host_bridge::HostBridge;
pub use root_port::{BusNumbers, RootPort, RootPortConfig, Window};
pub use topology::{PciTopology, TopologyError};
