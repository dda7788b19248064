//! UEFI variables: kept from run to run, also when tenon is killed while the guest writes them.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::monitor::{Ended, RUN_LIMIT, Run, Running, SHORT, copy_in, guest_does};
use crate::guest::Marks;
use crate::lab::{HostError, LabHost, Set, Store};
use crate::scenario::{Failure, Scenario};

/// Bytes of `efivar-loop`'s values, in pieces of 64: most of the time of the loop is the firmware's writing.
const PIECES: u32 = 16;
/// The variable of the first run.
const MARKER: &str = "TenonMarker";
/// The store in the lab host.
const STORE: &str = "/root/small/variables.fd";
/// The firmware in the lab host. It is the 2 MiB build: its store is a fifth of the other's, and compacting one byte by byte
/// through a machine emulated by an emulated machine takes long.
const CODE: &str = "/root/small/OVMF_CODE.fd";
const TEMPLATE: &str = "/root/small/OVMF_VARS.fd";

/// A variable of one run is there in the next, and a kill in the midst of writing costs nothing that was written before.
#[derive(Debug)]
pub struct Survive;

impl Scenario for Survive {
    fn name(&self) -> &'static str {
        "variables"
    }

    fn shows(&self) -> &'static str {
        "UEFI variables last from run to run, and through kill -9 while they are being written"
    }

    fn cost(&self) -> Duration {
        Duration::from_secs(230)
    }

    fn run(&self, host: &mut LabHost, logs: &Path) -> Result<(), Failure> {
        let mut random = Random::new();
        let mut history = History::new(format!("kept-{:x}", random.below(1 << 32)));
        let firmware = Store::open()
            .and_then(|store| store.set(Set::Old))
            .map_err(HostError::from)?;
        host.check(&format!("mkdir -p /root/small; rm -f {STORE}"), SHORT)?;
        for (name, to) in [("OVMF_CODE.fd", CODE), ("OVMF_VARS.fd", TEMPLATE)] {
            let from = firmware
                .file(format!("usr/share/OVMF/{name}"))
                .map_err(HostError::from)?;
            copy_in(host, &from, to)?;
        }
        guest_does(
            host,
            Set::New,
            &format!("efivar-write={MARKER}:{},poweroff", history.marker),
            "quiet",
        )?;
        let end = start("write", host, logs)?.finish(host, RUN_LIMIT)?;
        powered_off(&end)?;
        history.check_store(host, logs, "write")?;

        // The same words each time: the start of each boot is the check of the kill before it.
        let reads: String = (0..4).map(|slot| format!("efivar-read=TenonLoop{slot},")).collect();
        let reads = format!("efivar-read={MARKER},{reads}");
        guest_does(host, Set::New, &format!("{reads}efivar-loop={PIECES}"), "quiet")?;
        for round in 1..=2 {
            let name = format!("loop-{round}");
            let mut run = start(&name, host, logs)?;
            wait_loop(&mut run, host, 1 + random.below(10))?;
            // Microseconds of the lab host's time, of which a write takes some ten thousand.
            host.check(&format!("usleep {}", random.below(60_000)), SHORT)?;
            history.killed_in_loop(run, host, logs, &name)?;
            // A torn variable makes the firmware compact the store as soon as it starts; so does a compaction that was
            // cut off. That is the middle of the work: the only whole copy of a variable may be on the move.
            for again in 1..=2 {
                let name = format!("recovery-{round}-{again}");
                let mut run = start(&name, host, logs)?;
                host.check(&format!("usleep {}", 1_000_000 + random.below(4_000_000)), SHORT)?;
                kill(&mut run, host)?;
                run.finish(host, SHORT)?;
                history.check_store(host, logs, &name)?;
            }
        }
        guest_does(host, Set::New, &format!("{reads}poweroff"), "quiet")?;
        let end = start("read", host, logs)?.finish(host, RUN_LIMIT)?;
        powered_off(&end)?;
        history.check_guest(&end.marks, "the last run")?;
        history.check_store(host, logs, "read")
    }
}

fn start(name: &str, host: &mut LabHost, logs: &Path) -> Result<Running, Failure> {
    Run::new(name)
        .memory("512M")
        .vars(STORE)
        .disk()
        .paced(false)
        .arg("--firmware")
        .arg(CODE)
        .start(host, logs)
}

fn powered_off(end: &Ended) -> Result<(), Failure> {
    let errors: Vec<&str> = end.marks.all("error").collect();
    Failure::unless(end.status == 0 && errors.is_empty(), || {
        format!("exit status {}, errors of the guest: {errors:?}", end.status)
    })
}

/// How many variables the guest's loop has set: those of which it has said so.
fn written(marks: &Marks) -> u64 {
    marks.all("efivar-loop").count() as u64
}

fn wait_loop(run: &mut Running, host: &mut LabHost, count: u64) -> Result<(), Failure> {
    let limit = Instant::now() + RUN_LIMIT;
    run.wait_mark(host, "efivar-loop", RUN_LIMIT)?;
    while written(&run.marks()) < count {
        let over = run.ended(host, Duration::from_millis(50))?.is_some() || Instant::now() > limit;
        Failure::unless(!over, || {
            format!("the loop stopped after {} writes", written(&run.marks()))
        })?;
    }
    Ok(())
}

