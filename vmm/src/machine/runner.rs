//! Running a machine: the event loop, and what becomes of what is asked of it.

use std::rc::Rc;
use std::time::{Duration, Instant};

use super::builder::{Machine, build};
use super::control::Request;
use super::error::{Error, system};
use super::plan::Plan;
use super::power_button::PowerButton;
use super::sources;
use super::terminal::RawTerminal;
use crate::config::SerialTarget;
use crate::event::EventLoop;

/// How a machine ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The guest powered itself off.
    PoweredOff,
    /// The host stopped it at once.
    Stopped,
}

/// A guest that faults beyond recovery this often in a row, each time within [`STORM_WINDOW`] of its reset, will never start.
const STORM_LIMIT: u32 = 5;
const STORM_WINDOW: Duration = Duration::from_secs(2);

/// Builds what was planned and runs it to its end. Everything is given back when this returns. `stopped` is asked once
/// signals are watched: whether one that came before is to end it.
///
/// # Errors
/// It could not be built, or the guest or a device brought it down.
pub fn run(plan: Plan, stopped: &dyn Fn() -> bool) -> Result<Outcome, Error> {
    let on_terminal = plan.config.serial == SerialTarget::Stdio;
    let machine = build(plan)?;
    let mut events = EventLoop::new().map_err(Error::Events)?;
    sources::control(&mut events, &machine.control)?;
    let button = Rc::new(PowerButton::new(&machine.control, &machine.chipset.board.pm));
    sources::signals(&mut events, &button, machine.vcpus.exits())?;
    if stopped() {
        return Ok(Outcome::Stopped);
    }
    sources::clock(&mut events, &machine.chipset.board)?;
    sources::devices(&mut events, &machine.control, &machine.devices)?;
    // Kept until the end: dropping it gives the terminal back as it was.
    let _raw = if on_terminal {
        let raw = RawTerminal::enter().map_err(system("set up the terminal"))?;
        sources::terminal(&mut events, &button, &machine.chipset.board)?;
        raw
    } else {
        None
    };
    machine.power_on.first(&machine.space, &machine.vcpus)?;
    tracing::info!("running {} vCPUs", machine.vcpus.count());
    machine.control.resume();
    let outcome = serve(&mut events, &machine);
    machine.vcpus.park();
    finish(&machine);
    outcome
}

fn serve(events: &mut EventLoop, machine: &Machine) -> Result<Outcome, Error> {
    let mut storm = Storm::default();
    loop {
        events.run().map_err(Error::Events)?;
        let Some(request) = machine.control.take_request() else {
            continue;
        };
        match request {
            Request::PowerOff => return Ok(Outcome::PoweredOff),
            Request::Stop => return Ok(Outcome::Stopped),
            Request::Fail(reason) => return Err(Error::Guest(reason)),
            Request::TripleFault if storm.strikes() => {
                let reason =
                    "the guest faults beyond recovery right after every reset; is its firmware or kernel image intact?";
                return Err(Error::Guest(reason.to_owned()));
            }
            Request::Reset | Request::TripleFault => reset(machine)?,
        }
    }
}

fn reset(machine: &Machine) -> Result<(), Error> {
    tracing::info!("guest reset");
    machine.vcpus.park();
    machine
        .power_on
        .reset(&machine.chipset, &machine.space, &machine.vcpus)?;
    machine.control.resume();
    Ok(())
}

fn finish(machine: &Machine) {
    if let Some(vars) = machine.chipset.vars()
        && let Err(error) = vars.flush()
    {
        tracing::error!(%error, "the UEFI variables may not have reached the disk");
    }
    machine.vcpus.exits().log();
}

/// Counts triple faults that follow each other closely.
#[derive(Debug, Default)]
struct Storm {
    last: Option<Instant>,
    count: u32,
}

impl Storm {
    fn strikes(&mut self) -> bool {
        tracing::warn!("the guest faulted beyond recovery");
        let close = self.last.is_some_and(|last| last.elapsed() < STORM_WINDOW);
        self.count = if close { self.count + 1 } else { 1 };
        self.last = Some(Instant::now());
        self.count >= STORM_LIMIT
    }
}
