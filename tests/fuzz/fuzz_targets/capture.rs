//! Captures from anybody: the reader, and what survey, checks and plans make of the host that it shows.
//!
//! The first byte says what the rest is: an archive, packed or not, or numbers by which a real host is tampered with.

#![no_main]

use std::fs;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use tests::hosts::hostile::{Given, Victim, look, read_and_look};
use tests::hosts::{archive, names};

static VICTIMS: LazyLock<Vec<Victim>> = LazyLock::new(|| {
    let names = names().expect("resources/hosts is there");
    let read = |name: &String| Victim::of(&fs::read(archive(name)).expect("each host has its capture"));
    names.iter().map(read).collect()
});

fuzz_target!(|input: &[u8]| {
    match input {
        [0, packed @ ..] => read_and_look(packed, true),
        [1, plain @ ..] => read_and_look(plain, false),
        [_, host, numbers @ ..] => {
            let mut victim = VICTIMS[usize::from(*host) % VICTIMS.len()].clone();
            let mut numbers = Given(numbers);
            while victim.tamper(&mut numbers) {}
            look(&victim.tree());
        }
        _ => {}
    }
});
