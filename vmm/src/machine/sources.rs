//! What the event loop waits for, and what it does then.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use devices::chipset::pm::PowerManagement;
use devices::clock::Clock;
use devices::serial::SerialPort;
use vfio::VfioPciDevice;
use vmm_sys_util::eventfd::EventFd;
use vmm_sys_util::timerfd::TimerFd;

use super::board::Board;
use super::control::{Control, Request};
use super::error::{Error, system};
use super::power_button::PowerButton;
use crate::event::EventLoop;
use crate::kvm::vcpu::ExitCounts;

/// How often the PM timer is looked at; it wraps every 20 minutes and tells the guest halfway.
const PM_POLL: Duration = Duration::from_secs(120);

/// A descriptor that somebody else keeps open.
struct Borrowed(RawFd);

impl AsRawFd for Borrowed {
    fn as_raw_fd(&self) -> RawFd {
        self.0
    }
}

/// What vCPUs ask. The loop wakes; whoever runs it looks for the request.
pub fn control(events: &mut EventLoop, control: &Arc<Control>) -> Result<(), Error> {
    let event = control.event().try_clone().map_err(system("watch the vCPUs"))?;
    let drained = event.try_clone().map_err(system("watch the vCPUs"))?;
    events.on_readable("control", event, move || {
        let _ = drained.read();
        true
    });
    Ok(())
}

/// SIGINT and SIGTERM press the power button, SIGUSR1 logs the exits so far.
pub fn signals(events: &mut EventLoop, button: &Rc<PowerButton>, exits: &Arc<ExitCounts>) -> Result<(), Error> {
    let button = Rc::clone(button);
    for signal in [libc::SIGINT, libc::SIGTERM] {
        let button = Rc::clone(&button);
        on_signal(events, signal, move || button.press())?;
    }
    let exits = Arc::clone(exits);
    on_signal(events, libc::SIGUSR1, move || exits.log())
}

fn on_signal(events: &mut EventLoop, signal: i32, then: impl Fn() + 'static) -> Result<(), Error> {
    let (mut receiver, sender) = UnixStream::pair().map_err(system("watch for signals"))?;
    receiver.set_nonblocking(true).map_err(system("watch for signals"))?;
    signal_hook::low_level::pipe::register(signal, sender).map_err(system("watch for signals"))?;
    events.on_readable("signal", Borrowed(receiver.as_raw_fd()), move || {
        let mut arrived = [0; 16];
        for _ in 0..receiver.read(&mut arrived).unwrap_or(0) {
            then();
        }
        true
    });
    Ok(())
}

/// The real-time clock's interrupts, and the PM timer's overflow.
pub fn clock(events: &mut EventLoop, board: &Board) -> Result<(), Error> {
    let timer = Rc::new(RefCell::new(TimerFd::new().map_err(|error| timer_error(&error))?));
    let (rtc, clock) = (Arc::clone(&board.rtc), Arc::clone(&board.clock));
    let arm = {
        let (rtc, timer) = (Arc::clone(&rtc), Rc::clone(&timer));
        move || rearm(&mut timer.borrow_mut(), rtc.next_deadline(), clock.as_ref())
    };
    let changed = rtc.timer_event().try_clone().map_err(system("watch the clock"))?;
    let arm_changed = arm.clone();
    events.on_readable("RTC deadline", Borrowed(changed.as_raw_fd()), move || {
        let _ = changed.read();
        arm_changed();
        true
    });
    let fd = timer.borrow().as_raw_fd();
    events.on_readable("RTC timer", Borrowed(fd), move || {
        let _ = timer.borrow_mut().wait();
        rtc.tick();
        arm();
        true
    });
    poll_pm(events, &board.pm)
}

fn poll_pm(events: &mut EventLoop, pm: &Arc<PowerManagement>) -> Result<(), Error> {
    let mut timer = TimerFd::new().map_err(|error| timer_error(&error))?;
    timer
        .reset(PM_POLL, Some(PM_POLL))
        .map_err(|error| timer_error(&error))?;
    let pm = Arc::clone(pm);
    events.on_readable("PM timer", Borrowed(timer.as_raw_fd()), move || {
        let _ = timer.wait();
        pm.poll();
        true
    });
    Ok(())
}

fn timer_error(error: &vmm_sys_util::errno::Error) -> Error {
    Error::System {
        what: "make a timer",
        source: io::Error::from_raw_os_error(error.errno()),
    }
}

