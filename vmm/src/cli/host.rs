//! `--host`: the commands that only read work on a capture or a directory as they do on this host.

use std::path::PathBuf;

use clap::Args;
use vfio::host::{Capture, CaptureError, HostTree};

use crate::exit::{ExitStatus, Failure};

/// Which host a command works on.
#[derive(Debug, Default, Args)]
pub(super) struct HostArgs {
    /// Work on a capture (see `tenon capture`) or a directory instead of this host, reading only
    #[arg(long, value_name = "FILE|DIR")]
    host: Option<PathBuf>,
}

impl HostArgs {
    /// The host's files.
    pub(super) fn tree(&self) -> Result<HostTree, Box<dyn Failure>> {
        let Some(path) = &self.host else {
            return Ok(HostTree::live());
        };
        if path.is_dir() {
            let tree = HostTree::at(path);
            return match tree.is_dir("sys") {
                true => Ok(tree),
                false => Err(HostError::NoHost { path: path.clone() }.into()),
            };
        }
        let capture = Capture::open(path).map_err(|source| HostError::Capture {
            path: path.clone(),
            source,
        })?;
        let skipped = capture.skipped();
        if skipped.count > 0 {
            let named = skipped.named.join("; ");
            tracing::warn!("{}: {} members were skipped: {named}", path.display(), skipped.count);
        }
        Ok(capture.into_tree())
    }
}

/// Why there is no host to work on.
#[derive(Debug, thiserror::Error)]
enum HostError {
    #[error("--host {path}: {source}")]
    Capture { path: PathBuf, source: CaptureError },
    #[error("--host {path}: the directory holds no `sys`")]
    NoHost { path: PathBuf },
}

impl Failure for HostError {
    fn status(&self) -> ExitStatus {
        ExitStatus::Configuration
    }

    fn hint(&self) -> Option<String> {
        Some("`tenon capture FILE.tar.zst` on the host in question makes a capture".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmm_sys_util::tempdir::TempDir;

    fn tree(path: impl Into<PathBuf>) -> Result<HostTree, Box<dyn Failure>> {
        HostArgs {
            host: Some(path.into()),
        }
        .tree()
    }

    #[test]
    fn this_host_unless_told_otherwise() {
        assert!(HostArgs::default().tree().unwrap().is_live());
    }

    #[test]
    fn a_directory_stands_for_a_host() {
        let dir = TempDir::new().unwrap();
        let error = tree(dir.as_path()).unwrap_err();
        assert_eq!(error.status(), ExitStatus::Configuration);
        assert!(error.to_string().contains("holds no `sys`"), "{error}");

        std::fs::create_dir(dir.as_path().join("sys")).unwrap();
        let tree = tree(dir.as_path()).unwrap();
        assert!(!tree.is_live() && tree.is_dir("/sys"));
    }

    #[test]
    fn what_is_not_there_is_named() {
        let error = tree("/nowhere.tar.zst").unwrap_err();
        assert!(error.to_string().contains("/nowhere.tar.zst"), "{error}");
        assert!(error.hint().unwrap().contains("tenon capture"));
    }

    #[test]
    fn what_is_no_capture_is_refused() {
        let dir = TempDir::new().unwrap();
        let file = dir.as_path().join("notes.txt");
        std::fs::write(&file, "milk, bread").unwrap();
        let error = tree(file).unwrap_err();
        assert!(error.to_string().contains("no .tar.zst"), "{error}");
    }
}
