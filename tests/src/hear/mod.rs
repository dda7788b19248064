//! The lab's ears: what a WAV file that QEMU recorded from a sound device holds.

mod tone;
mod wav;

pub use tone::{Tone, measure, tone};
pub use wav::Wav;

use std::{io, path::PathBuf};

/// A recording could not be judged.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file could not be read.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not such a file as QEMU's `wav` audio backend writes.
    #[error("{path}: {why}")]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// It holds no sound.
    #[error("{path}: {seconds:.2} s of silence")]
    Silence {
        /// The file.
        path: PathBuf,
        /// How long it is.
        seconds: f64,
    },
}
