//! `tenon capture`.

use std::fs::{self, File};
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::{env, process};

use clap::Args;
use vfio::host::capture::{About, Memory, Refusal, Taken, WriteError, take, write};

use super::host::HostArgs;
use crate::exit::{ExitStatus, Failure};

const EXAMPLES: &str = "\
Examples:
  For a bug report, with all that only root may read:
    sudo tenon capture tower.tar.zst
  What is in it:
    tar --zstd -tvf tower.tar.zst
  Then, anywhere:
    tenon devices --host tower.tar.zst
    tenon check --host tower.tar.zst
  From another machine:
    ssh root@tower tenon capture - > tower.tar.zst

It holds what `tenon check` and `tenon devices` read of /sys, /proc, /etc, the kernel's log and the module tables.
Serial numbers, MAC and IP addresses, names of the host and its users, UUIDs and labels of file systems are replaced,
the same value by the same placeholder; nothing of home directories or of any process is read, but for which of them
has a VFIO device open.";

/// The flags of `tenon capture`.
#[derive(Debug, Args)]
#[command(after_help = format!("{EXAMPLES}\n\n{}", crate::exit::EXIT_STATUS_HELP))]
pub(super) struct CaptureArgs {
    /// The archive to write, a .tar.zst; `-` for standard output
    file: PathBuf,
    /// Replace the file if it is there
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    host: HostArgs,
}

/// Why there is no capture.
#[derive(Debug, thiserror::Error)]
enum CaptureError {
    #[error("{0} is there already")]
    Exists(PathBuf),
    #[error("{0} is no regular file")]
    NoFile(PathBuf),
    #[error("standard output is a terminal, and a capture is no text")]
    Terminal,
    #[error("the host's files do not fit in a capture")]
    Refused(#[from] Refusal),
    #[error("cannot write {path}")]
    File { path: PathBuf, source: io::Error },
    #[error("cannot write to standard output")]
    Output(#[source] WriteError),
}

impl Failure for CaptureError {
    fn status(&self) -> ExitStatus {
        match self {
            Self::Exists(_) | Self::NoFile(_) | Self::Terminal => ExitStatus::Configuration,
            Self::Refused(_) | Self::File { .. } | Self::Output(_) => ExitStatus::Host,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Exists(_) => Some("--force replaces it".into()),
            Self::Terminal => Some("name a file, or lead it into one: `tenon capture - > host.tar.zst`".into()),
            _ => None,
        }
    }
}

/// Takes a capture and says on standard error what is in it.
pub(super) fn run(args: &CaptureArgs) -> Result<ExitStatus, Box<dyn Failure>> {
    let to_output = args.file == Path::new("-");
    if to_output && io::stdout().is_terminal() {
        return Err(CaptureError::Terminal.into());
    }
    if !to_output {
        may_write(&args.file, args.force)?;
    }
    let tree = args.host.tree()?;
    let about = About {
        tenon: Some(env!("CARGO_PKG_VERSION").into()),
        date: Some(chrono::Utc::now().format("%Y-%m-%d").to_string()),
        ..About::new()
    };
    // A directory service's users are in no file.
    let users: Vec<String> = ["SUDO_USER", "USER", "LOGNAME"]
        .iter()
        .filter_map(|name| env::var(name).ok())
        .collect();
    let taken = take(&tree, about, &users).map_err(CaptureError::Refused)?;
    if to_output {
        write(&taken.files, io::stdout().lock()).map_err(CaptureError::Output)?;
    } else {
        save(&taken.files, &args.file, args.force)?;
    }
    let _ = io::stderr().write_all(summary(&taken, &args.file).as_bytes());
    Ok(ExitStatus::Success)
}

fn summary(taken: &Taken, file: &Path) -> String {
    let mut text = match fs::metadata(file) {
        Ok(written) => format!("{}: {} KiB", file.display(), written.len().div_ceil(1024)),
        Err(_) => "written".to_owned(),
    };
    text += &format!(", {} personal values masked\n", taken.masked);
    for line in &taken.left_out {
        text += &format!("left out: {line}\n");
    }
    text
}

fn may_write(path: &Path, force: bool) -> Result<(), CaptureError> {
    match path.symlink_metadata() {
        Ok(there) if !there.is_file() => Err(CaptureError::NoFile(path.to_owned())),
        Ok(_) if !force => Err(CaptureError::Exists(path.to_owned())),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Writes beside the file and puts it in its place at the end: half a capture is never seen.
fn save(files: &Memory, path: &Path, force: bool) -> Result<(), CaptureError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let beside = path.with_file_name(format!(".{name}.{}.part", process::id()));
    let saved = write_beside(files, &beside).and_then(|()| put_in_place(&beside, path, force));
    saved.map_err(|source| {
        let _ = fs::remove_file(&beside);
        match source.kind() {
            io::ErrorKind::AlreadyExists => CaptureError::Exists(path.to_owned()),
            _ => CaptureError::File {
                path: path.to_owned(),
                source,
            },
        }
    })
}

fn write_beside(files: &Memory, beside: &Path) -> io::Result<()> {
    let mut file = File::create_new(beside)?;
    write(files, &mut file).map_err(io::Error::other)?;
    file.sync_all()
}

fn put_in_place(beside: &Path, path: &Path, force: bool) -> io::Result<()> {
    if force {
        return fs::rename(beside, path);
    }
    // A link is refused where something stands; a file system without links leaves the check that was made before.
    match fs::hard_link(beside, path) {
        Ok(()) => fs::remove_file(beside),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(error),
        Err(_) => fs::rename(beside, path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vfio::host::Capture;
    use vmm_sys_util::tempdir::TempDir;

    fn args(file: PathBuf, force: bool) -> CaptureArgs {
        CaptureArgs {
            file,
            force,
            host: HostArgs::default(),
        }
    }

    #[test]
    fn this_host_is_captured_and_not_overwritten() {
        let dir = TempDir::new().unwrap();
        let file = dir.as_path().join("host.tar.zst");
        assert_eq!(run(&args(file.clone(), false)).unwrap(), ExitStatus::Success);
        let capture = Capture::open(&file).unwrap();
        assert_eq!(capture.skipped().count, 0);
        assert_eq!(
            capture.about().unwrap().tenon.as_deref(),
            Some(env!("CARGO_PKG_VERSION"))
        );

        let error = run(&args(file.clone(), false)).unwrap_err();
        assert_eq!(error.status(), ExitStatus::Configuration);
        assert!(error.hint().unwrap().contains("--force"));
        run(&args(file, true)).unwrap();
        let left: Vec<_> = fs::read_dir(dir.as_path()).unwrap().collect();
        assert_eq!(left.len(), 1, "{left:?}");
    }

    #[test]
    fn what_is_no_file_is_left_alone() {
        let error = run(&args("/dev/null".into(), true)).unwrap_err();
        assert!(error.to_string().contains("no regular file"), "{error}");
        let error = run(&args("/nowhere/host.tar.zst".into(), false)).unwrap_err();
        assert_eq!(error.status(), ExitStatus::Host);
    }

    #[test]
    fn one_that_came_meanwhile_stays() {
        let dir = TempDir::new().unwrap();
        let file = dir.as_path().join("host.tar.zst");
        fs::write(&file, "mine").unwrap();
        let error = save(&Memory::new(), &file, false).unwrap_err();
        assert!(matches!(error, CaptureError::Exists(_)), "{error}");
        assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
    }
}
