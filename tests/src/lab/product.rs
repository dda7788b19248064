//! What is under test: `tenon` and the lab's agent, built static so that they run where there is no C library.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::command::{self, CommandError};

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// The binaries that go into the lab host.
#[derive(Debug, Clone)]
pub struct Product {
    /// The monitor.
    pub tenon: PathBuf,
    /// The lab's agent.
    pub agent: PathBuf,
}

impl Product {
    /// Builds them, or finds them built.
    ///
    /// # Errors
    /// When the build fails; the compiler's messages are in the error.
    pub fn build() -> Result<Self, CommandError> {
        // A folder of its own: other flags in the same one would rebuild everything, back and forth.
        let target = target_dir().join("lab-static");
        let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo
            .current_dir(workspace())
            .args(["build", "--quiet", "--release", "--locked", "--target", TARGET]);
        cargo.args([
            "--package",
            "tenon",
            "--package",
            "tests",
            "--bin",
            "tenon",
            "--bin",
            "lab-agent",
        ]);
        cargo
            .env("CARGO_TARGET_DIR", &target)
            .env("RUSTFLAGS", "-C target-feature=+crt-static")
            .env_remove("CARGO_ENCODED_RUSTFLAGS");
        command::run(&mut cargo)?;
        let built = target.join(TARGET).join("release");
        Ok(Self {
            tenon: built.join("tenon"),
            agent: built.join("lab-agent"),
        })
    }
}

/// The workspace this lab was built from.
#[must_use]
pub fn workspace() -> &'static Path {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package)
}

/// Where Cargo builds, and the lab keeps its logs.
#[must_use]
pub fn target_dir() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), |dir| workspace().join(dir))
}
