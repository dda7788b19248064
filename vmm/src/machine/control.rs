//! Who runs: lets vCPU threads run, parks them all, and carries what a vCPU or the host asks of the machine to the event loop.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// What is asked of the machine. A later one in this list overrides an earlier one that has not been carried out.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Request {
    /// Everything back to power-on, and run again.
    Reset,
    /// The same, asked for by a guest that faulted beyond recovery.
    TripleFault,
    /// The guest powered itself off.
    PowerOff,
    /// The host wants the machine gone at once.
    Stop,
    /// It cannot go on, for the reason given.
    Fail(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Want {
    Run,
    Park,
    Exit,
}

#[derive(Debug)]
struct State {
    want: Want,
    parked: usize,
    request: Option<Request>,
}

/// Shared by the event loop and every vCPU thread.
#[derive(Debug)]
pub struct Control {
    state: Mutex<State>,
    changed: Condvar,
    /// Mirrors `want != Run` or a pending request, so that a vCPU looks at it after each exit without a lock.
    interrupt: AtomicBool,
    /// Signalled with each request; the event loop waits for it.
    event: EventFd,
}

/// How long to wait for vCPUs before kicking them again. A kick that arrives just before KVM_RUN is lost, so kicks are repeated until
/// every vCPU has parked.
const KICK_INTERVAL: Duration = Duration::from_millis(2);

impl Control {
    /// A control under which vCPU threads start parked.
    ///
    /// # Errors
    /// No eventfd could be made.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self {
            state: Mutex::new(State {
                want: Want::Park,
                parked: 0,
                request: None,
            }),
            changed: Condvar::new(),
            interrupt: AtomicBool::new(true),
            event: EventFd::new(EFD_NONBLOCK)?,
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the event loop waits for.
    pub fn event(&self) -> &EventFd {
        &self.event
    }

    /// Asks something of the machine. The calling vCPU parks at its next look at [`Control::interrupted`].
    pub fn request(&self, request: Request) {
        let mut state = self.lock();
        if state.request.as_ref().is_none_or(|old| *old < request) {
            state.request = Some(request);
        }
        self.interrupt.store(true, Ordering::Release);
        drop(state);
        if let Err(error) = self.event.write(1) {
            tracing::error!(%error, "cannot wake the event loop");
        }
    }

    /// Takes what is asked, if anything is.
    pub fn take_request(&self) -> Option<Request> {
        self.lock().request.take()
    }

    /// Whether a vCPU should leave the guest and call [`Control::wait`].
    pub fn interrupted(&self) -> bool {
        self.interrupt.load(Ordering::Acquire)
    }

    /// Called by a vCPU thread outside the guest: blocks while parked. False means the thread is to end.
    pub fn wait(&self) -> bool {
        let mut state = self.lock();
        state.parked += 1;
        self.changed.notify_all();
        while state.want == Want::Park || (state.want == Want::Run && state.request.is_some()) {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.want == Want::Run {
            state.parked -= 1;
        }
        state.want == Want::Run
    }

    /// Parks all `count` vCPUs; `kick` signals their threads.
    pub fn park(&self, count: usize, kick: impl Fn()) {
        self.stop(Want::Park, count, kick);
    }

    /// Ends all `count` vCPU threads; `kick` signals them.
    pub fn end(&self, count: usize, kick: impl Fn()) {
        self.stop(Want::Exit, count, kick);
    }

    fn stop(&self, want: Want, count: usize, kick: impl Fn()) {
        let mut state = self.lock();
        state.want = want;
        self.interrupt.store(true, Ordering::Release);
        self.changed.notify_all();
        while state.parked < count {
            kick();
            state = self
                .changed
                .wait_timeout(state, KICK_INTERVAL)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Lets every vCPU run, unless something has been asked meanwhile: the event loop sees to that first.
    pub fn resume(&self) {
        let mut state = self.lock();
        state.want = Want::Run;
        self.interrupt.store(state.request.is_some(), Ordering::Release);
        drop(state);
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicU64;

    use super::*;

    #[test]
    fn parks_resumes_and_ends_threads() {
        let control = Arc::new(Control::new().unwrap());
        let turns = Arc::new(AtomicU64::new(0));
        let threads: Vec<_> = (0..3)
            .map(|_| {
                let (control, turns) = (Arc::clone(&control), Arc::clone(&turns));
                std::thread::spawn(move || {
                    while control.wait() {
                        while !control.interrupted() {
                            turns.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                })
            })
            .collect();
        control.park(3, || {});
        assert_eq!(turns.load(Ordering::Relaxed), 0, "threads start parked");
        control.resume();
        while turns.load(Ordering::Relaxed) == 0 {
            std::thread::yield_now();
        }
        control.park(3, || {});
        let stopped_at = turns.load(Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(5));
        assert_eq!(turns.load(Ordering::Relaxed), stopped_at, "parked threads do not run");
        control.resume();
        control.end(3, || {});
        for thread in threads {
            thread.join().unwrap();
        }
    }

    #[test]
    fn the_graver_request_wins() {
        let control = Control::new().unwrap();
        control.request(Request::PowerOff);
        control.request(Request::Reset);
        assert_eq!(control.take_request(), Some(Request::PowerOff));
        assert_eq!(control.take_request(), None);
        control.request(Request::Reset);
        control.request(Request::Fail("x".into()));
        assert_eq!(control.take_request(), Some(Request::Fail("x".into())));
    }
}
