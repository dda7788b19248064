//! What goes wrong with assigned devices, and how it shows: one table of the failures that people meet, each with its
//! signs in a log, its cause, its remedy and where it is known from. A line of any log (the host's kernel, QEMU, libvirt,
//! tenon itself, a guest) is looked up in it.

mod catalogue;
mod quote;
mod scan;
#[cfg(test)]
mod tests;

use std::fmt;

pub use catalogue::{all, find};
pub use quote::quote;
pub use scan::{LARGEST_LOG, Scan, Scanner, Sighting};

/// One way in which assigning a device fails.
#[derive(Debug, PartialEq, Eq)]
pub struct Symptom {
    /// Its name in `tenon check --explain`.
    pub id: &'static str,
    /// What happens, in a line.
    pub title: &'static str,
    /// Regular expressions, each of which gives it away in a line of a log. `<BDF>` and `<GROUP>` stand for the address
    /// or the group that the line is about. Empty for what only the state of the host shows.
    pub signs: &'static [&'static str],
    /// What must stand somewhere in the same log besides, where the signs alone can mean other things.
    pub context: Option<&'static str>,
    /// Why it happens.
    pub cause: &'static str,
    /// What to do. `{bdf}` and `{group}` stand for what the sign was about.
    pub remedy: &'static str,
    /// Where it is known from.
    pub source: &'static str,
}

impl Symptom {
    /// The remedy for a function or a group, where those are known.
    pub fn remedy_for(&self, bdf: Option<&str>, group: Option<u32>) -> String {
        let group = group.map_or_else(|| "N".to_owned(), |group| group.to_string());
        self.remedy
            .replace("{bdf}", bdf.unwrap_or("BDF"))
            .replace("{group}", &group)
    }
}

/// All that is known of it, as `tenon check --explain` shows it.
impl fmt::Display for Symptom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {}", self.id, self.title)?;
        writeln!(f, "Cause:  {}", self.cause)?;
        writeln!(f, "Remedy: {}", self.remedy_for(None, None))?;
        write!(f, "Source: {}", self.source)
    }
}
