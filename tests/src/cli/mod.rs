//! The lab's command line: a file a subcommand.

mod bench;
mod demo;
mod hosts;
mod prepare;
mod progress;
mod run;
mod shell;
mod test;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use tests::lab::{Config, Set};

/// The status when the lab itself fails; a script's own status is below it.
const LAB_FAILED: u8 = 125;

/// A software-emulated host with KVM, VFIO and an IOMMU, in which tenon is tried.
#[derive(Debug, Parser)]
#[command(name = "cargo lab", bin_name = "cargo lab")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a guest with a GPU and sound in the lab host, and leave pictures, sound and a report
    ///
    /// Exits with 0 only if everything was seen to be right. DIR then has splash.png, grub.png, console.png, hda.wav,
    /// hdmi.wav, guest.log, tenon.log and report.json. Takes some minutes, and a few more the first time.
    Demo(demo::Demo),
    /// Fetch and build what the lab needs, and stop there
    Prepare,
    /// Run a script as root in the lab host, with tenon on the PATH
    ///
    /// The console log and the sound files of the lab host (hda.wav, hdmi.wav) are left in target/lab/run.
    Run(run::Run),
    /// A shell in the lab host
    Shell(shell::Shell),
    /// Formatting, lints, unit tests, and the scenarios in the lab host
    Test(test::Test),
    /// Figures of tenon beside QEMU's in the same lab host
    Bench(bench::Bench),
    /// Make the captures in resources/hosts anew from the descriptions there
    Hosts(hosts::Hosts),
}

/// What a subcommand ends with.
type Outcome = Result<ExitCode, Box<dyn Error>>;

/// Runs the command line.
pub fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Demo(demo) => demo.run(),
        Command::Prepare => prepare::run(),
        Command::Run(run) => run.run(),
        Command::Shell(shell) => shell.run(),
        Command::Test(test) => test.run(),
        Command::Bench(bench) => bench.run(),
        Command::Hosts(hosts) => hosts.run(),
    };
    outcome.unwrap_or_else(|error| {
        eprint!("cargo lab: {error}");
        let mut cause = error.source();
        while let Some(error) = cause {
            eprint!(": {error}");
            cause = error.source();
        }
        eprintln!();
        ExitCode::from(LAB_FAILED)
    })
}

/// Which generation of Debian packages the lab host has.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Packages {
    /// Linux 6.12, OVMF 2025.02
    New,
    /// Linux 6.1, OVMF 2022.11
    Old,
}

impl From<Packages> for Set {
    fn from(packages: Packages) -> Self {
        match packages {
            Packages::New => Self::New,
            Packages::Old => Self::Old,
        }
    }
}

/// The lab host, for `run` and `shell`.
#[derive(Debug, Args)]
struct HostArgs {
    /// One more argument for the lab host's QEMU; repeat for each
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    qemu_arg: Vec<String>,
    /// One more argument for the lab host's kernel
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    kernel_arg: Vec<String>,
    /// A file or folder to have in the lab host, in /root unless DEST says where
    #[arg(long, value_name = "PATH[:DEST]", value_parser = file)]
    file: Vec<(PathBuf, String)>,
    /// A folder of OVMF images to stand at /usr/share/OVMF in place of the packages' own
    #[arg(long, value_name = "DIR")]
    firmware: Option<PathBuf>,
    /// Memory of the lab host in MiB
    #[arg(long, value_name = "MB", default_value_t = 6144)]
    memory: u32,
    /// Which kernel and firmware
    #[arg(long, value_enum, default_value = "new")]
    packages: Packages,
    /// The folder that the lab host has as /out
    #[arg(long, value_name = "DIR", default_value = "out")]
    out: PathBuf,
}

impl HostArgs {
    fn config(&self, logs: PathBuf) -> Result<Config, String> {
        let mut config = Config::new(self.packages.into(), logs);
        config.hardware.memory = self.memory;
        config.hardware.extra.clone_from(&self.qemu_arg);
        config.hardware.kernel_args.clone_from(&self.kernel_arg);
        config.extra.files.clone_from(&self.file);
        config.extra.firmware.clone_from(&self.firmware);
        config.out = Some(self.out.clone());
        if let Some(dir) = &self.firmware {
            let images = dir
                .read_dir()
                .map_err(|error| format!("--firmware {}: {error}", dir.display()))?;
            if !images
                .flatten()
                .any(|entry| entry.path().extension().is_some_and(|extension| extension == "fd"))
            {
                return Err(format!("--firmware {}: no *.fd in it", dir.display()));
            }
        }
        Ok(config)
    }
}

fn file(text: &str) -> Result<(PathBuf, String), String> {
    let (path, dest) = text
        .split_once(':')
        .map_or((text, None), |(path, dest)| (path, Some(dest.to_owned())));
    let path = PathBuf::from(path);
    if !path.exists() {
        return Err(format!("{} does not exist", path.display()));
    }
    let name = path
        .file_name()
        .ok_or("a path that ends in a name is wanted")?
        .to_string_lossy()
        .into_owned();
    let dest = dest.unwrap_or_else(|| format!("/root/{name}"));
    if dest.starts_with('/') {
        Ok((path, dest))
    } else {
        Err(format!("{dest}: the path in the lab host must be absolute"))
    }
}
