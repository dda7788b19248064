//! The script by which OVMF loads ACPI tables from fw_cfg (`etc/table-loader`), and an interpreter of it.
//!
//! The interpreter applies the rules of edk2 `OvmfPkg/AcpiPlatformDxe/QemuFwCfgAcpi.c`: a directly booted kernel gets
//! its tables through it, and the tests read our own scripts with it.

use std::collections::BTreeMap;

use crate::AddressRange;

/// Size of one command in bytes; the script is a multiple of it.
pub const COMMAND_SIZE: usize = 128;

/// Size of the file name fields, terminating NUL included.
const NAME_SIZE: usize = 56;

/// OVMF installs at most this many tables.
const MAX_TABLES: usize = 128;

/// Largest alignment OVMF accepts: a page.
const MAX_ALIGN: u32 = 4096;

/// Length of the header every table but the FACS starts with (ACPI 6.5 §5.2.6).
const HEADER_SIZE: usize = 36;

/// What is wrong with a script.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum LoaderError {
    /// A file name does not fit its field.
    #[error("file name `{0}` is longer than 55 bytes: fw_cfg names cannot be, shorten it")]
    NameTooLong(String),
    /// The script is not a whole number of commands.
    #[error("the script is {0} bytes long, which is not a multiple of 128")]
    PartialCommand(usize),
    /// A command breaks a rule; OVMF would then install no ACPI table at all.
    #[error("command {index} ({command}): {why}")]
    Command {
        /// Position in the script, from 0.
        index: usize,
        /// The command's name.
        command: &'static str,
        /// The rule broken.
        why: String,
    },
}

/// Where a blob is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Zone {
    /// Anywhere below 4 GiB.
    High = 1,
    /// In 0xE0000–0xFFFFF, where a BIOS operating system looks for the RSDP.
    FSegment = 2,
}

/// One command of the script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Load a file into memory.
    Allocate {
        /// fw_cfg file.
        file: String,
        /// Power of two, at most a page.
        align: u32,
        /// Where.
        zone: Zone,
    },
    /// Add the address of `pointee` to the field at `offset` in `pointer`, which holds an offset into `pointee`.
    AddPointer {
        /// File that holds the field.
        pointer: String,
        /// File pointed into.
        pointee: String,
        /// Offset of the field.
        offset: u32,
        /// Width of the field: 1, 2, 4 or 8 bytes.
        size: u8,
    },
    /// Store the checksum of a range of `file`; the result byte must hold 0 and usually lies in the range.
    AddChecksum {
        /// File summed.
        file: String,
        /// Offset of the result byte.
        result: u32,
        /// Offset of the range.
        start: u32,
        /// Length of the range.
        length: u32,
    },
    /// Tell the machine, through the writable file `pointer`, where `pointee` went.
    WritePointer {
        /// Writable file that receives the address.
        pointer: String,
        /// File whose address it is.
        pointee: String,
        /// Offset in `pointer`.
        offset: u32,
        /// Added to the address of `pointee`.
        pointee_offset: u32,
        /// Width of the field: 1, 2, 4 or 8 bytes.
        size: u8,
    },
}