fn rearm(timer: &mut TimerFd, deadline: Option<Duration>, clock: &dyn Clock) {
    let armed = match deadline {
        // A timer of zero is a disarmed one.
        Some(at) => timer.reset(at.saturating_sub(clock.now()).max(Duration::from_nanos(1)), None),
        None => timer.clear(),
    };
    if let Err(error) = armed {
        tracing::error!(%error, "the real-time clock's timer cannot be set");
    }
}

/// What the host says of assigned devices.
pub fn devices(events: &mut EventLoop, control: &Arc<Control>, devices: &[Arc<VfioPciDevice>]) -> Result<(), Error> {
    for device in devices {
        let notices = device.notices();
        if let Some(event) = &notices.error {
            let (control, bdf, device) = (Arc::clone(control), device.bdf(), Arc::clone(device));
            on_event(events, "device error", event, move || {
                let state = if device.answers() {
                    "it still answers"
                } else {
                    "it does not answer any more"
                };
                control.request(Request::Fail(format!(
                    "{bdf} reported an error it cannot recover from ({state}); see the host's kernel log for AER messages"
                )));
            })?;
        }
        if let Some(event) = &notices.request {
            let (control, bdf) = (Arc::clone(control), device.bdf());
            on_event(events, "device request", event, move || {
                tracing::warn!("the host wants {bdf} back: stopping the machine to release it");
                control.request(Request::Stop);
            })?;
        }
    }
    Ok(())
}

fn on_event(
    events: &mut EventLoop,
    name: &'static str,
    event: &EventFd,
    mut then: impl FnMut() + 'static,
) -> Result<(), Error> {
    let event = event.try_clone().map_err(system("watch an assigned device"))?;
    events.on_readable(name, Borrowed(event.as_raw_fd()), move || {
        let _ = event.read();
        then();
        true
    });
    Ok(())
}

/// Input from the terminal to COM1. Ctrl-A x presses the power button; Ctrl-A Ctrl-A types one.
pub fn terminal(events: &mut EventLoop, button: &Rc<PowerButton>, board: &Board) -> Result<(), Error> {
    let input = Input {
        serial: Arc::clone(&board.serial),
        button: Rc::clone(button),
        waiting: Vec::new(),
        escaped: false,
    };
    let input = Rc::new(RefCell::new(input));
    let room = board
        .serial
        .room_event()
        .try_clone()
        .map_err(system("watch the serial port"))?;
    let refill = Rc::clone(&input);
    events.on_readable("serial room", Borrowed(room.as_raw_fd()), move || {
        let _ = room.read();
        refill.borrow_mut().push();
        true
    });
    // Unbuffered: what a buffer had taken in, the loop would not be woken for.
    let stdin = io::stdin()
        .as_fd()
        .try_clone_to_owned()
        .map_err(system("read the terminal"))?;
    let mut stdin = File::from(stdin);
    events.on_readable("terminal", Borrowed(stdin.as_raw_fd()), move || {
        input.borrow_mut().read(&mut stdin)
    });
    Ok(())
}

/// Ctrl-A.
const ESCAPE: u8 = 0x01;
/// Typed ahead beyond this is dropped: a guest that does not read must not make the host hold what is piped in.
const TYPED_AHEAD: usize = 64 << 10;

struct Input {
    serial: Arc<SerialPort>,
    button: Rc<PowerButton>,
    waiting: Vec<u8>,
    escaped: bool,
}

impl Input {
    fn read(&mut self, from: &mut File) -> bool {
        let mut bytes = [0; 256];
        // End of input, or a terminal that is gone: nothing more will come.
        let Ok(count @ 1..) = from.read(&mut bytes) else {
            return false;
        };
        for byte in bytes.iter().take(count) {
            self.take(*byte);
        }
        self.push();
        true
    }

    fn take(&mut self, byte: u8) {
        match (self.escaped, byte) {
            (false, ESCAPE) => {
                self.escaped = true;
                return;
            }
            (true, b'x') => self.button.press(),
            (_, byte) if self.waiting.len() < TYPED_AHEAD => self.waiting.push(byte),
            _ => {}
        }
        self.escaped = false;
    }

    fn push(&mut self) {
        let taken = self.serial.enqueue(&self.waiting);
        self.waiting.drain(..taken.min(self.waiting.len()));
    }
}
