//! What the kernel said since it booted: `/dev/kmsg` of the running host, or the text that a capture holds. Half of what
//! is known of an IOMMU stands nowhere else.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::tree::HostTree;

/// Where the log stands in a capture, or in any other tree that is not the running host.
pub const CAPTURED: &str = "/tenon/kernel.log";

/// The running kernel's records (`Documentation/ABI/testing/dev-kmsg`).
const KMSG: &str = "/dev/kmsg";

/// A longer line is cut: the kernel's own end at 1 KiB, and a capture's are anybody's.
pub const LONGEST_LINE: usize = 4096;

/// The most lines that are kept, the first and the last in equal parts: a flood loses its middle, not the boot.
pub const MOST_LINES: usize = 200_000;

/// More than the kernel writes as one record, so that no record is refused for its size (`PRINTKRB_RECORD_MAX`).
const RECORD: usize = 16 << 10;

/// A record may be lost between two reads while the buffer turns over; this many times in a row is a flood.
const MOST_LOST: usize = 1000;

/// The kernel's log, oldest line first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KernelLog {
    lines: Vec<String>,
    /// Why there is no log; `None` where there is one.
    pub missing: Option<String>,
    /// Whether the first lines are lost, because the kernel's buffer has turned over: what is not found in such a log may
    /// have been said all the same.
    pub begins_late: bool,
}

impl KernelLog {
    /// The log of the host the tree stands for. A log that cannot be read is empty and says why.
    pub fn of(tree: &HostTree) -> Self {
        if tree.is_live() {
            return Self::from_kmsg(Path::new(KMSG)).unwrap_or_else(|error| Self::none(unreadable(&error)));
        }
        match tree.bytes(CAPTURED) {
            Ok(bytes) => Self::from_text(&String::from_utf8_lossy(&bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Self::none("the capture holds no kernel log".to_owned())
            }
            Err(error) => Self::none(format!("{CAPTURED}: {error}")),
        }
    }

    /// A log as `dmesg` or `journalctl -k` prints it.
    pub fn from_text(text: &str) -> Self {
        let lines: Vec<String> = text.lines().map(clean).collect();
        // A whole log starts with the kernel's own banner at no time at all; one without was cut, or has turned over.
        let first = |line: &String| line.contains("Linux version ") || line.starts_with("[    0.000000]");
        let begins_late = !lines.iter().take(8).any(first);
        Self {
            begins_late: begins_late && !lines.is_empty(),
            lines: bounded(lines),
            missing: None,
        }
    }

    fn none(reason: String) -> Self {
        Self {
            missing: Some(reason),
            ..Self::default()
        }
    }

    fn from_kmsg(path: &Path) -> io::Result<Self> {
        let file = File::options()
            .read(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
            .open(path)?;
        let (mut lines, mut first) = (Vec::new(), None);
        each_record(file, |record| {
            if let Some((sequence, line)) = parse_record(record) {
                first.get_or_insert(sequence);
                lines.push(line);
            }
        })?;
        Ok(Self {
            lines: bounded(lines),
            missing: None,
            begins_late: first.is_some_and(|sequence| sequence > 0),
        })
    }

    /// The lines, oldest first, each with its time as `dmesg` writes it where it is known.
    pub fn lines(&self) -> &[String] {
        &self.lines
    }

    /// The first line that holds the text, whatever the case of either.
    pub fn find(&self, text: &str) -> Option<&str> {
        let text = text.to_ascii_lowercase();
        self.lines
            .iter()
            .find(|line| line.to_ascii_lowercase().contains(&text))
            .map(String::as_str)
    }

    /// The whole as text, as [`Self::from_text`] reads it.
    pub fn text(&self) -> String {
        self.lines.iter().fold(String::new(), |text, line| text + line + "\n")
    }
}

fn unreadable(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => {
            format!("{KMSG}: not permitted (kernel.dmesg_restrict); run as root to have the kernel log read as well")
        }
        _ => format!("{KMSG}: {error}"),
    }
}

/// Each `read` of the file gives one whole record; where there are no more, it would block.
fn each_record(mut file: File, mut record: impl FnMut(&[u8])) -> io::Result<()> {
    let mut buffer = vec![0; RECORD];
    let mut lost = 0;
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => {
                lost = 0;
                record(buffer.get(..length).unwrap_or_default());
            }
            Err(error) => match error.raw_os_error() {
                Some(libc::EAGAIN) => return Ok(()),
                Some(libc::EINTR) => {}
                // The record was overwritten before it was read; the next read gives the oldest there is.
                Some(libc::EPIPE) if lost < MOST_LOST => lost += 1,
                _ => return Err(error),
            },
        }
    }
}

