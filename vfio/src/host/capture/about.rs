//! How a capture was made.

use serde::{Deserialize, Serialize};

/// The format that this version writes, and the newest it reads. Files may be added without a new number; it grows when
/// what a file holds comes to mean something else.
pub const FORMAT: u32 = 1;

/// What `/tenon/capture.toml` says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// The format's number.
    pub format: u32,
    /// The version of tenon that wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenon: Option<String>,
    /// The day it was made, as `2026-01-31`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub date: Option<String>,
    /// Where the facts come from, for a capture that was not taken on a running host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// What could not be read, or was left out of it, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
}

impl About {
    /// Of the format of this version, saying nothing else.
    pub fn new() -> Self {
        Self {
            format: FORMAT,
            tenon: None,
            date: None,
            origin: None,
            left_out: Vec::new(),
        }
    }

    /// As the text of the file.
    ///
    /// # Errors
    /// TOML cannot hold it; there is no such value of this type.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        toml::to_string(self)
    }
}

impl Default for About {
    fn default() -> Self {
        Self::new()
    }
}

/// The number alone: a newer file may hold the rest in another form.
#[derive(Deserialize)]
pub(super) struct Format {
    pub(super) format: u32,
}
