use super::{Error, Result, Roots};
use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    fs,
    path::{Path, PathBuf},
};

const LIBRARY_FOLDERS: [&str; 4] = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu", "usr/lib64", "lib64"];
const LOADER: &str = "ld-linux-x86-64.so.2";

const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const DT_NEEDED: u64 = 1;
const DT_STRTAB: u64 = 5;

/// Everything the dynamic loader opens for `programs`: library name to file, the loader included.
pub fn libraries(roots: &Roots, programs: &[PathBuf]) -> Result<BTreeMap<String, PathBuf>> {
    let mut found = BTreeMap::from([(LOADER.to_owned(), library(roots, LOADER)?)]);
    let mut pending: BTreeSet<PathBuf> = programs.iter().cloned().collect();
    while let Some(file) = pending.pop_first() {
        let bytes = fs::read(&file).map_err(Error::io(&file))?;
        for name in needed(&bytes).ok_or_else(|| Error::format(&file, &"not a dynamically linked ELF file"))? {
            if let Entry::Vacant(place) = found.entry(name) {
                let path = library(roots, place.key())?;
                pending.insert(path.clone());
                place.insert(path);
            }
        }
    }
    Ok(found)
}

fn library(roots: &Roots, name: &str) -> Result<PathBuf> {
    let names = LIBRARY_FOLDERS.map(|folder| format!("{folder}/{name}"));
    // A merged-/usr root may hold an absolute link here; the loader itself lies in the library folder.
    roots.find(&names.each_ref().map(String::as_str)).or_else(|error| {
        let dangling = roots.iter().find_map(|root| dangling(&root.join(&names[2])));
        dangling.ok_or(error)
    })
}

fn dangling(link: &Path) -> Option<PathBuf> {
    let target = fs::read_link(link).ok()?;
    let root = link.ancestors().nth(3)?;
    Some(root.join(target.strip_prefix("/").ok()?)).filter(|path| path.exists())
}

/// The `DT_NEEDED` names of a 64-bit little-endian ELF file; none when it is no such file.
fn needed(elf: &[u8]) -> Option<Vec<String>> {
    if !elf.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let headers = segments(elf)?;
    let dynamic = headers.iter().find(|header| header.kind == PT_DYNAMIC)?;
    let table = elf.get(dynamic.offset..dynamic.offset.checked_add(dynamic.size)?)?;
    let entries: Vec<(u64, u64)> = table
        .chunks_exact(16)
        .filter_map(|entry| Some((word(entry, 0)?, word(entry, 8)?)))
        .collect();
    let strings = entries.iter().find(|entry| entry.0 == DT_STRTAB)?.1;
    let load = headers
        .iter()
        .find(|it| it.kind == PT_LOAD && (it.address..it.address + it.size as u64).contains(&strings))?;
    let strings = load.offset + usize::try_from(strings - load.address).ok()?;
    let names = entries.iter().filter(|entry| entry.0 == DT_NEEDED).map(|entry| {
        let from = elf.get(strings + usize::try_from(entry.1).ok()?..)?;
        let end = from.iter().position(|&byte| byte == 0)?;
        Some(String::from_utf8_lossy(&from[..end]).into_owned())
    });
    names.collect()
}

struct Segment {
    kind: u32,
    offset: usize,
    address: u64,
    size: usize,
}

fn segments(elf: &[u8]) -> Option<Vec<Segment>> {
    // e_phoff, e_phentsize, e_phnum of Elf64_Ehdr.
    let (table, size, count) = (
        usize::try_from(word(elf, 0x20)?).ok()?,
        half(elf, 0x36)?,
        half(elf, 0x38)?,
    );
    (0..count)
        .map(|index| {
            let header = elf.get(table + index * size..)?;
            Some(Segment {
                kind: u32::from_le_bytes(header.get(..4)?.try_into().ok()?),
                offset: usize::try_from(word(header, 8)?).ok()?,
                address: word(header, 16)?,
                size: usize::try_from(word(header, 32)?).ok()?,
            })
        })
        .collect()
}

fn word(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

fn half(bytes: &[u8], at: usize) -> Option<usize> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?).into())
}

#[cfg(test)]
mod tests {
    use super::needed;

    #[test]
    fn this_test_needs_libc() {
        let elf = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let names = needed(&elf).unwrap();
        assert!(names.iter().any(|name| name.starts_with("libc.so")), "{names:?}");
    }

    #[test]
    fn other_files_are_refused() {
        assert_eq!(needed(b"#!/bin/sh\n"), None);
        assert_eq!(needed(b"\x7fELF\x02\x01\x01"), None);
    }
}
