//! A private apt: own sources, own state, an empty package database, download only.
//!
//! The machine lends its mirror's address, its keys and its proxy settings; nothing of its own state is touched. With an
//! empty database apt resolves the whole closure, C library included, so that what is unpacked runs by itself.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use indicatif::{ProgressBar, ProgressStyle};

use super::StoreError;
use crate::lab::command::{self, CommandError};

/// What a set is made of; apt adds what they depend on.
const PACKAGES: &[&str] = &[
    "qemu-system-x86",
    "ovmf",
    "linux-image-amd64",
    "busybox-static",
    "kmod",
    "alsa-utils",
    "grub-efi-amd64-bin",
    "pciutils",
    "strace",
];

/// The keys Debian signs with, where its keyring package puts them.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// The machine's hooks would clean its own package cache and wake its own services on our account.
const NO_HOOKS: &str = "#clear APT::Update::Pre-Invoke;\n#clear APT::Update::Post-Invoke;\n\
                        #clear APT::Update::Post-Invoke-Success;\n#clear DPkg::Pre-Invoke;\n\
                        #clear DPkg::Pre-Install-Pkgs;\n#clear DPkg::Post-Invoke;\n";

/// A private apt root for one suite.
#[derive(Debug)]
pub struct Apt {
    dir: PathBuf,
    suite: &'static str,
}

impl Apt {
    /// Lays out the folder and writes its source list.
    pub fn new(dir: &Path, suite: &'static str) -> Result<Self, StoreError> {
        for sub in ["state/lists/partial", "cache/archives/partial"] {
            let path = dir.join(sub);
            fs::create_dir_all(&path).map_err(StoreError::io("cannot make", &path))?;
        }
        let signed = if Path::new(KEYRING).exists() {
            format!(" signed-by={KEYRING}")
        } else {
            String::new()
        };
        let apt = Self {
            dir: dir.to_path_buf(),
            suite,
        };
        apt.write("status", "")?;
        apt.write("hooks.conf", NO_HOOKS)?;
        apt.write(
            "sources.list",
            &format!("deb [arch=amd64{signed}] {} {suite} main\n", mirror()?),
        )?;
        Ok(apt)
    }

    /// Fetches the packages and everything they depend on; returns the package files.
    pub fn download(&self) -> Result<Vec<PathBuf>, StoreError> {
        let bar = ProgressBar::new_spinner().with_message(format!("{}: reading the package lists", self.suite));
        bar.enable_steady_tick(std::time::Duration::from_millis(200));
        command::run(self.command().arg("update"))?;
        let total = self.closure()?;
        bar.finish_and_clear();
        self.fetch(total)?;
        let archives = self.dir.join("cache/archives");
        let entries = fs::read_dir(&archives).map_err(StoreError::io("cannot list", &archives))?;
        let mut packages: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        packages.retain(|path| path.extension().is_some_and(|extension| extension == "deb"));
        packages.sort();
        Ok(packages)
    }

    /// Removes the package files, once they are unpacked. Failing to is no harm.
    pub fn clean(&self) {
        let _ = fs::remove_dir_all(self.dir.join("cache"));
    }

    /// How many packages the closure has.
    fn closure(&self) -> Result<u64, StoreError> {
        let plan = command::run(self.install().arg("--print-uris"))?;
        let mut names: Vec<&str> = Vec::new();
        for line in plan.lines().filter(|line| line.starts_with('\'')) {
            names.extend(line.split_whitespace().nth(1));
        }
        self.drop_others(&names)?;
        Ok(names.len() as u64)
    }

