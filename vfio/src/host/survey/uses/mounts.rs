//! What is mounted, as `/proc` tells it.

use crate::host::HostTree;

/// A mounted file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mount {
    /// `8:1`; major 0 is no block device, which btrfs and others have for each of their file systems.
    pub device: String,
    /// Where it is mounted.
    pub at: String,
    /// Its type.
    pub kind: String,
    /// What it was mounted from, in the words of whoever mounted it.
    pub source: String,
}

impl Mount {
    /// All mounts of the host; those of the first process where this one has none to tell of.
    pub(super) fn all(tree: &HostTree) -> Vec<Self> {
        for path in ["/proc/self/mountinfo", "/proc/1/mountinfo"] {
            if let Ok(text) = tree.text(path) {
                return text.lines().filter_map(mountinfo).collect();
            }
        }
        let text = tree.text("/proc/mounts").unwrap_or_default();
        text.lines().filter_map(mounts).collect()
    }
}

/// The mount that a path is on.
pub(super) fn holding<'m>(mounts: &'m [Mount], path: &str) -> Option<&'m Mount> {
    let below = |mount: &&Mount| {
        let rest = path.strip_prefix(mount.at.trim_end_matches('/'));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    // Of two at one place the later hides the earlier.
    mounts.iter().filter(below).max_by_key(|mount| mount.at.len())
}

/// `36 35 98:0 /root /at rw,noatime shared:1 - ext4 /dev/sda1 rw` (man 5 proc_pid_mountinfo).
fn mountinfo(line: &str) -> Option<Mount> {
    let (place, what) = line.split_once(" - ")?;
    let mut place = place.split(' ').skip(2);
    let mut what = what.split(' ');
    Some(Mount {
        device: place.next()?.to_owned(),
        at: unescaped(place.nth(1)?),
        kind: what.next()?.to_owned(),
        source: unescaped(what.next()?),
    })
}

/// `/dev/sda1 /at ext4 rw 0 0` (man 5 proc_mounts).
fn mounts(line: &str) -> Option<Mount> {
    let mut fields = line.split(' ');
    let source = unescaped(fields.next()?);
    Some(Mount {
        device: "0:0".to_owned(),
        at: unescaped(fields.next()?),
        kind: fields.next()?.to_owned(),
        source,
    })
}

/// White space and backslashes stand there as three octal digits.
pub(super) fn unescaped(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..3).filter(|_| *first == b'\\');
        let code = digits
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        bytes.push(code.unwrap_or(*first));
        rest = match code {
            Some(_) => after.get(3..).unwrap_or_default(),
            None => after,
        };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read() {
        let line = r"97 1 8:2 / /media/my\040disk rw,relatime shared:1 master:2 - ext4 /dev/sda\0402 rw";
        let mount = mountinfo(line).unwrap();
        assert_eq!(
            (mount.device.as_str(), mount.at.as_str(), mount.source.as_str()),
            ("8:2", "/media/my disk", "/dev/sda 2")
        );
        assert_eq!(mounts("/dev/sda1 / ext4 rw 0 0").unwrap().source, "/dev/sda1");
        for bad in ["", "1 2", "97 1 8:2 / /x rw ext4", " - "] {
            assert_eq!(mountinfo(bad), None, "{bad}");
        }
        assert_eq!(unescaped(r"a\134b\04"), r"a\b\04");
    }

    #[test]
    fn a_path_is_on_the_longest_mount_over_it() {
        let mounts: Vec<Mount> = ["/", "/home", "/home/me/x"]
            .iter()
            .map(|at| mounts(&format!("dev {at} ext4")).unwrap())
            .collect();
        for (path, at) in [
            ("/home/me/file", "/home"),
            ("/homes", "/"),
            ("/home/me/x/y", "/home/me/x"),
            ("/home", "/home"),
        ] {
            assert_eq!(holding(&mounts, path).unwrap().at, at, "{path}");
        }
        assert_eq!(holding(&[], "/x"), None);
    }
}
