//! Tables of commands that are tried in the lab host one after another, each with what it says, its exit status, and the
//! host as it was.

use crate::lab::{LabHost, Output};
use crate::scenario::Failure;
use std::time::Duration;

/// What the monitor exits with (`tenon --help`).
pub const DONE: i32 = 0;
pub const CONFIGURATION: i32 = 2;
pub const HOST: i32 = 3;
pub const STOPPED: i32 = 5;

/// One try.
#[derive(Debug)]
pub struct Case {
    pub name: &'static str,
    /// Run in L1 with the functions of the folder's `cases.sh`; its status and output are the monitor's. It puts back what
    /// it changed.
    pub script: &'static str,
    pub status: i32,
    /// Words of the output: of a refusal what is wrong, and the remedy.
    pub says: &'static [&'static str],
}

impl Case {
    /// What was wrong with its status or its words, if anything was; the words are looked for in `said`.
    pub fn fault(&self, output: &Output, said: &str) -> Option<String> {
        let Self { name, status, says, .. } = self;
        if output.status != *status {
            return Some(format!("{name}: status {}, not {status}: {said}", output.status));
        }
        let missing = says.iter().find(|words| !said.contains(**words))?;
        Some(format!("{name}: `{missing}` is not in: {said}"))
    }
}

/// A folder of the lab host with the shell functions of the cases: `set_up`, `state`, `take_down` and what they need.
#[derive(Debug, Clone, Copy)]
pub struct Folder {
    /// Where it is.
    pub path: &'static str,
    /// The shell functions.
    pub shell: &'static str,
    /// How long one case may take.
    pub limit: Duration,
}

impl Folder {
    /// Puts the shell functions there.
    ///
    /// # Errors
    /// When the lab host is dead.
    pub fn fill(&self, host: &mut LabHost) -> Result<(), Failure> {
        Ok(host.put(&format!("{}/cases.sh", self.path), self.shell.as_bytes())?)
    }

    /// Runs a script with the shell functions; answers its status and output.
    ///
    /// # Errors
    /// When the lab host is dead or the time is up.
    pub fn exec(&self, host: &mut LabHost, script: &str) -> Result<Output, Failure> {
        Ok(host.exec(&self.script(script), self.limit)?)
    }

    /// Runs a script that has to succeed; answers its output.
    ///
    /// # Errors
    /// When it does not.
    pub fn check(&self, host: &mut LabHost, script: &str) -> Result<String, Failure> {
        Ok(host.check(&self.script(script), self.limit)?)
    }

    fn script(&self, command: &str) -> String {
        format!("cd {} && . ./cases.sh || exit 125\n{command}", self.path)
    }

    /// What is different on the host from before. The kernel lets go of some things a moment after a process has ended.
    ///
    /// # Errors
    /// When the lab host is dead.
    pub fn remains(&self, host: &mut LabHost, before: &str) -> Result<Option<String>, Failure> {
        let mut now = String::new();
        for _ in 0..10 {
            now = self.check(host, "state")?;
            if now == before {
                return Ok(None);
            }
            host.check("sleep 0.3", self.limit)?;
        }
        let gone = before.lines().filter(|line| !now.lines().any(|other| other == *line));
        let new = now.lines().filter(|line| !before.lines().any(|other| other == *line));
        let lines: Vec<String> = gone
            .map(|line| format!("- {line}"))
            .chain(new.map(|line| format!("+ {line}")))
            .collect();
        Ok(Some(lines.join("; ")))
    }
}
