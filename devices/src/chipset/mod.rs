//! The south bridge: what an ICH9 and the legacy chips around it have.

pub mod debugcon;
pub mod i8042;
pub mod lpc;
pub mod pm;
pub(crate) mod ports;
pub mod reset;
pub mod rtc;