impl Command {
    const fn name(&self) -> &'static str {
        match self {
            Self::Allocate { .. } => "ALLOCATE",
            Self::AddPointer { .. } => "ADD_POINTER",
            Self::AddChecksum { .. } => "ADD_CHECKSUM",
            Self::WritePointer { .. } => "WRITE_POINTER",
        }
    }

    /// The command's 128 bytes.
    ///
    /// # Errors
    /// [`LoaderError::NameTooLong`].
    pub fn to_bytes(&self) -> Result<[u8; COMMAND_SIZE], LoaderError> {
        let mut bytes = [0; COMMAND_SIZE];
        match self {
            Self::Allocate { file, align, zone } => {
                put(&mut bytes, 0, &1u32.to_le_bytes());
                put_name(&mut bytes, 4, file)?;
                put(&mut bytes, 60, &align.to_le_bytes());
                put(&mut bytes, 64, &[*zone as u8]);
            }
            Self::AddPointer {
                pointer,
                pointee,
                offset,
                size,
            } => {
                put(&mut bytes, 0, &2u32.to_le_bytes());
                put_name(&mut bytes, 4, pointer)?;
                put_name(&mut bytes, 60, pointee)?;
                put(&mut bytes, 116, &offset.to_le_bytes());
                put(&mut bytes, 120, &[*size]);
            }
            Self::AddChecksum {
                file,
                result,
                start,
                length,
            } => {
                put(&mut bytes, 0, &3u32.to_le_bytes());
                put_name(&mut bytes, 4, file)?;
                put(&mut bytes, 60, &result.to_le_bytes());
                put(&mut bytes, 64, &start.to_le_bytes());
                put(&mut bytes, 68, &length.to_le_bytes());
            }
            Self::WritePointer {
                pointer,
                pointee,
                offset,
                pointee_offset,
                size,
            } => {
                put(&mut bytes, 0, &4u32.to_le_bytes());
                put_name(&mut bytes, 4, pointer)?;
                put_name(&mut bytes, 60, pointee)?;
                put(&mut bytes, 116, &offset.to_le_bytes());
                put(&mut bytes, 120, &pointee_offset.to_le_bytes());
                put(&mut bytes, 124, &[*size]);
            }
        }
        Ok(bytes)
    }

    /// Reads one command; `None` for the types OVMF skips, zero padding among them. `Err` says what is malformed.
    fn from_bytes(bytes: &[u8; COMMAND_SIZE]) -> Result<Option<Self>, (&'static str, String)> {
        let name = |at, command: &'static str| get_name(bytes, at).map_err(|why| (command, why));
        Ok(match get_u32(bytes, 0) {
            1 => Some(Self::Allocate {
                file: name(4, "ALLOCATE")?,
                align: get_u32(bytes, 60),
                // OVMF ignores the zone; an unknown one is no reason to refuse.
                zone: if bytes[64] == Zone::FSegment as u8 {
                    Zone::FSegment
                } else {
                    Zone::High
                },
            }),
            2 => Some(Self::AddPointer {
                pointer: name(4, "ADD_POINTER")?,
                pointee: name(60, "ADD_POINTER")?,
                offset: get_u32(bytes, 116),
                size: bytes[120],
            }),
            3 => Some(Self::AddChecksum {
                file: name(4, "ADD_CHECKSUM")?,
                result: get_u32(bytes, 60),
                start: get_u32(bytes, 64),
                length: get_u32(bytes, 68),
            }),
            4 => Some(Self::WritePointer {
                pointer: name(4, "WRITE_POINTER")?,
                pointee: name(60, "WRITE_POINTER")?,
                offset: get_u32(bytes, 116),
                pointee_offset: get_u32(bytes, 120),
                size: bytes[124],
            }),
            _ => None,
        })
    }
}

/// Writes a script, padded with zeros to `size` bytes if it is shorter (OVMF skips the padding).
///
/// # Errors
/// [`LoaderError::NameTooLong`].
pub fn write(commands: &[Command], size: usize) -> Result<Vec<u8>, LoaderError> {
    let mut script = Vec::with_capacity(size.max(commands.len() * COMMAND_SIZE));
    for command in commands {
        script.extend_from_slice(&command.to_bytes()?);
    }
    script.resize(script.len().max(size), 0);
    Ok(script)
}

/// Where [`replay`] may put blobs.
#[derive(Clone, Copy, Debug)]
pub struct Zones {
    /// For [`Zone::High`]; below 4 GiB.
    pub high: AddressRange,
    /// For [`Zone::FSegment`].
    pub f_segment: AddressRange,
}

/// A file as the script left it in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlacedBlob {
    /// fw_cfg file.
    pub file: String,
    /// Guest physical address.
    pub address: u64,
    /// Contents, pointers and checksums filled in.
    pub bytes: Vec<u8>,
}

/// A table OVMF would install.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InstalledTable {
    /// Its signature.
    pub signature: [u8; 4],
    /// Guest physical address.
    pub address: u64,
    /// Length in bytes.
    pub length: u32,
}

/// A value the script stores in a writable fw_cfg file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PointerWrite {
    /// The writable file.
    pub file: String,
    /// Offset in it.
    pub offset: u32,
    /// Little-endian, as wide as the field.
    pub value: Vec<u8>,
}