/// `level,sequence,microseconds,flags[,…];message`, then lines ` KEY=value`, which add nothing here.
fn parse_record(record: &[u8]) -> Option<(u64, String)> {
    let text = String::from_utf8_lossy(record);
    let (front, message) = text.lines().next()?.split_once(';')?;
    let mut fields = front.split(',').skip(1);
    let sequence = fields.next()?.parse().ok()?;
    let micros: u64 = fields.next()?.parse().ok()?;
    let line = format!("[{:5}.{:06}] {message}", micros / 1_000_000, micros % 1_000_000);
    Some((sequence, clean(&line)))
}

/// The line cut to a length that is bearable.
fn clean(line: &str) -> String {
    line.char_indices()
        .nth(LONGEST_LINE)
        .map_or(line, |(end, _)| line.get(..end).unwrap_or(line))
        .trim_end()
        .to_owned()
}

fn bounded(mut lines: Vec<String>) -> Vec<String> {
    if lines.len() > MOST_LINES {
        let last = lines.split_off(lines.len() - MOST_LINES / 2);
        lines.truncate(MOST_LINES / 2);
        lines.extend(last);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmm_sys_util::tempdir::TempDir;

    const FEDORA_22: &str = "\
[    0.000000] Linux version 4.2.6-201.fc22.x86_64 (mockbuild@bkernel02.phx2.fedoraproject.org)
[    0.000000] DMAR: IOMMU enabled
[    0.102255] DMAR-IR: IOAPIC id 2 under DRHD base  0xfed91000 IOMMU 1
";

    #[test]
    fn a_capture_holds_its_log_as_text() {
        let dir = TempDir::new().unwrap();
        let tree = HostTree::at(dir.as_path());
        let none = KernelLog::of(&tree);
        assert_eq!((none.lines().len(), none.missing.is_some()), (0, true));

        std::fs::create_dir(dir.as_path().join("tenon")).unwrap();
        std::fs::write(dir.as_path().join("tenon/kernel.log"), FEDORA_22).unwrap();
        let log = KernelLog::of(&tree);
        assert_eq!((log.lines().len(), log.begins_late), (3, false));
        assert_eq!(
            log.find("dmar: iommu ENABLED"),
            Some("[    0.000000] DMAR: IOMMU enabled")
        );
        assert_eq!(log.find("AMD-Vi"), None);
        assert_eq!(log.text(), FEDORA_22);
    }

    #[test]
    fn a_log_without_the_banner_begins_late() {
        assert!(KernelLog::from_text("[ 7200.1] usb 1-1: new device\n").begins_late);
        assert!(!KernelLog::from_text("").begins_late);
    }

    #[test]
    fn records_are_written_as_dmesg_writes_them() {
        let record = b"6,339,5140900,-;NET: Registered PF_INET protocol family\n SUBSYSTEM=net\n";
        let line = "[    5.140900] NET: Registered PF_INET protocol family".to_owned();
        assert_eq!(parse_record(record), Some((339, line)));
        for bad in [&b""[..], b"no record", b"6,x,1,-;text", b"6;text", b"\xff\xff,\xff;x"] {
            assert_eq!(parse_record(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn floods_lose_their_middle() {
        let text: String = (0..MOST_LINES + 50).map(|number| format!("line {number}\n")).collect();
        let log = KernelLog::from_text(&text);
        assert_eq!(log.lines().len(), MOST_LINES);
        assert_eq!(log.lines().first().map(String::as_str), Some("line 0"));
        let last = format!("line {}", MOST_LINES + 49);
        assert_eq!(log.lines().last(), Some(&last));
        let long = KernelLog::from_text(&"ä".repeat(LONGEST_LINE * 3));
        assert_eq!(long.lines()[0].chars().count(), LONGEST_LINE);
    }

    #[test]
    fn the_running_kernel_answers_without_waiting() {
        let log = KernelLog::of(&HostTree::live());
        assert!(log.missing.is_some() || !log.lines().is_empty());
    }
}
