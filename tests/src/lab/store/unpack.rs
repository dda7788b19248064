//! Packages to files: unpacked with dpkg-deb and tar, no maintainer script run.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use indicatif::{ProgressBar, ProgressStyle};

use super::{Root, StoreError};
use crate::lab::command::{self, CommandError};

/// Nothing the lab reads; drivers and file systems that no machine of the lab has are most of a kernel package.
const SKIPPED: &[&str] = &[
    "./usr/share/doc/*",
    "./usr/share/man/*",
    "./usr/share/locale/*",
    "*/kernel/drivers/media/*",
    "*/kernel/drivers/infiniband/*",
    "*/kernel/drivers/staging/*",
    "*/kernel/drivers/iio/*",
    "*/kernel/drivers/mtd/*",
    "*/kernel/drivers/isdn/*",
    "*/kernel/drivers/net/wireless/*",
    "*/kernel/drivers/gpu/drm/amd/*",
    "*/kernel/drivers/gpu/drm/i915/*",
    "*/kernel/drivers/gpu/drm/nouveau/*",
    "*/kernel/drivers/gpu/drm/radeon/*",
    "*/kernel/drivers/gpu/drm/xe/*",
    "*/kernel/sound/soc/*",
    "*/kernel/fs/btrfs/*",
    "*/kernel/fs/xfs/*",
    "*/kernel/fs/ocfs2/*",
];

/// Unpacks every package over `root`.
pub fn all(packages: &[PathBuf], root: &Path, name: &str) -> Result<(), StoreError> {
    // Packages of before the merge of /usr still carry files under /lib and /bin; one folder each is what the merge is.
    for dir in ["bin", "lib", "lib64", "sbin"] {
        let target = root.join("usr").join(dir);
        fs::create_dir_all(&target).map_err(StoreError::io("cannot make", &target))?;
        let link = root.join(dir);
        symlink(Path::new("usr").join(dir), &link).map_err(StoreError::io("cannot link", &link))?;
    }
    let style = ProgressStyle::with_template("{msg} [{bar:30}] {pos}/{len} packages")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::new(packages.len() as u64)
        .with_style(style)
        .with_message(format!("{name}: unpacking"));
    for package in packages {
        one(package, root)?;
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(())
}

fn one(package: &Path, root: &Path) -> Result<(), StoreError> {
    let start = |source| CommandError::Start {
        program: "dpkg-deb".to_owned(),
        source,
    };
    let mut deb = Command::new("dpkg-deb")
        .arg("--fsys-tarfile")
        .arg(package)
        .stdout(Stdio::piped())
        .spawn()
        .map_err(start)?;
    let archive = deb.stdout.take().map_or_else(Stdio::null, Stdio::from);
    let mut tar = Command::new("tar");
    // dpkg-deb's own -x would replace the links of the merged /usr by folders.
    tar.args([
        "--extract",
        "--keep-directory-symlink",
        "--no-same-owner",
        "--delay-directory-restore",
        "--directory",
    ])
    .arg(root);
    tar.args(SKIPPED.iter().map(|pattern| format!("--exclude={pattern}")));
    let output = tar.stdin(archive).output().map_err(|source| CommandError::Start {
        program: "tar".to_owned(),
        source,
    })?;
    let status = deb.wait().map_err(start)?;
    for (program, status) in [("tar", output.status), ("dpkg-deb", status)] {
        if !status.success() {
            let said = format!("{}: {}", package.display(), String::from_utf8_lossy(&output.stderr));
            return Err(CommandError::Failed {
                program: program.to_owned(),
                status,
                said,
            }
            .into());
        }
    }
    Ok(())
}

/// Writes the index of the kernel's modules, which the kernel package leaves to its installation script.
pub fn depmod(root: &Root) -> Result<(), StoreError> {
    let loader = root.command("usr/bin/kmod")?;
    // kmod goes by the name it was called with.
    let mut command = Command::new(loader.get_program());
    command.args(
        loader
            .get_args()
            .map(|arg| if arg == "kmod" { "depmod".as_ref() } else { arg }),
    );
    command.arg("-b").arg(root.path()).arg(root.kernel_release()?);
    command::run(&mut command)?;
    Ok(())
}
