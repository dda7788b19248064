//! Captures that somebody hostile made: nothing panics, and nothing takes long.
#![expect(clippy::unwrap_used, reason = "all of this is a test")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use tests::hosts::hostile::{Numbers, Seeded, Victim, look, read_and_look};
use tests::hosts::{archive, names};

/// Far more than the slowest takes on a busy machine, and far less than anybody would wait.
const LONGEST: Duration = Duration::from_secs(5);

fn archives() -> Vec<(String, Vec<u8>)> {
    let names = names().unwrap();
    let read = |name: String| (name.clone(), std::fs::read(archive(&name)).unwrap());
    names.into_iter().map(read).collect()
}

/// Does it, and says which seed is to blame.
fn tried(what: &str, seed: u64, act: impl FnOnce()) {
    let start = Instant::now();
    let ended = catch_unwind(AssertUnwindSafe(act));
    assert!(ended.is_ok(), "{what}, seed {seed}: panicked");
    let taken = start.elapsed();
    assert!(taken < LONGEST, "{what}, seed {seed}: {taken:?}");
}

#[test]
fn tampered_hosts_are_surveyed_and_checked() {
    let victims: Vec<(String, Victim)> = archives()
        .into_iter()
        .map(|(name, archive)| (name, Victim::of(&archive)))
        .collect();
    for seed in 0..200 {
        let (name, victim) = &victims[seed as usize % victims.len()];
        tried(name, seed, || {
            let mut numbers = Seeded::new(seed);
            let mut victim = victim.clone();
            // From one thing amiss to hardly anything as it was.
            for _ in 0..1usize << (numbers.next().unwrap() % 10) {
                victim.tamper(&mut numbers);
            }
            look(&victim.tree());
        });
    }
}

#[test]
fn damaged_archives_are_read_or_refused() {
    let archives = archives();
    for seed in 0..2000u64 {
        let (name, archive) = &archives[seed as usize % archives.len()];
        let mut numbers = Seeded::new(seed);
        let mut next = || usize::try_from(numbers.next().unwrap() >> 1).unwrap();
        let mut damaged = archive.clone();
        match next() % 3 {
            0 => damaged.truncate(next() % archive.len()),
            1 => {
                let at = next() % archive.len();
                damaged[at] ^= 1 << (next() % 8);
            }
            _ => {
                let (from, to) = (next() % archive.len(), next() % archive.len());
                let length = (next() % 64).min(archive.len() - from.max(to));
                damaged.copy_within(from..from + length, to);
            }
        }
        tried(name, seed, || drop(tests::hosts::hostile::read(&damaged)));
        if seed % 100 == 0 {
            tried(name, seed, || read_and_look(&damaged, true));
        }
    }
}
