//! The lab and the scenarios that run in it. Imports everything of ours, is imported by nothing.
//!
//! - [`lab`]: the lab host: packages, kernel and initramfs, QEMU, and a way to run commands in it.
//! - [`scenario`]: what a scenario is, and how scenarios are run and counted; [`scenarios`] is the list of them.
//! - [`hosts`]: captures of hosts that nobody here has, made from descriptions.
//! - [`bench`]: figures of tenon beside QEMU's.

pub mod bench;
pub mod guest;
pub mod hear;
pub mod hosts;
pub mod lab;
pub mod scenario;
pub mod scenarios;
pub mod see;
