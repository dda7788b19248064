//! Output that never blocks its writer.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::lock::lock;

/// What waits for a slow far end: some minutes of a busy console.
const CAPACITY: usize = 1 << 20;

/// How long the last bytes may take when everything ends.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A queue in front of a file, a pipe or a terminal, emptied by a thread. What does not fit is dropped, newest first.
///
/// Clones share the queue. Dropping the last one waits, for a second at most, until all is written.
#[derive(Debug, Clone)]
pub struct Outlet {
    end: Arc<End>,
}

/// Closes the queue with the last clone.
#[derive(Debug)]
struct End {
    queue: Arc<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    bytes: VecDeque<u8>,
    closed: bool,
    finished: bool,
    reported: bool,
}

impl Outlet {
    /// A queue in front of `far_end`, whose thread is called `name`.
    ///
    /// # Errors
    /// The thread cannot be made.
    pub fn new(name: &str, far_end: Box<dyn Write + Send>) -> io::Result<Self> {
        let queue = Arc::<Queue>::default();
        let for_thread = Arc::clone(&queue);
        let for_messages = name.to_owned();
        thread::Builder::new().name(name.to_owned()).spawn(move || {
            for_thread.drain(&for_messages, far_end);
            lock(&for_thread.state).finished = true;
            for_thread.changed.notify_all();
        })?;
        Ok(Self {
            end: Arc::new(End { queue }),
        })
    }
}

impl Write for Outlet {
    /// Takes all of `data`, or drops what has no room.
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let queue = &self.end.queue;
        let mut state = lock(&queue.state);
        // A far end that is gone (a closed pipe) takes everything.
        if state.finished {
            return Ok(data.len());
        }
        let room = CAPACITY.saturating_sub(state.bytes.len());
        let taken = data.get(..room).unwrap_or(data);
        let was_empty = state.bytes.is_empty();
        state.bytes.extend(taken);
        let lost = taken.len() < data.len() && !std::mem::replace(&mut state.reported, true);
        drop(state);
        if was_empty {
            queue.changed.notify_all();
        }
        if lost {
            tracing::warn!("guest output is lost: nobody takes it");
        }
        Ok(data.len())
    }

    /// The thread flushes.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for End {
    fn drop(&mut self) {
        let mut state = lock(&self.queue.state);
        state.closed = true;
        self.queue.changed.notify_all();
        // Not a join: the thread may be stuck in a write for ever.
        let _ = self
            .queue
            .changed
            .wait_timeout_while(state, LAST_WORDS, |state| !state.finished);
    }
}

impl Queue {
    fn drain(&self, name: &str, mut far_end: Box<dyn Write + Send>) {
        loop {
            let idle = |state: &mut State| state.bytes.is_empty() && !state.closed;
            let state = self.changed.wait_while(lock(&self.state), idle);
            let mut state = state.unwrap_or_else(PoisonError::into_inner);
            let bytes = std::mem::take(&mut state.bytes);
            drop(state);
            if bytes.is_empty() {
                return;
            }
            let (first, second) = bytes.as_slices();
            let written = far_end
                .write_all(first)
                .and_then(|()| far_end.write_all(second))
                .and_then(|()| far_end.flush());
            if let Err(error) = written {
                tracing::warn!(output = name, %error, "guest output goes nowhere from now on");
                return;
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::sync::mpsc;

    /// A far end that remembers.
    pub struct Shared(pub Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, data: &[u8]) -> io::Result<usize> {
            lock(&self.0).extend(data);
            Ok(data.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A far end that takes nothing before it is told to.
    struct Stuck(mpsc::Receiver<()>);

    impl Write for Stuck {
        fn write(&mut self, data: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            Ok(data.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn all_is_written_before_the_end() {
        let text = Arc::<Mutex<Vec<u8>>>::default();
        let mut outlet = Outlet::new("test", Box::new(Shared(Arc::clone(&text)))).unwrap();
        let mut clone = outlet.clone();
        outlet.write_all(b"ab").unwrap();
        drop(outlet);
        clone.write_all(b"cd").unwrap();
        drop(clone);
        assert_eq!(*lock(&text), b"abcd");
    }

    #[test]
    fn a_stuck_far_end_blocks_nobody() {
        let (release, wait) = mpsc::channel();
        let mut outlet = Outlet::new("test", Box::new(Stuck(wait))).unwrap();
        for _ in 0..40 {
            outlet.write_all(&[b'x'; CAPACITY / 10]).unwrap();
        }
        assert!(lock(&outlet.end.queue.state).bytes.len() <= CAPACITY);
        drop(release);
    }

    #[test]
    fn a_closed_far_end_is_no_error() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let mut outlet = Outlet::new("test", Box::new(writer)).unwrap();
        for _ in 0..1000 {
            outlet.write_all(b"x").unwrap();
        }
    }
}
