//! `cargo lab run`.

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use tests::lab::product::target_dir;
use tests::lab::{Event, LabHost};

use super::{HostArgs, LAB_FAILED, Outcome};

/// `cargo lab run`.
#[derive(Debug, Args)]
pub struct Run {
    #[command(flatten)]
    host: HostArgs,
    /// End the script after so many seconds of this machine's time
    #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
    timeout: u64,
    /// The shell script to run; bind_vfio and others of /etc/lab.sh are at hand
    script: PathBuf,
    /// The script's arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

impl Run {
    /// Boots, runs the script with its output passed on as it comes, and returns its status.
    pub fn run(self) -> Outcome {
        let script = fs::read(&self.script).map_err(|error| format!("{}: {error}", self.script.display()))?;
        let mut host = LabHost::boot(&self.host.config(target_dir().join("lab/run"))?)?;
        host.put("/root/script", &script)?;
        let args: Vec<String> = self
            .args
            .iter()
            .map(|arg| format!("'{}'", arg.replace('\'', r"'\''")))
            .collect();
        let mut job = host.spawn(&format!("cd /root\nset -- {}\n. /root/script", args.join(" ")))?;
        job.input().close()?;
        let status = job
            .follow(Duration::from_secs(self.timeout), pass_on)
            .map_err(|error| host.explain(error))?;
        host.check("sync", Duration::from_secs(60))?;
        host.stop()?;
        Ok(ExitCode::from(u8::try_from(status).unwrap_or(LAB_FAILED)))
    }
}

/// Passes a script's words on to this process's own streams. Nobody listening is no error.
pub fn pass_on(event: &Event) {
    let _ = match event {
        Event::Stdout(bytes) => io::stdout().write_all(bytes).and_then(|()| io::stdout().flush()),
        Event::Stderr(bytes) => io::stderr().write_all(bytes),
        Event::Exit(_) => Ok(()),
    };
}