    /// Package files of an older closure would be unpacked over the newer ones.
    fn drop_others(&self, names: &[&str]) -> Result<(), StoreError> {
        let archives = self.dir.join("cache/archives");
        let entries = fs::read_dir(&archives).map_err(StoreError::io("cannot list", &archives))?;
        for path in entries
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.is_file())
        {
            if !path
                .file_name()
                .is_some_and(|name| names.iter().any(|wanted| name == *wanted))
                && path.extension().is_some_and(|extension| extension == "deb")
            {
                fs::remove_file(&path).map_err(StoreError::io("cannot remove", &path))?;
            }
        }
        Ok(())
    }

    fn fetch(&self, total: u64) -> Result<(), StoreError> {
        let style = ProgressStyle::with_template("{msg} [{bar:30}] {pos}/{len} packages")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::new(total)
            .with_style(style)
            .with_message(format!("{}: fetching", self.suite));
        let mut command = self.install();
        let program = command.get_program().to_string_lossy().into_owned();
        let start = |source| CommandError::Start {
            program: program.clone(),
            source,
        };
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(start)?;
        let errors = child
            .stderr
            .take()
            .map(|stderr| std::thread::spawn(move || std::io::read_to_string(stderr)));
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout)
                .lines()
                .map_while(Result::ok)
                .filter(|line| line.starts_with("Get:"))
                .for_each(|_| bar.inc(1));
        }
        let status = child.wait().map_err(start)?;
        bar.finish_and_clear();
        if status.success() {
            return Ok(());
        }
        let said = errors
            .and_then(|thread| thread.join().ok())
            .and_then(Result::ok)
            .unwrap_or_default();
        Err(CommandError::Failed {
            program,
            status,
            said: command::tail(&said, 15),
        }
        .into())
    }

    fn install(&self) -> Command {
        let mut command = self.command();
        command.args(["install", "--download-only", "--yes"]).args(PACKAGES);
        command
    }

    fn command(&self) -> Command {
        let mut command = Command::new("apt-get");
        command.env("LC_ALL", "C").env("DEBIAN_FRONTEND", "noninteractive");
        let path = |name: &str| self.dir.join(name).display().to_string();
        // Read after the machine's own configuration; options of the command line come after this again.
        command.arg("-c").arg(self.dir.join("hooks.conf"));
        for option in [
            format!("Dir::Etc::SourceList={}", path("sources.list")),
            "Dir::Etc::SourceParts=/dev/null".to_owned(),
            "Dir::Etc::Preferences=/dev/null".to_owned(),
            "Dir::Etc::PreferencesParts=/dev/null".to_owned(),
            format!("Dir::State={}", path("state")),
            format!("Dir::State::Status={}", path("status")),
            format!("Dir::Cache={}", path("cache")),
            "Dir::Cache::Archives=archives/".to_owned(),
            // Root's apt drops to a user who may not enter a private folder.
            "APT::Sandbox::User=".to_owned(),
            "APT::Architecture=amd64".to_owned(),
            "APT::Install-Recommends=false".to_owned(),
            "APT::Get::AllowUnauthenticated=false".to_owned(),
            "Acquire::Languages=none".to_owned(),
            "Acquire::Retries=3".to_owned(),
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".to_owned(),
        ] {
            command.arg("-o").arg(option);
        }
        command
    }

    fn write(&self, name: &str, text: &str) -> Result<(), StoreError> {
        let path = self.dir.join(name);
        fs::write(&path, text).map_err(StoreError::io("cannot write", &path))
    }
}

/// The address of the Debian archive, as this machine's apt knows it: the source of the machine's own release.
fn mirror() -> Result<String, StoreError> {
    let path = Path::new("/etc/os-release");
    let release = fs::read_to_string(path).map_err(StoreError::io("cannot read", path))?;
    let suite = release
        .lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="))
        .unwrap_or("stable")
        .trim_matches('"');
    let sources = command::run(
        Command::new("apt-get")
            .env("LC_ALL", "C")
            .args(["update", "--print-uris"]),
    )?;
    archive_of(&sources, suite).ok_or_else(|| StoreError::NoMirror {
        suite: suite.to_owned(),
    })
}

/// Finds `'URI/dists/SUITE/InRelease' …` in what `apt-get update --print-uris` prints.
fn archive_of(sources: &str, suite: &str) -> Option<String> {
    let end = format!("/dists/{suite}/InRelease");
    sources
        .lines()
        .filter_map(|line| line.split('\'').nth(1))
        .find_map(|uri| uri.strip_suffix(&end))
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::archive_of;

    #[test]
    fn takes_the_archive_of_the_release_itself() {
        let sources = "'http://mirror.example/tools/dists/tools-bookworm/InRelease' a 0 \n\
                       'http://mirror.example/debian-security/dists/bookworm-security/InRelease' b 0 \n\
                       'http://mirror.example/debian/dists/bookworm/InRelease' c 0 \n\
                       'http://mirror.example/debian/dists/bookworm/main/binary-amd64/Packages.xz' d 0 \n";
        assert_eq!(
            archive_of(sources, "bookworm").as_deref(),
            Some("http://mirror.example/debian")
        );
        assert_eq!(archive_of(sources, "trixie"), None);
    }
}
