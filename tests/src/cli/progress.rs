//! What is being done right now: a moving line on a terminal, plain lines elsewhere.

use std::cell::RefCell;
use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Steps as they are taken.
#[derive(Debug)]
pub struct Progress {
    begin: Instant,
    terminal: bool,
    current: RefCell<Option<(ProgressBar, String, Instant)>>,
}

impl Progress {
    /// From now on.
    pub fn new() -> Self {
        Self {
            begin: Instant::now(),
            terminal: io::stderr().is_terminal(),
            current: RefCell::new(None),
        }
    }

    /// Says what comes, and leaves the terminal to others that show progress.
    pub fn line(&self, what: &str) {
        self.done();
        eprintln!("{:5.0} s  {what}", self.begin.elapsed().as_secs_f32());
    }

    /// The next step begins; the one before is over.
    pub fn step(&self, what: &str) {
        if !self.terminal {
            return self.line(what);
        }
        self.done();
        let style = ProgressStyle::with_template("{elapsed:>7} {spinner} {msg}");
        let bar = ProgressBar::new_spinner()
            .with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()))
            .with_message(what.to_owned());
        bar.enable_steady_tick(Duration::from_millis(200));
        *self.current.borrow_mut() = Some((bar, what.to_owned(), Instant::now()));
    }

    /// The step at hand is over.
    pub fn done(&self) {
        if let Some((bar, what, begin)) = self.current.borrow_mut().take() {
            bar.finish_and_clear();
            eprintln!("{:5.0} s  {what}", begin.elapsed().as_secs_f32());
        }
    }
}
