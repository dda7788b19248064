//! The small devices of the Q35 chipset.

pub mod debugcon;
pub mod i8042;
pub(crate) mod ports;
pub mod reset;
pub mod rtc;
