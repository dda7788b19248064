//! Listens to recordings: `hear FILE...`.

use std::{env, path::Path};

fn main() {
    for file in env::args().skip(1) {
        match tests::hear::tone(Path::new(&file)) {
            Ok(tone) => println!("{file}: {tone:?}"),
            Err(error) => println!("{error}"),
        }
    }
}
