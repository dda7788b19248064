//! `cargo lab`: see README.md.

fn main() {}
