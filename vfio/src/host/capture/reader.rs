//! Reads a capture. It may come from anybody: what it holds is decoded as a stream into [`Memory`] under hard limits,
//! and nothing of it ever becomes a file.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ruzstd::decoding::StreamingDecoder;

use super::about::{About, FORMAT, Format};
use super::memory::{Memory, Refusal};
use crate::host::tree::{Files, HostTree, LARGEST_FILE};

/// The most bytes that come out of an archive; a capture of a real host has some 4 MiB.
pub const LARGEST_ARCHIVE: u64 = 64 << 20;

/// The largest zstd window: what `zstd -19` uses, and the most that is held while decoding.
const LARGEST_WINDOW: u64 = 8 << 20;

/// So many of the members that were skipped are named.
const NAMED: usize = 8;

/// Why a capture cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The file cannot be opened.
    #[error("cannot open {path}")]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is no regular file.
    #[error("{0} is no regular file")]
    NoFile(PathBuf),
    /// It does not begin as a zstd stream, or asks for too much memory.
    #[error("it is no .tar.zst archive, or is packed with a window of more than {} MiB", LARGEST_WINDOW >> 20)]
    NotZstd(#[source] ruzstd::decoding::errors::FrameDecoderError),
    /// It ends early or is damaged.
    #[error("it is damaged or cut off")]
    Damaged(#[source] io::Error),
    /// It unpacks to more than is taken.
    #[error("it unpacks to more than {} MiB", LARGEST_ARCHIVE >> 20)]
    TooLarge,
    /// It has too many files in it.
    #[error(transparent)]
    TooMany(Refusal),
    /// It says that it is of a later format.
    #[error("it is of format {found}, and this tenon reads up to {FORMAT}; use the tenon that made it, or a newer one")]
    Newer {
        /// Its format.
        found: u32,
    },
    /// What it says of itself is not understood.
    #[error("its tenon/capture.toml cannot be read")]
    About(#[source] toml::de::Error),
    /// There is no `/sys` in it.
    #[error("it holds no `sys`: it is no capture of a host")]
    NoHost,
}

/// A capture, read.
#[derive(Debug)]
pub struct Capture {
    files: Memory,
    about: Option<About>,
    skipped: Skipped,
}

/// Members of an archive that were not taken.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// How many.
    pub count: usize,
    /// The first few of them, and why.
    pub named: Vec<String>,
}

impl Skipped {
    fn add(&mut self, path: &[u8], why: &str) {
        self.count += 1;
        if self.named.len() < NAMED {
            let shown: String = String::from_utf8_lossy(path).chars().take(80).collect();
            self.named.push(format!("{}: {why}", shown.escape_debug()));
        }
    }
}

impl Capture {
    /// Reads the capture in a file.
    ///
    /// # Errors
    /// See [`CaptureError`].
    pub fn open(path: &Path) -> Result<Self, CaptureError> {
        let failed = |source| CaptureError::Open {
            path: path.to_owned(),
            source,
        };
        // Before it is opened: opening a pipe would wait for its other end.
        if !path.metadata().map_err(failed)?.is_file() {
            return Err(CaptureError::NoFile(path.to_owned()));
        }
        let file = File::open(path).map_err(failed)?;
        Self::read(BufReader::new(file.take(LARGEST_ARCHIVE)))
    }

    /// Reads a capture from a stream.
    ///
    /// # Errors
    /// See [`CaptureError`].
    pub fn read(source: impl Read) -> Result<Self, CaptureError> {
        let unpacked =
            StreamingDecoder::new_with_max_window_size(source, LARGEST_WINDOW).map_err(CaptureError::NotZstd)?;
        Self::from_tar(unpacked)
    }

    /// Reads a capture that is not compressed.
    ///
    /// # Errors
    /// See [`CaptureError`].
    pub fn from_tar(source: impl Read) -> Result<Self, CaptureError> {
        let mut limited = Limited {
            source,
            left: LARGEST_ARCHIVE,
            exceeded: false,
        };
        let read = members(&mut tar::Archive::new(&mut limited));
        if limited.exceeded {
            return Err(CaptureError::TooLarge);
        }
        let (files, skipped) = read?;
        let about = about(&files)?;
        match files.list(Path::new("sys")) {
            Ok(_) => Ok(Self { files, about, skipped }),
            Err(_) => Err(CaptureError::NoHost),
        }
    }

    /// What it says of itself; `None` for an archive that was packed by hand.
    pub fn about(&self) -> Option<&About> {
        self.about.as_ref()
    }

    /// What was in the archive and is not in the tree.
    pub fn skipped(&self) -> &Skipped {
        &self.skipped
    }

    /// Its files.
    pub fn files(&self) -> &Memory {
        &self.files
    }

    /// The host that it shows.
    pub fn into_tree(self) -> HostTree {
        HostTree::of(Arc::new(self.files))
    }
}

fn members(archive: &mut tar::Archive<impl Read>) -> Result<(Memory, Skipped), CaptureError> {
    let mut files = Memory::new();
    let mut skipped = Skipped::default();
    for member in archive.entries().map_err(CaptureError::Damaged)? {
        let mut member = member.map_err(CaptureError::Damaged)?;
        let path = member.path_bytes().into_owned();
        match put(&mut files, &mut member)? {
            Ok(()) => {}
            // There is no telling what would be missing.
            Err(why @ Refusal::TooMany) => return Err(CaptureError::TooMany(why)),
            Err(why) => skipped.add(&path, &why.to_string()),
        }
    }
    Ok((files, skipped))
}

/// The outer result is the archive's, the inner one the member's.
fn put(files: &mut Memory, member: &mut tar::Entry<'_, impl Read>) -> Result<Result<(), Refusal>, CaptureError> {
    let Ok(path) = member.path().map(std::borrow::Cow::into_owned) else {
        return Ok(Err(Refusal::NotText));
    };
    Ok(match member.header().entry_type() {
        tar::EntryType::Directory => files.directory(path),
        tar::EntryType::Symlink => match member.link_name() {
            Ok(Some(target)) => files.link(path, target.into_owned()),
            Ok(None) | Err(_) => Err(Refusal::NotText),
        },
        tar::EntryType::Regular | tar::EntryType::Continuous if member.size() > LARGEST_FILE => Err(Refusal::TooLarge),
        tar::EntryType::Regular | tar::EntryType::Continuous => {
            let mut content = Vec::new();
            member.read_to_end(&mut content).map_err(CaptureError::Damaged)?;
            files.file(path, content)
        }
        // Nothing of a host is a hard link; the rest (devices, pipes, sparse files) holds nothing to read.
        _ => Err(Refusal::Kind),
    })
}

fn about(files: &Memory) -> Result<Option<About>, CaptureError> {
    let Ok(content) = files.read(Path::new(super::ABOUT.trim_start_matches('/'))) else {
        return Ok(None);
    };
    let text = String::from_utf8_lossy(&content);
    let Format { format } = toml::from_str(&text).map_err(CaptureError::About)?;
    if format > FORMAT {
        return Err(CaptureError::Newer { found: format });
    }
    toml::from_str(&text).map(Some).map_err(CaptureError::About)
}

/// Ends with an error after so many bytes, and remembers that it did.
struct Limited<R> {
    source: R,
    left: u64,
    exceeded: bool,
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.source.read(buffer)?;
        match u64::try_from(read).ok().and_then(|read| self.left.checked_sub(read)) {
            Some(left) => {
                self.left = left;
                Ok(read)
            }
            None => {
                self.exceeded = true;
                Err(io::ErrorKind::FileTooLarge.into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::capture::write;
    use ruzstd::encoding::{CompressionLevel, compress_to_vec};
    use tar::EntryType;

    /// An archive of members as (path, kind, content or target), of which no writer that is well-behaved makes one.
    fn archive(members: &[(&str, EntryType, &[u8])]) -> Vec<u8> {
        let mut archive = Vec::new();
        for (path, kind, content) in members {
            let mut header = tar::Header::new_gnu();
            header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
            header.set_entry_type(*kind);
            header.set_mode(0o644);
            let is_link = matches!(kind, EntryType::Symlink | EntryType::Link);
            if is_link {
                header.set_link_name_literal(content).unwrap();
            }
            let content: &[u8] = if is_link { &[] } else { content };
            header.set_size(content.len() as u64);
            header.set_cksum();
            archive.extend(header.as_bytes());
            archive.extend(content);
            archive.resize(archive.len().next_multiple_of(512), 0);
        }
        archive.resize(archive.len() + 1024, 0);
        archive
    }

    fn read(members: &[(&str, EntryType, &[u8])]) -> Result<Capture, CaptureError> {
        Capture::read(compress_to_vec(archive(members).as_slice(), CompressionLevel::Fastest).as_slice())
    }

    #[test]
    fn what_is_written_is_read() {
        let mut files = Memory::new();
        files.directory("sys/empty").unwrap();
        files.file("sys/name", "value\n").unwrap();
        files
            .file(format!("sys/{}/deep", "n".repeat(200)), vec![7; 100_000])
            .unwrap();
        files.link("sys/link", "../".repeat(60) + "target").unwrap();
        let mut written = Vec::new();
        write(&files, &mut written).unwrap();
        let capture = Capture::read(written.as_slice()).unwrap();
        assert_eq!((capture.skipped(), capture.about()), (&Skipped::default(), None));

        let mut again = Vec::new();
        write(capture.files(), &mut again).unwrap();
        assert_eq!(written, again);
    }

    #[test]
    fn members_that_lead_elsewhere_are_skipped_and_named() {
        let capture = read(&[
            ("sys/class", EntryType::Regular, b"1"),
            ("/etc/shadow", EntryType::Regular, b"2"),
            ("sys/../../etc/shadow", EntryType::Regular, b"3"),
            ("sys/class", EntryType::Regular, b"4"),
            ("sys/class/below", EntryType::Regular, b"5"),
            ("sys/hard", EntryType::Link, b"/etc/shadow"),
            ("sys/node", EntryType::Block, b""),
            ("sys/out", EntryType::Symlink, b"/../../etc"),
            ("sys/out/shadow", EntryType::Regular, b"6"),
            ("sys/round", EntryType::Symlink, b"about"),
            ("sys/about", EntryType::Symlink, b"round"),
        ])
        .unwrap();
        assert_eq!(capture.skipped().count, 7);
        assert_eq!(
            capture.skipped().named[0],
            "/etc/shadow: its path leads out of the archive"
        );
        let tree = capture.into_tree();
        assert_eq!(tree.text("/sys/class").unwrap(), "1");
        assert_eq!(tree.list("/sys").unwrap(), ["about", "class", "out", "round"]);
        assert!(!tree.exists("/sys/round") && !tree.exists("/sys/out/shadow") && !tree.exists("/etc"));
    }

    #[test]
    fn damage_is_told_apart_from_other_files() {
        let good = compress_to_vec(
            archive(&[("sys/class", EntryType::Regular, &[9; 70_000])]).as_slice(),
            CompressionLevel::Fastest,
        );
        for length in 0..good.len() {
            let error = Capture::read(&good[..length]).unwrap_err();
            assert!(
                matches!(error, CaptureError::NotZstd(_) | CaptureError::Damaged(_)),
                "{length}: {error}"
            );
        }
        for (what, expected) in [
            (&b"PK\x03\x04 what is this"[..], "no .tar.zst"),
            (b"", "no .tar.zst"),
            (&compress_to_vec(&[1u8; 2000][..], CompressionLevel::Fastest), "damaged"),
            (
                &compress_to_vec(&[0u8; 2000][..], CompressionLevel::Fastest),
                "holds no `sys`",
            ),
        ] {
            let error = Capture::read(what).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn bombs_do_not_go_off() {
        // A frame of blocks that each repeat one byte 128 KiB: the 512 KiB of them would unpack to 16 GiB.
        let mut bomb = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x38];
        for _ in 0..131_072 {
            bomb.extend([0x02, 0x00, 0x10, 0x00]);
        }
        let member_of_zeros = {
            let mut head = archive(&[("sys/zeros", EntryType::Regular, b"")])[..512].to_vec();
            let header = tar::Header::from_byte_slice(&head).clone();
            let mut header = header;
            header.set_size(u64::MAX >> 1);
            header.set_cksum();
            head.copy_from_slice(header.as_bytes());
            head
        };
        // The same after a header that announces a huge file.
        let mut announced = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x38, 0x00, 0x10, 0x00];
        announced.extend(&member_of_zeros);
        announced.extend(&bomb[6..]);
        let error = Capture::read(announced.as_slice()).unwrap_err();
        assert!(matches!(error, CaptureError::TooLarge), "{error}");

        // Zeros are the end of an archive: nothing after them is unpacked.
        assert!(matches!(
            Capture::read(bomb.as_slice()).unwrap_err(),
            CaptureError::NoHost
        ));
        // A window of 2 GiB.
        let error = Capture::read(&[0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xa8, 0x01, 0x00, 0x00][..]).unwrap_err();
        assert!(matches!(error, CaptureError::NotZstd(_)), "{error}");
    }

    #[test]
    fn sparse_files_are_not_filled_with_zeros() {
        let mut header = tar::Header::new_gnu();
        header.as_gnu_mut().unwrap().name[..8].copy_from_slice(b"sys/hole");
        header.set_entry_type(EntryType::GNUSparse);
        header.set_size(0);
        let gnu = header.as_gnu_mut().unwrap();
        gnu.realsize = *b"77777777777\0";
        gnu.sparse[0].offset = *b"77777777777\0";
        gnu.sparse[0].numbytes = *b"00000000000\0";
        header.set_cksum();
        let mut packed = archive(&[("sys/class", EntryType::Regular, b"1")]);
        packed.truncate(1024);
        packed.extend(header.as_bytes());
        packed.extend([0; 1024]);
        let capture = Capture::from_tar(packed.as_slice()).unwrap();
        assert_eq!(capture.skipped().count, 1, "{:?}", capture.skipped());
    }

    #[test]
    fn the_format_is_told_and_a_newer_one_refused() {
        let about = |text: &str| {
            read(&[
                ("sys/class", EntryType::Regular, b"1"),
                ("tenon/capture.toml", EntryType::Regular, text.as_bytes()),
            ])
        };
        let capture = about("format = 1\ntenon = \"0.1.0\"\ndate = \"2026-11-22\"\n").unwrap();
        assert_eq!(capture.about().unwrap().date.as_deref(), Some("2026-11-22"));
        let error = about("format = 2\ndate = 7\n").unwrap_err();
        assert!(matches!(error, CaptureError::Newer { found: 2 }), "{error}");
        assert!(error.to_string().contains("newer"), "{error}");
        assert!(matches!(about("format = ").unwrap_err(), CaptureError::About(_)));
    }

    #[test]
    fn only_regular_files_are_opened() {
        assert!(matches!(
            Capture::open(Path::new("/dev/zero")).unwrap_err(),
            CaptureError::NoFile(_)
        ));
        assert!(matches!(
            Capture::open(Path::new("/nowhere")).unwrap_err(),
            CaptureError::Open { .. }
        ));
    }
}
