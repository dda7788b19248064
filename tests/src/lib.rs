//! The lab and the scenarios that run in it.

pub mod bench;
pub mod guest;
pub mod hear;
pub mod lab;
pub mod scenario;
pub mod scenarios;
pub mod see;