fn kill(run: &mut Running, host: &mut LabHost) -> Result<(), Failure> {
    // One that had ended by itself would not be a kill.
    let ended = run.ended(host, Duration::from_millis(1))?;
    Failure::unless(ended.is_none(), || {
        format!("tenon ended with {ended:?} before it could be killed")
    })?;
    run.signal(host, "KILL")
}

/// What has to be in the store.
struct History {
    marker: String,
    /// The last number the loop has said to have written into each of its variables.
    slots: [Option<u64>; 4],
    /// The number it was writing when it was killed.
    under_way: Option<u64>,
}

impl History {
    fn new(marker: String) -> Self {
        Self {
            marker,
            slots: [None; 4],
            under_way: None,
        }
    }

    /// Kills tenon, sees that this boot found what the ones before had written, and notes what it has written itself.
    fn killed_in_loop(&mut self, mut run: Running, host: &mut LabHost, logs: &Path, name: &str) -> Result<(), Failure> {
        kill(&mut run, host)?;
        let end = run.finish(host, SHORT)?;
        self.check_guest(&end.marks, name)?;
        let numbers = end
            .marks
            .all("efivar-loop")
            .filter_map(|number| number.parse::<u64>().ok());
        self.under_way = Some(0);
        for number in numbers {
            self.slots[number as usize % 4] = Some(number);
            self.under_way = Some(number + 1);
        }
        self.check_store(host, logs, name)
    }

    /// What the guest read at the start of a boot.
    fn check_guest(&self, marks: &Marks, when: &str) -> Result<(), Failure> {
        let found = marks.get(&format!("efivar {MARKER}"));
        Failure::unless(found == Some(self.marker.as_str()), || {
            format!("{when}: {MARKER} is {found:?}, not {:?}", self.marker)
        })?;
        for (slot, number) in self.slots.iter().enumerate() {
            let Some(number) = *number else { continue };
            let value = marks.get(&format!("efivar TenonLoop{slot}"));
            let found = value.and_then(|value| value.split(' ').next()?.parse::<u64>().ok());
            // The write that was killed may have come through all the same.
            let last = self.under_way.filter(|number| *number as usize % 4 == slot);
            Failure::unless(found.is_some() && (found == Some(number) || found == last), || {
                format!("{when}: TenonLoop{slot} starts with {found:?}, but {number} had been written")
            })?;
        }
        Ok(())
    }

    /// The file itself: the headers as the firmware made them, and the marker somewhere behind them. It is kept in the logs.
    fn check_store(&self, host: &mut LabHost, logs: &Path, when: &str) -> Result<(), Failure> {
        let (bytes, template) = (host.get(STORE)?, host.get(TEMPLATE)?);
        let path = logs.join(format!("{when}.vars.fd"));
        fs::write(&path, &bytes).map_err(|error| Failure::Wrong(format!("{}: {error}", path.display())))?;
        let same_size = bytes.len() == template.len();
        Failure::unless(same_size, || format!("{when}: the store is {} bytes long", bytes.len()))?;
        let name: Vec<u8> = MARKER.encode_utf16().flat_map(u16::to_le_bytes).collect();
        Failure::unless(bytes.windows(name.len()).any(|part| part == name), || {
            format!("{when}: {MARKER} is nowhere in the file")
        })
    }
}

/// Moments to kill at; which does not matter, only that they are others each time.
struct Random(u64);

impl Random {
    fn new() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(now.as_nanos() as u64 | 1)
    }

    /// A number below `limit` (xorshift64).
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

#[cfg(test)]
mod tests {
    use super::History;
    use crate::guest::Marks;

    fn checked(history: &History, log: &str) -> bool {
        history.check_guest(&Marks::parse(log.as_bytes()), "now").is_ok()
    }

    #[test]
    fn what_was_written_must_be_there_and_only_what_was_cut_off_may() {
        let mut history = History::new("kept".to_owned());
        assert!(checked(&history, "@@ efivar TenonMarker=kept\n"));
        assert!(!checked(&history, "@@ efivar TenonMarker\n"), "a store made anew");
        history.slots = [Some(8), Some(9), Some(6), Some(7)];
        history.under_way = Some(10);
        let log = |third: u32| {
            format!(
                "@@ efivar TenonMarker=kept\n@@ efivar TenonLoop0=8 x\n@@ efivar TenonLoop1=9 x\n\
                 @@ efivar TenonLoop2={third} x\n@@ efivar TenonLoop3=7 x\n"
            )
        };
        assert!(checked(&history, &log(6)) && checked(&history, &log(10)));
        assert!(!checked(&history, &log(2)), "an older value came back");
        assert!(!checked(&history, &log(10).replace("Loop0=8", "Loop0=4")));
        assert!(!checked(&history, &log(6).replace("@@ efivar TenonLoop3=7 x\n", "")));
    }
}
