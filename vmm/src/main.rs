//! The command-line program.

use std::process::ExitCode;

fn main() -> ExitCode {
    vmm::cli::main().into()
}
