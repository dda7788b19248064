//! The loop that waits for everything that is not a vCPU: what vCPUs ask, signals, the terminal, timers and devices of the host.

use std::fmt;
use std::os::fd::{AsRawFd, RawFd};

use event_manager::{EventManager, EventOps, EventSet, Events, MutEventSubscriber, SubscriberOps};

/// What to do when a file becomes readable. False: do not wait for it any more.
type Callback = Box<dyn FnMut() -> bool>;

/// A file and what to do when it becomes readable.
pub struct OnReadable {
    name: &'static str,
    /// Kept open for as long as it is waited for.
    file: Box<dyn AsRawFd>,
    callback: Callback,
}

impl fmt::Debug for OnReadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OnReadable")
            .field("name", &self.name)
            .field("fd", &self.file.as_raw_fd())
            .finish_non_exhaustive()
    }
}

struct Raw(RawFd);

impl AsRawFd for Raw {
    fn as_raw_fd(&self) -> RawFd {
        self.0
    }
}

impl MutEventSubscriber for OnReadable {
    fn init(&mut self, ops: &mut EventOps) {
        if let Err(error) = ops.add(Events::new(&Raw(self.file.as_raw_fd()), EventSet::IN)) {
            tracing::error!(name = self.name, %error, "cannot wait for an event source");
        }
    }

    fn process(&mut self, _events: Events, ops: &mut EventOps) {
        if !(self.callback)() {
            // Level-triggered: a source that is never drained again would spin the loop.
            let _ = ops.remove(Events::empty(&Raw(self.file.as_raw_fd())));
        }
    }
}

/// The event loop; single-threaded.
pub struct EventLoop {
    manager: EventManager<OnReadable>,
}

impl fmt::Debug for EventLoop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventLoop").finish_non_exhaustive()
    }
}

impl EventLoop {
    /// An empty loop.
    ///
    /// # Errors
    /// No epoll could be made.
    pub fn new() -> Result<Self, event_manager::Error> {
        Ok(Self {
            manager: EventManager::new()?,
        })
    }

    /// Waits for `file` from now on. `callback` must drain it, and returns whether to go on waiting for it.
    pub fn on_readable(
        &mut self,
        name: &'static str,
        file: impl AsRawFd + 'static,
        callback: impl FnMut() -> bool + 'static,
    ) {
        self.manager.add_subscriber(OnReadable {
            name,
            file: Box::new(file),
            callback: Box::new(callback),
        });
    }

    /// Waits for events and handles those that came.
    ///
    /// # Errors
    /// Waiting failed.
    pub fn run(&mut self) -> Result<(), event_manager::Error> {
        match self.manager.run() {
            Ok(_) => Ok(()),
            // A signal whose handler has already noted it.
            Err(event_manager::Error::Epoll(error)) if error.errno() == libc::EINTR => Ok(()),
            Err(error) => Err(error),
        }
    }
}
