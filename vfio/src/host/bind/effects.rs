//! What is done to the host: files of `/sys` written and modules loaded, each within a time limit.
//!
//! Unbinding a driver may wait in the kernel for whoever has the device open, for ever and beyond the reach of signals.
//! A process with a thread in there cannot even exit. So each write is done by a child process, which is left behind
//! where it does not come back. It shares the journal's lock, so that a write which outlives a killed parent is over
//! before anybody undoes it.

use std::ffi::OsString;
use std::fmt::Debug;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::error::root_hint;
use super::journal::{Journal, JournalError};
use crate::container::OpenError;
use crate::group;
use crate::host::Sysfs;

/// What taking and giving back does to a host. Reading is a [`HostTree`](crate::host::HostTree)'s part.
pub trait Effects: Debug {
    /// Writes to a file of `/sys`.
    ///
    /// # Errors
    /// See [`WriteError`].
    fn write(&self, path: &Path, text: &str) -> Result<(), WriteError>;

    /// Loads a kernel module by its name or by a device's `modalias`.
    ///
    /// # Errors
    /// `modprobe` is missing, or does not find the module or load it.
    fn load(&self, module: &str) -> Result<(), LoadError>;

    /// Opens an IOMMU group and lets it go again.
    ///
    /// # Errors
    /// It does not open, or is not fit for a guest.
    fn open_group(&self, sysfs: &Sysfs, group: u32) -> Result<(), OpenError>;
}

/// A write to `/sys` that did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The kernel refused.
    #[error("writing `{text}` to {path}: {source}{}", root_hint(source))]
    Refused {
        /// The file.
        path: PathBuf,
        /// What was written.
        text: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel has not answered in time. The write goes on in a process that nothing can end.
    #[error(
        "writing `{text}` to {path} has not come back within {} s: the kernel waits for whoever has the function open",
        limit.as_secs_f32()
    )]
    Stuck {
        /// The file.
        path: PathBuf,
        /// What is being written.
        text: String,
        /// How long it had.
        limit: Duration,
        /// The process that is left behind.
        writer: u32,
    },
    /// The process that writes could not be started or failed by itself.
    #[error("the process that writes to {path} failed: {source}")]
    Writer {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A module that was not loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// No `modprobe`.
    #[error("cannot run modprobe: {0}; install kmod, or load {1} yourself")]
    NoModprobe(io::Error, String),
    /// It said no.
    #[error("modprobe {module} failed: {said}")]
    Refused {
        /// The module.
        module: String,
        /// What modprobe said.
        said: String,
    },
    /// It has not come back.
    #[error("modprobe {module} has not come back within {} s; see the kernel's log (dmesg)", limit.as_secs())]
    Stuck {
        /// The module.
        module: String,
        /// How long it had.
        limit: Duration,
    },
}

/// Loading a module reads it from a disk and runs its probes, which may wait for devices.
const LOAD_LIMIT: Duration = Duration::from_secs(60);

/// The running host.
#[derive(Debug)]
pub struct LiveEffects {
    program: PathBuf,
    arguments: Vec<OsString>,
    limit: Duration,
    lock: File,
}

impl LiveEffects {
    /// Writes through this same program, started with `arguments` and the path, which then calls [`write_stdin_to`].
    ///
    /// # Errors
    /// The journal's lock cannot be shared.
    pub fn through_this_program(arguments: &[&str], limit: Duration, journal: &Journal) -> Result<Self, JournalError> {
        let lock = journal.share_lock()?;
        Ok(Self::through(Path::new("/proc/self/exe"), arguments, limit, lock))
    }

    fn through(program: &Path, arguments: &[&str], limit: Duration, lock: File) -> Self {
        Self {
            program: program.to_owned(),
            arguments: arguments.iter().map(OsString::from).collect(),
            limit,
            lock,
        }
    }
}

impl Effects for LiveEffects {
    fn write(&self, path: &Path, text: &str) -> Result<(), WriteError> {
        let failed = |source| WriteError::Writer {
            path: path.to_owned(),
            source,
        };
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).arg(path);
        // Held open by a child that stays behind, our output would never end for whoever reads it.
        command.stdin(Stdio::piped()).stderr(Stdio::null());
        // The one other descriptor that a child inherits without more ado; it writes nothing there.
        command.stdout(self.lock.try_clone().map_err(failed)?);
        // Control-C is for us to see and to undo, not for a half-done write.
        let mut child = command.process_group(0).spawn().map_err(failed)?;
        if let Some(mut input) = child.stdin.take() {
            // A writer that ended without reading says why by its status.
            let _ = input.write_all(text.as_bytes());
        }
        tracing::debug!("writing `{}` to {}", text.trim_end(), path.display());
        match wait(&mut child, self.limit).map_err(failed)? {
            None => Err(WriteError::Stuck {
                path: path.to_owned(),
                text: text.trim_end().to_owned(),
                limit: self.limit,
                writer: child.id(),
            }),
            Some(status) => match status.code() {
                Some(0) => Ok(()),
                Some(errno) if errno != NO_ERRNO => Err(WriteError::Refused {
                    path: path.to_owned(),
                    text: text.trim_end().to_owned(),
                    source: io::Error::from_raw_os_error(errno),
                }),
                _ => Err(failed(io::Error::other(status.to_string()))),
            },
        }
    }

    fn load(&self, module: &str) -> Result<(), LoadError> {
        let mut command = Command::new("modprobe");
        command
            .args(["--", module])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let no_modprobe = |source| LoadError::NoModprobe(source, module.to_owned());
        let mut child = command.process_group(0).spawn().map_err(no_modprobe)?;
        let Some(status) = wait(&mut child, LOAD_LIMIT).map_err(no_modprobe)? else {
            return Err(LoadError::Stuck {
                module: module.to_owned(),
                limit: LOAD_LIMIT,
            });
        };
        if status.success() {
            return Ok(());
        }
        let mut said = Vec::new();
        if let Some(stderr) = child.stderr.take() {
            let _ = stderr.take(4096).read_to_end(&mut said);
        }
        let said = String::from_utf8_lossy(&said);
        let said = said.lines().last().map(str::trim).filter(|line| !line.is_empty());
        Err(LoadError::Refused {
            module: module.to_owned(),
            said: said.map_or_else(|| status.to_string(), str::to_owned),
        })
    }

    fn open_group(&self, sysfs: &Sysfs, group: u32) -> Result<(), OpenError> {
        group::open(group, sysfs).map(drop)
    }
}