/// What a script does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replay {
    /// The memory image, in the order of allocation.
    pub blobs: Vec<PlacedBlob>,
    /// The tables pointed to; RSDT and XSDT are not among them, as OVMF makes its own.
    pub tables: Vec<InstalledTable>,
    /// What WRITE_POINTER stored.
    pub writes: Vec<PointerWrite>,
}

impl Replay {
    /// Where a file went.
    #[must_use]
    pub fn blob(&self, file: &str) -> Option<&PlacedBlob> {
        self.blobs.iter().find(|blob| blob.file == file)
    }
}

/// Runs `script` over `files` (fw_cfg names to contents) as OVMF would, allocating in `zones`.
///
/// # Errors
/// The first rule broken; OVMF then installs nothing.
pub fn replay(script: &[u8], files: &BTreeMap<&str, &[u8]>, zones: &Zones) -> Result<Replay, LoaderError> {
    let (commands, rest) = script.as_chunks::<COMMAND_SIZE>();
    if !rest.is_empty() {
        return Err(LoaderError::PartialCommand(script.len()));
    }
    let mut loader = Loader {
        files,
        zones: *zones,
        done: Replay::default(),
        targets: Vec::new(),
    };
    for (index, bytes) in commands.iter().enumerate() {
        let fail = |(command, why)| LoaderError::Command { index, command, why };
        if let Some(command) = Command::from_bytes(bytes).map_err(fail)? {
            loader.run(&command).map_err(|why| fail((command.name(), why)))?;
        }
    }
    loader.install();
    Ok(loader.done)
}

/// The state of a replay. `targets` are the addresses ADD_POINTER produced, as (blob, offset), in script order.
struct Loader<'a> {
    files: &'a BTreeMap<&'a str, &'a [u8]>,
    zones: Zones,
    done: Replay,
    targets: Vec<(usize, usize)>,
}

impl Loader<'_> {
    fn run(&mut self, command: &Command) -> Result<(), String> {
        match command {
            Command::Allocate { file, align, zone } => self.allocate(file, *align, *zone),
            Command::AddPointer {
                pointer,
                pointee,
                offset,
                size,
            } => self.add_pointer(pointer, pointee, *offset, *size),
            Command::AddChecksum {
                file,
                result,
                start,
                length,
            } => self.add_checksum(file, *result, *start, *length),
            Command::WritePointer {
                pointer,
                pointee,
                offset,
                pointee_offset,
                size,
            } => {
                let blob = &self.done.blobs[self.find(pointee)?];
                if *pointee_offset as usize >= blob.bytes.len() {
                    return Err(format!("offset {pointee_offset:#x} is beyond `{pointee}`"));
                }
                let value = fit(blob.address + u64::from(*pointee_offset), *size)?;
                self.done.writes.push(PointerWrite {
                    file: pointer.clone(),
                    offset: *offset,
                    value,
                });
                Ok(())
            }
        }
    }

    fn find(&self, file: &str) -> Result<usize, String> {
        let found = self.done.blobs.iter().position(|blob| blob.file == file);
        found.ok_or_else(|| format!("`{file}` has not been allocated"))
    }

    fn allocate(&mut self, file: &str, align: u32, zone: Zone) -> Result<(), String> {
        if !align.is_power_of_two() || align > MAX_ALIGN {
            return Err(format!("alignment {align} is not a power of two up to {MAX_ALIGN}"));
        }
        if self.find(file).is_ok() {
            return Err(format!("`{file}` is allocated twice"));
        }
        let bytes = self
            .files
            .get(file)
            .ok_or_else(|| format!("no fw_cfg file `{file}`"))?
            .to_vec();
        let room = match zone {
            Zone::High => &mut self.zones.high,
            Zone::FSegment => &mut self.zones.f_segment,
        };
        let address = room.base.next_multiple_of(u64::from(align));
        let used = address - room.base + bytes.len() as u64;
        room.size = room
            .size
            .checked_sub(used)
            .ok_or_else(|| format!("`{file}` ({} bytes) does not fit {room}", bytes.len()))?;
        room.base += used;
        self.done.blobs.push(PlacedBlob {
            file: file.to_owned(),
            address,
            bytes,
        });
        Ok(())
    }

    fn add_pointer(&mut self, pointer: &str, pointee: &str, offset: u32, size: u8) -> Result<(), String> {
        let (pointer_index, pointee_index) = (self.find(pointer)?, self.find(pointee)?);
        let target = &self.done.blobs[pointee_index];
        let (base, target_len) = (target.address, target.bytes.len());
        let bytes = &mut self.done.blobs[pointer_index].bytes;
        if !matches!(size, 1 | 2 | 4 | 8) {
            return Err(format!("a pointer of {size} bytes"));
        }
        let start = offset as usize;
        let field = bytes
            .get_mut(start..start.saturating_add(size.into()))
            .ok_or_else(|| format!("the field at {offset:#x} is beyond `{pointer}`"))?;
        let mut value = [0; 8];
        value[..field.len()].copy_from_slice(field);
        let relative = u64::from_le_bytes(value);
        if relative >= target_len as u64 {
            return Err(format!(
                "the field at {offset:#x} holds {relative:#x}, beyond `{pointee}`"
            ));
        }
        field.copy_from_slice(&fit(base + relative, size)?);
        self.targets.push((pointee_index, relative as usize));
        Ok(())
    }

    fn add_checksum(&mut self, file: &str, result: u32, start: u32, length: u32) -> Result<(), String> {
        let index = self.find(file)?;
        let bytes = &mut self.done.blobs[index].bytes;
        let range = start as usize..(start as usize).saturating_add(length as usize);
        let sum = crate::checksum(
            bytes
                .get(range)
                .ok_or_else(|| format!("the range is beyond `{file}`"))?,
        );
        *bytes
            .get_mut(result as usize)
            .ok_or_else(|| format!("the result byte is beyond `{file}`"))? = sum;
        Ok(())
    }

    /// The second pass: whatever a pointer leads to is installed if it looks like a table.
    fn install(&mut self) {
        for (blob, offset) in &self.targets {
            let blob = &self.done.blobs[*blob];
            let Some((signature, length)) = table_at(&blob.bytes[*offset..]) else {
                continue;
            };
            let table = InstalledTable {
                signature,
                address: blob.address + *offset as u64,
                length,
            };
            let own = matches!(&signature, b"RSDT" | b"XSDT");
            if !own && !self.done.tables.contains(&table) && self.done.tables.len() < MAX_TABLES {
                self.done.tables.push(table);
            }
        }
    }
}

