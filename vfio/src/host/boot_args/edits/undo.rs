//! A file without what tenon added to it. Where nobody touched it since, it becomes what it was to the byte; where
//! somebody did, our lines become what they were; and where those very lines were edited, our words alone go.

use super::super::journal::{Deed, Entry};
use super::super::place::{Place, PlaceError};

/// What is left.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Undone {
    pub after: Option<Vec<u8>>,
    /// Whether the file is not as tenon left it.
    pub by_hand: bool,
    /// A script as somebody edited it, which is no use any more but may hold work.
    pub kept: Option<Vec<u8>>,
}

pub(super) fn undone(entry: &Entry, now: &[u8]) -> Result<Undone, PlaceError> {
    let by_hand = now != entry.after;
    let mut kept = None;
    let after = match &entry.deed {
        Deed::Words { .. } if !by_hand && entry.before.is_some() => entry.before.clone(),
        Deed::Words { place, added, taken } => Some(words_out(entry, place, (added, taken), now)?),
        Deed::File { .. } if !by_hand => None,
        Deed::File { executable: true } => {
            kept = Some(now.to_vec());
            None
        }
        Deed::File { executable: false } => {
            let rest = leftover(&entry.after, now);
            (!rest.trim_ascii().is_empty()).then_some(rest)
        }
    };
    Ok(Undone { after, by_hand, kept })
}

/// The lines that are in a file besides those that tenon wrote.
pub(super) fn leftover(ours: &[u8], now: &[u8]) -> Vec<u8> {
    let mut ours: Vec<&[u8]> = lines(ours);
    let mut rest = Vec::new();
    for line in now.split_inclusive(|byte| *byte == b'\n') {
        match ours.iter().position(|other| *other == bare(line)) {
            Some(place) => drop(ours.swap_remove(place)),
            None => rest.extend_from_slice(line),
        }
    }
    rest
}

fn words_out(
    entry: &Entry,
    place: &Place,
    (added, taken): (&[String], &[String]),
    now: &[u8],
) -> Result<Vec<u8>, PlaceError> {
    match entry
        .before
        .as_deref()
        .and_then(|before| lines_back(before, &entry.after, now))
    {
        Some(bytes) => Ok(bytes),
        None => place.restore(now, added, taken),
    }
}

/// The file with the lines that tenon changed as they were before; `None` where one of those is no longer there.
fn lines_back(before: &[u8], after: &[u8], now: &[u8]) -> Option<Vec<u8>> {
    let (old, new) = (lines(before), lines(after));
    // Lines are changed in place, or appended.
    if new.len() < old.len() {
        return None;
    }
    let mut bytes = now.to_vec();
    for (at, new) in new.into_iter().enumerate() {
        let old = old.get(at).copied();
        if old == Some(new) {
            continue;
        }
        let mut start = 0;
        let place = bytes.split_inclusive(|byte| *byte == b'\n').find_map(|line| {
            let range = start..start + line.len();
            start = range.end;
            (bare(line) == new).then_some(range)
        })?;
        match old {
            Some(old) => drop(bytes.splice(place.start..place.start + new.len(), old.iter().copied())),
            None => drop(bytes.drain(place)),
        }
    }
    Some(bytes)
}

fn lines(bytes: &[u8]) -> Vec<&[u8]> {
    bytes.split_inclusive(|byte| *byte == b'\n').map(bare).collect()
}

fn bare(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\n").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(before: &str, after: &str) -> Entry {
        Entry {
            path: "/x".into(),
            deed: Deed::Words {
                place: Place::Line,
                added: vec!["iommu=pt".into()],
                taken: Vec::new(),
            },
            before: Some(before.into()),
            after: after.into(),
        }
    }

    #[test]
    fn each_degree_of_editing_is_undone() {
        let ours = entry("a\nroot=x", "a\nroot=x iommu=pt");
        for (now, expected) in [
            ("a\nroot=x iommu=pt", "a\nroot=x"),
            ("b\nroot=x iommu=pt\nc\n", "b\nroot=x\nc\n"),
            ("iommu=pt root=y", "root=y"),
            ("root=y", "root=y"),
            ("", ""),
        ] {
            let undone = undone(&ours, now.as_bytes()).unwrap();
            assert_eq!(String::from_utf8(undone.after.unwrap()).unwrap(), expected);
        }
    }

    #[test]
    fn an_appended_line_goes_alone() {
        let ours = entry("A=1", "A=1\nB=\"iommu=pt\"\n");
        for (now, expected) in [
            ("A=1\nB=\"iommu=pt\"\n", "A=1"),
            ("A=2\nB=\"iommu=pt\"\nC=3\n", "A=2\nC=3\n"),
        ] {
            let undone = undone(&ours, now.as_bytes()).unwrap();
            assert_eq!(String::from_utf8(undone.after.unwrap()).unwrap(), expected);
        }
    }

    #[test]
    fn lines_of_others_stay_in_our_files() {
        let ours = Entry {
            deed: Deed::File { executable: false },
            before: None,
            ..entry("", "# ours\nsoftdep a pre: b\n")
        };
        let after = |now: &str| undone(&ours, now.as_bytes()).unwrap().after;
        assert_eq!(after("# ours\nsoftdep a pre: b\n"), None);
        assert_eq!(after("# ours\n\nsoftdep a pre: b\n"), None);
        assert_eq!(after("# ours\noptions a b=1\n").unwrap(), b"options a b=1\n");
    }
}
