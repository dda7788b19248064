//! A device's I/O thread: made once, parked between activations.
//!
//! Whoever stops it waits until it has parked, which is what makes "no DMA after a reset" true.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};

use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::lock;

/// How a turn of work ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was asked to stop, and can be continued.
    Stopped,
    /// It cannot go on: the job is dropped.
    Broken,
}

/// How work learns that it has to stop.
#[derive(Debug)]
pub struct Stop {
    asked: AtomicBool,
    event: EventFd,
}

impl Stop {
    /// Whether to return as soon as the request at hand is finished.
    pub fn asked(&self) -> bool {
        self.asked.load(Ordering::Acquire)
    }

    /// Readable as long as [`Stop::asked`].
    pub fn event(&self) -> &EventFd {
        &self.event
    }
}

#[derive(Debug)]
struct State<J> {
    job: Option<J>,
    /// Whether a job may run.
    running: bool,
    /// Whether the job is out with the thread.
    executing: bool,
    /// How many wait for it to come back; the thread must not take it again before they had their turn.
    parking: usize,
    /// The thread ends, or has.
    exit: bool,
}

struct Shared<J> {
    state: Mutex<State<J>>,
    changed: Condvar,
    stop: Stop,
}

/// A named thread that works on one job at a time.
pub struct Worker<J: Send + 'static> {
    shared: Arc<Shared<J>>,
    thread: Option<JoinHandle<()>>,
}

impl<J: Send + 'static> Worker<J> {
    /// Starts the thread `name`, parked. `work` is called with each job until it returns; it must heed [`Stop`].
    ///
    /// # Errors
    /// No thread or eventfd is left.
    pub fn spawn(name: &str, work: impl FnMut(&mut J, &Stop) -> Outcome + Send + 'static) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                job: None,
                running: true,
                executing: false,
                parking: 0,
                exit: false,
            }),
            changed: Condvar::new(),
            stop: Stop {
                asked: AtomicBool::new(false),
                event: EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?,
            },
        });
        let theirs = Arc::clone(&shared);
        let thread = Builder::new().name(name.to_owned()).spawn(move || run(&theirs, work))?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// Hands a job over, in place of the one before it.
    ///
    /// # Errors
    /// The thread has ended.
    pub fn submit(&self, job: J) -> io::Result<()> {
        let mut state = self.park();
        if state.exit {
            return Err(io::Error::other("the I/O thread has ended"));
        }
        state.job = Some(job);
        drop(state);
        self.shared.changed.notify_all();
        Ok(())
    }

    /// Lets the job run, or parks it. Returns from `false` when it is parked.
    pub fn set_running(&self, running: bool) {
        let mut state = if running { lock(&self.shared.state) } else { self.park() };
        state.running = running;
        drop(state);
        self.shared.changed.notify_all();
    }

    /// Parks the job and drops it.
    pub fn clear(&self) {
        let job = self.park().job.take();
        // Guest memory may be unmapped by this: outside the lock.
        drop(job);
    }

    /// Waits until the thread is not working, and keeps it so while the guard lives.
    fn park(&self) -> MutexGuard<'_, State<J>> {
        let shared = &self.shared;
        let mut state = lock(&shared.state);
        if state.executing {
            state.parking += 1;
            shared.stop.asked.store(true, Ordering::Release);
            // It fails when the counter is full, and is readable then too.
            let _ = shared.stop.event.write(1);
            state = shared
                .changed
                .wait_while(state, |state| state.executing)
                .unwrap_or_else(PoisonError::into_inner);
            state.parking -= 1;
            if state.parking == 0 {
                shared.stop.asked.store(false, Ordering::Release);
                let _ = shared.stop.event.read();
            }
        }
        state
    }
}

impl<J: Send + 'static> Drop for Worker<J> {
    fn drop(&mut self) {
        self.park().exit = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // It panicked, if this fails, and said so.
            let _ = thread.join();
        }
    }
}

impl<J: Send + 'static> fmt::Debug for Worker<J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker")
            .field("thread", &self.thread)
            .finish_non_exhaustive()
    }
}

/// Marks the thread as gone however it ends, so that nobody waits for it.
struct Gone<'a, J>(&'a Shared<J>);

impl<J> Drop for Gone<'_, J> {
    fn drop(&mut self) {
        let mut state = lock(&self.0.state);
        state.exit = true;
        state.executing = false;
        drop(state);
        self.0.changed.notify_all();
    }
}

fn run<J>(shared: &Shared<J>, mut work: impl FnMut(&mut J, &Stop) -> Outcome) {
    let _gone = Gone(shared);
    loop {
        let mut state = shared
            .changed
            .wait_while(lock(&shared.state), |state| {
                !state.exit && (!state.running || state.parking > 0 || state.job.is_none())
            })
            .unwrap_or_else(PoisonError::into_inner);
        if state.exit {
            return;
        }
        let Some(mut job) = state.job.take() else { continue };
        state.executing = true;
        drop(state);

        let outcome = work(&mut job, &shared.stop);

        let mut state = lock(&shared.state);
        state.executing = false;
        let finished = match outcome {
            Outcome::Stopped => {
                state.job = Some(job);
                None
            }
            Outcome::Broken => Some(job),
        };
        drop(state);
        shared.changed.notify_all();
        drop(finished);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use super::*;

    /// Counts its turns, then waits to be stopped.
    fn counter(turns: &Arc<AtomicU32>) -> Worker<u32> {
        let turns = Arc::clone(turns);
        Worker::spawn("test", move |step, stop| {
            turns.fetch_add(*step, Ordering::SeqCst);
            while !stop.asked() {
                std::thread::yield_now();
            }
            Outcome::Stopped
        })
        .unwrap()
    }

    fn wait_for(turns: &AtomicU32, value: u32) {
        while turns.load(Ordering::SeqCst) < value {
            std::thread::yield_now();
        }
    }

    #[test]
    fn runs_holds_continues_and_clears() {
        let turns = Arc::new(AtomicU32::new(0));
        let worker = counter(&turns);
        worker.submit(1).unwrap();
        wait_for(&turns, 1);
        worker.set_running(false);
        assert_eq!(turns.load(Ordering::SeqCst), 1);
        worker.set_running(true);
        wait_for(&turns, 2);
        worker.clear();
        worker.set_running(true);
        worker.submit(10).unwrap();
        wait_for(&turns, 12);
        drop(worker);
        assert_eq!(turns.load(Ordering::SeqCst), 12);
    }

    #[test]
    fn a_dead_thread_is_not_waited_for() {
        let worker: Worker<()> = Worker::spawn("test", |(), _stop| panic!("on purpose")).unwrap();
        worker.submit(()).unwrap();
        while worker.submit(()).is_ok() {
            std::thread::yield_now();
        }
        worker.clear();
    }
}
