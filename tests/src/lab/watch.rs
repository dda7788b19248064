//! A look at the lab host's processor from time to time, which tells when QEMU's own fault has stopped it for good.
//!
//! QEMU's processor (`helper_vmrun` of target/i386/tcg, seen in 7.2 and 10.0) keeps an interrupt that a hypervisor injected
//! as the pending exception until the guest leaves to the hypervisor. When the instruction count that icount allots runs out
//! before, the interrupt is delivered once more, whatever RFLAGS.IF says. If that is while the guest's kernel holds a lock
//! that the handler wants, it waits for itself, in a loop around PAUSE that takes a thousand times longer than other
//! instructions. It happens between an interrupt and its EOI, a few hundred instructions, once in some hundred runs.

use std::fs::File;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use super::qmp::Qmp;

/// What is written to QEMU's log before it is ended.
pub const STOPPED: &str = "the lab's watch: the processor waits for a lock with interrupts off and does not get it";

/// Between two looks, in wall time.
const PAUSE: Duration = Duration::from_secs(5);
/// So many looks in a row have to show the same.
const ENOUGH: u32 = 12;

/// Watches over a connection of its own until it closes; ends QEMU when it has stopped for good.
pub fn watch(stream: UnixStream, scratch: &Path, log: PathBuf) {
    let scratch = scratch.to_owned();
    thread::spawn(move || {
        let Ok(mut qmp) = Qmp::new(stream, &scratch) else {
            return;
        };
        let mut last = None;
        let mut same = 0;
        while same < ENOUGH {
            thread::sleep(PAUSE);
            let Ok(answer) = qmp.execute("human-monitor-command", &json!({ "command-line": "info registers" })) else {
                return;
            };
            let now = answer.as_str().and_then(waiting_at);
            same = if now.is_some() && now == last { same + 1 } else { 0 };
            last = now;
        }
        // The words are what tells this end from others, so they come first.
        if let Ok(mut log) = File::options().append(true).open(log) {
            let _ = writeln!(log, "{STOPPED} (RIP {:#x})", last.unwrap_or(0));
        }
        let _: Result<Value, _> = qmp.execute("quit", &json!({}));
    });
}

/// The instruction pointer of a processor that runs with interrupts off.
fn waiting_at(registers: &str) -> Option<u64> {
    let field = |name: &str| {
        let rest = &registers[registers.find(name)? + name.len()..];
        let digits = rest.split(|c: char| !c.is_ascii_hexdigit()).next()?;
        u64::from_str_radix(digits, 16).ok()
    };
    const INTERRUPT_FLAG: u64 = 1 << 9;
    let waits = field("HLT=")? == 0 && field("RFL=")? & INTERRUPT_FLAG == 0;
    if waits { field("RIP=") } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As QEMU 10.0 prints them.
    fn registers(flags: &str, halted: u8) -> String {
        format!(
            "\r\nCPU#0\r\nRAX=0000000000000001 RBX=ffffffff837c1d04\r\nRIP=ffffffff81d12d60 RFL={flags} [-------] \
             CPL=0 II=0 A20=1 SMM=0 HLT={halted}\r\nES =0000 0000000000000000 00000000 00000000\r\n"
        )
    }

    #[test]
    fn only_a_processor_that_runs_with_interrupts_off_is_waiting() {
        assert_eq!(waiting_at(&registers("00000002", 0)), Some(0xffff_ffff_81d1_2d60));
        assert_eq!(waiting_at(&registers("00000202", 0)), None);
        assert_eq!(waiting_at(&registers("00000046", 1)), None);
        assert_eq!(waiting_at("no registers"), None);
    }
}