/// Signature and length of the table at the start of `bytes`, if OVMF would take it for one.
fn table_at(bytes: &[u8]) -> Option<([u8; 4], u32)> {
    let signature: [u8; 4] = bytes.get(..4)?.try_into().ok()?;
    let length = u32::from_le_bytes(bytes.get(4..8)?.try_into().ok()?);
    let table = bytes.get(..length as usize)?;
    if &signature == b"FACS" {
        return (table.len() >= 64).then_some((signature, length));
    }
    (table.len() >= HEADER_SIZE && crate::checksum(table) == 0).then_some((signature, length))
}

/// `value` in `size` little-endian bytes.
fn fit(value: u64, size: u8) -> Result<Vec<u8>, String> {
    let bytes = value.to_le_bytes();
    let (kept, lost) = bytes
        .split_at_checked(size.into())
        .ok_or_else(|| format!("a pointer of {size} bytes"))?;
    if lost.iter().any(|byte| *byte != 0) {
        return Err(format!("address {value:#x} does not fit {size} bytes"));
    }
    Ok(kept.to_vec())
}

fn put(bytes: &mut [u8; COMMAND_SIZE], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

fn put_name(bytes: &mut [u8; COMMAND_SIZE], at: usize, name: &str) -> Result<(), LoaderError> {
    if name.len() >= NAME_SIZE {
        return Err(LoaderError::NameTooLong(name.to_owned()));
    }
    put(bytes, at, name.as_bytes());
    Ok(())
}

fn get_u32(bytes: &[u8; COMMAND_SIZE], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn get_name(bytes: &[u8; COMMAND_SIZE], at: usize) -> Result<String, String> {
    let field = &bytes[at..at + NAME_SIZE];
    let end = field
        .iter()
        .position(|byte| *byte == 0)
        .ok_or("a file name without a terminating NUL")?;
    String::from_utf8(field[..end].to_vec()).map_err(|_| "a file name that is not text".to_owned())
}

#[cfg(test)]
mod tests;
