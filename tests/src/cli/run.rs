//! `cargo lab run`.

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use tests::lab::host::count_retry;
use tests::lab::product::target_dir;
use tests::lab::{Config, Event, HostError, LabHost};

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
    /// Boots, runs the script with its output passed on as it comes, and returns its status. After a death that was the
    /// lab's own fault all of it is done once more, in a new host.
    pub fn run(self) -> Outcome {
        let script = fs::read(&self.script).map_err(|error| format!("{}: {error}", self.script.display()))?;
        let config = self.host.config(target_dir().join("lab/run"))?;
        let status = match self.once(&config, &script) {
            Err(HostError::Dead { known: true, logs, .. }) => {
                count_retry(&logs);
                self.once(&config, &script)?
            }
            other => other?,
        };
        Ok(ExitCode::from(u8::try_from(status).unwrap_or(LAB_FAILED)))
    }

    fn once(&self, config: &Config, script: &[u8]) -> Result<i32, HostError> {
        let mut host = LabHost::boot(config)?;
        host.put("/root/script", script)?;
        let args: Vec<String> = self
            .args
            .iter()
            .map(|arg| format!("'{}'", arg.replace('\'', r"'\''")))
            .collect();
        let mut job = host.spawn(&format!("cd /root\nset -- {}\n. /root/script", args.join(" ")))?;
        let result = job
            .input()
            .close()
            .and_then(|()| job.follow(Duration::from_secs(self.timeout), pass_on));
        let status = result.map_err(|error| host.explain(error))?;
        host.check("sync", Duration::from_secs(60))?;
        host.stop()?;
        Ok(status)
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
