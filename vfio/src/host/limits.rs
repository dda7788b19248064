//! How much memory this process may lock. The type1 IOMMU driver pins every page of guest RAM and charges it to
//! `RLIMIT_MEMLOCK`, so a limit that is too low is found here, before anything is opened, and not as an `ENOMEM`
//! in the middle of mapping.

use std::fmt;
use std::path::Path;

/// `CAP_IPC_LOCK` (`include/uapi/linux/capability.h`): its holder is not bound by `RLIMIT_MEMLOCK`.
const CAP_IPC_LOCK: u32 = 14;

/// Why guest memory cannot be locked.
#[derive(Debug, thiserror::Error)]
pub enum LimitError {
    /// `/proc` could not be read or did not hold the expected line.
    #[error("cannot read the locked-memory limit from {path}: {reason}")]
    Unreadable {
        /// The file.
        path: String,
        /// What was wrong with it.
        reason: String,
    },
    /// The limit is lower than what the guest needs.
    #[error(
        "assigned devices need {} of guest memory locked, but this process may lock only {} (already locked: {}); \
         raise RLIMIT_MEMLOCK (`ulimit -l unlimited`, `LimitMEMLOCK=infinity` in a systemd unit, or a `memlock` line in \
         /etc/security/limits.d) or start with CAP_IPC_LOCK",
        Size(*needed), Size(*limit), Size(*locked)
    )]
    TooLow {
        /// Bytes that will be locked.
        needed: u64,
        /// Bytes the soft limit allows.
        limit: u64,
        /// Bytes locked already.
        locked: u64,
    },
}

/// The locked-memory allowance of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryLock {
    /// Soft limit in bytes; `None` is unlimited, which is also what `CAP_IPC_LOCK` makes of any limit.
    pub limit: Option<u64>,
    /// Bytes locked now (`VmLck`), which count against the limit.
    pub locked: u64,
}

impl MemoryLock {
    /// Reads the allowance of this process.
    ///
    /// # Errors
    /// `/proc/self/limits` or `/proc/self/status` is missing or of an unknown form.
    pub fn of_this_process() -> Result<Self, LimitError> {
        Self::read(Path::new("/proc/self"))
    }

    /// Reads the allowance from a process directory of `/proc`, or a copy of one.
    ///
    /// # Errors
    /// As [`Self::of_this_process`].
    pub fn read(process: &Path) -> Result<Self, LimitError> {
        let limits = read(&process.join("limits"))?;
        let status = read(&process.join("status"))?;
        let soft = limits
            .lines()
            .find_map(|line| line.strip_prefix("Max locked memory"))
            .and_then(|rest| rest.split_whitespace().next())
            .ok_or_else(|| unreadable(&process.join("limits"), "no line `Max locked memory`"))?;
        let exempt = field(&status, "CapEff:")
            .and_then(|mask| u64::from_str_radix(mask, 16).ok())
            .is_some_and(|mask| mask & (1 << CAP_IPC_LOCK) != 0);
        let limit =
            match soft {
                _ if exempt => None,
                "unlimited" => None,
                bytes => Some(bytes.parse().map_err(|_| {
                    unreadable(&process.join("limits"), &format!("`{bytes}` is not a number of bytes"))
                })?),
            };
        let locked = field(&status, "VmLck:")
            .and_then(|kib| kib.parse::<u64>().ok())
            .unwrap_or(0)
            .saturating_mul(1024);
        Ok(Self { limit, locked })
    }

    /// Checks that `needed` more bytes may be locked.
    ///
    /// # Errors
    /// [`LimitError::TooLow`], with the remedy.
    pub fn check(&self, needed: u64) -> Result<(), LimitError> {
        match self.limit {
            Some(limit) if self.locked.saturating_add(needed) > limit => Err(LimitError::TooLow {
                needed,
                limit,
                locked: self.locked,
            }),
            _ => Ok(()),
        }
    }
}

fn read(path: &Path) -> Result<String, LimitError> {
    std::fs::read_to_string(path).map_err(|error| unreadable(path, &error.to_string()))
}

fn unreadable(path: &Path, reason: &str) -> LimitError {
    LimitError::Unreadable {
        path: path.display().to_string(),
        reason: reason.to_owned(),
    }
}

fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status
        .lines()
        .find_map(|line| line.strip_prefix(name))?
        .split_whitespace()
        .next()
}

/// Bytes as a person reads them.
#[derive(Debug, Clone, Copy)]
pub struct Size(pub u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, name) in [(1u64 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")] {
            if self.0 >= unit {
                let tenths = (u128::from(self.0) * 10 / u128::from(unit)) % 10;
                return match tenths {
                    0 => write!(f, "{} {name}", self.0 / unit),
                    _ => write!(f, "{}.{tenths} {name}", self.0 / unit),
                };
            }
        }
        write!(f, "{} bytes", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(limit: &str, caps: &str, locked_kib: u64) -> MemoryLock {
        let dir = vmm_sys_util::tempdir::TempDir::new().unwrap();
        std::fs::write(
            dir.as_path().join("limits"),
            format!("Limit                     Soft Limit           Hard Limit           Units\nMax locked memory         {limit}              8388608              bytes\n"),
        )
        .unwrap();
        std::fs::write(
            dir.as_path().join("status"),
            format!("VmLck:\t{locked_kib} kB\nCapEff:\t{caps}\n"),
        )
        .unwrap();
        MemoryLock::read(dir.as_path()).unwrap()
    }

    #[test]
    fn a_low_limit_is_refused_with_the_remedy() {
        let lock = process("8388608", "0000000000000000", 4);
        assert_eq!(
            lock,
            MemoryLock {
                limit: Some(8 << 20),
                locked: 4096
            }
        );
        lock.check(4 << 20).unwrap();
        let message = lock.check(8 << 20).unwrap_err().to_string();
        assert!(
            message.contains("8 MiB") && message.contains("RLIMIT_MEMLOCK"),
            "{message}"
        );
    }

    #[test]
    fn unlimited_and_capable_processes_pass() {
        process("unlimited", "0000000000000000", 0).check(u64::MAX).unwrap();
        process("65536", "0000000000004000", 0).check(u64::MAX).unwrap();
    }

    #[test]
    fn this_process_can_be_read() {
        MemoryLock::of_this_process().unwrap();
    }

    #[test]
    fn sizes_read_well() {
        assert_eq!(Size(10 << 30).to_string(), "10 GiB");
        assert_eq!(Size((3 << 30) / 2).to_string(), "1.5 GiB");
        assert_eq!(Size(100).to_string(), "100 bytes");
    }
}
