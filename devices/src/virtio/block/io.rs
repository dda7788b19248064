//! The I/O thread's loop: wait for the driver, empty the queue, interrupt once for what was done together.

use std::io;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use vm_memory::GuestMemoryMmap;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

use super::request::Disk;
use super::statistics::count;
use crate::virtio::{Activation, ActiveQueue, Chain, Notifier, Outcome, QueueError, Stop};

/// How long a finished request may wait for others, to be announced together with them.
const COALESCE: Duration = Duration::from_micros(100);

/// Works on an activated disk until it is stopped or its queue breaks.
pub(super) fn work(disk: &mut Disk, job: &mut Activation, stop: &Stop) -> Outcome {
    // Without an enabled queue there is nothing to do until the reset.
    let Some(queue) = job.queues.first_mut() else {
        return Outcome::Broken;
    };
    let mut turn = Turn {
        disk,
        memory: &job.memory,
        features: job.features,
        notifier: job.notifier.as_ref(),
        stop,
        chain: Chain::default(),
    };
    let result = serve(&mut turn, queue);
    match result {
        Ok(()) => Outcome::Stopped,
        Err(error) => {
            disk.failed(&error);
            job.notifier.needs_reset();
            Outcome::Broken
        }
    }
}

struct Turn<'a> {
    disk: &'a Disk,
    memory: &'a GuestMemoryMmap,
    features: u64,
    notifier: &'a dyn Notifier,
    stop: &'a Stop,
    chain: Chain,
}

fn serve(turn: &mut Turn<'_>, queue: &mut ActiveQueue) -> Result<(), Box<dyn std::error::Error>> {
    let epoll = Epoll::new()?;
    for fd in [queue.kick().as_raw_fd(), turn.stop.event().as_raw_fd()] {
        epoll.ctl(ControlOperation::Add, fd, EpollEvent::new(EventSet::IN, 0))?;
    }
    loop {
        // Before the first wait too: buffers may have come before a pause, with their notification read.
        drain(turn, queue)?;
        if turn.stop.asked() {
            return Ok(());
        }
        let mut events = [EpollEvent::default(); 2];
        match epoll.wait(-1, &mut events) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error.into()),
            _ => {}
        }
        // Nothing to read is an error, and as good.
        let _ = queue.kick().read();
    }
}

/// Handles all that is available, and leaves notifications on.
fn drain(turn: &mut Turn<'_>, queue: &mut ActiveQueue) -> Result<(), QueueError> {
    loop {
        queue.disable_kicks(turn.memory)?;
        let mut unannounced: Option<Instant> = None;
        let mut result = Ok(true);
        while !turn.stop.asked() {
            if unannounced.is_some_and(|since| since.elapsed() >= COALESCE) {
                announce(turn, queue)?;
                unannounced = None;
            }
            let started = Instant::now();
            result = handle_next(turn, queue);
            if !matches!(result, Ok(true)) {
                break;
            }
            unannounced.get_or_insert(started);
        }
        if unannounced.is_some() {
            // Also when the queue broke: what was finished before it did is.
            announce(turn, queue)?;
        }
        result?;
        if !queue.enable_kicks(turn.memory)? || turn.stop.asked() {
            return Ok(());
        }
    }
}

/// Handles one request; false when there is none.
fn handle_next(turn: &mut Turn<'_>, queue: &mut ActiveQueue) -> Result<bool, QueueError> {
    if !queue.pop(turn.memory, &mut turn.chain)? {
        return Ok(false);
    }
    let written = turn.disk.execute(turn.memory, &turn.chain, turn.features)?;
    queue.complete(turn.memory, turn.chain.head, written)?;
    Ok(true)
}

fn announce(turn: &Turn<'_>, queue: &mut ActiveQueue) -> Result<(), QueueError> {
    if queue.interrupt_wanted(turn.memory)? {
        count(&turn.disk.statistics().interrupts, 1);
        turn.notifier.queue_used(queue.index());
    }
    Ok(())
}