/// Waits for a child's end; `None` after the limit.
fn wait(child: &mut Child, limit: Duration) -> io::Result<Option<ExitStatus>> {
    let end = Instant::now() + limit;
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        let now = Instant::now();
        if now >= end {
            return Ok(None);
        }
        thread::sleep(pause.min(end - now));
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// Exit status of a writer that failed for no reason of the kernel's; no errno is that high.
const NO_ERRNO: i32 = 255;

/// The child's part: what stands on standard input goes to the file, in one write. Answers its exit status.
pub fn write_stdin_to(path: &Path) -> u8 {
    let done = || -> io::Result<()> {
        if !path.starts_with("/sys") {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        let mut text = Vec::new();
        io::stdin().lock().take(4096).read_to_end(&mut text)?;
        // One call: sysfs takes each as a whole command.
        let written = std::fs::OpenOptions::new().write(true).open(path)?.write(&text)?;
        match written == text.len() {
            true => Ok(()),
            false => Err(io::Error::from_raw_os_error(libc::EIO)),
        }
    };
    match done() {
        Ok(()) => 0,
        Err(error) => error
            .raw_os_error()
            .and_then(|errno| u8::try_from(errno).ok())
            .unwrap_or(u8::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmm_sys_util::tempdir::TempDir;

    fn shell(script: &str, limit: Duration) -> LiveEffects {
        let lock = File::open("/dev/null").unwrap();
        LiveEffects::through(Path::new("/bin/sh"), &["-c", script, "writer"], limit, lock)
    }

    #[test]
    fn a_write_reaches_its_file() {
        let dir = TempDir::new().unwrap();
        let file = dir.as_path().join("driver_override");
        shell("cat >\"$1\"", LOAD_LIMIT).write(&file, "vfio-pci").unwrap();
        assert_eq!(std::fs::read_to_string(file).unwrap(), "vfio-pci");
    }

    #[test]
    fn what_the_kernel_says_comes_back() {
        let error = shell("exit 13", LOAD_LIMIT)
            .write(Path::new("/sys/x"), "0000:01:00.0")
            .unwrap_err();
        let message = error.to_string();
        assert!(
            message.contains("`0000:01:00.0` to /sys/x") && message.contains("as root"),
            "{message}"
        );
        for script in ["exit 255", "kill -9 $$"] {
            let error = shell(script, LOAD_LIMIT).write(Path::new("/sys/x"), "1").unwrap_err();
            assert!(matches!(error, WriteError::Writer { .. }), "{error}");
        }
    }

    /// Opening a pipe that nobody reads waits for ever, as unbinding a driver does that somebody uses.
    #[test]
    fn a_write_that_hangs_is_left_behind() {
        let dir = TempDir::new().unwrap();
        let pipe = dir.as_path().join("unbind");
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let start = Instant::now();
        let error = shell("exec cat >\"$1\"", Duration::from_millis(200))
            .write(&pipe, "x")
            .unwrap_err();
        assert!(start.elapsed() < Duration::from_secs(5));
        let WriteError::Stuck { writer, .. } = error else {
            panic!("{error}")
        };
        assert!(Path::new(&format!("/proc/{writer}")).exists());
        // Somebody reads at last, and it ends by itself.
        assert_eq!(std::fs::read_to_string(&pipe).unwrap(), "x");
    }

    #[test]
    fn a_write_keeps_the_lock_of_a_parent_that_is_killed() {
        let dir = TempDir::new().unwrap();
        let (pipe, path) = (dir.as_path().join("unbind"), dir.as_path().join("lock"));
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let lock = File::create(&path).unwrap();
        lock.lock().unwrap();
        let shared = LiveEffects {
            lock: lock.try_clone().unwrap(),
            ..shell("exec cat <&0 3>&1 >\"$1\"", Duration::from_millis(100))
        };
        shared.write(&pipe, "x").unwrap_err();
        // Killed, it closes its descriptors; it does not unlock.
        drop((lock, shared));
        let next = File::open(&path).unwrap();
        assert!(next.try_lock().is_err());
        assert_eq!(std::fs::read_to_string(&pipe).unwrap(), "x");
        next.lock().unwrap();
    }

    #[test]
    fn unknown_modules_are_refused() {
        let error = shell("", LOAD_LIMIT).load("no-such-module-at-all").unwrap_err();
        assert!(error.to_string().contains("no-such-module-at-all"), "{error}");
    }
}
