//! The terminal while the guest's serial port has it.

use std::io::{self, IsTerminal};

use vmm_sys_util::terminal::Terminal;

/// Raw mode, for as long as this lives. Ctrl-C goes to the guest.
#[derive(Debug)]
pub struct RawTerminal(());

impl RawTerminal {
    /// Puts standard input into raw mode, if it is a terminal.
    ///
    /// # Errors
    /// The terminal refuses.
    pub fn enter() -> io::Result<Option<Self>> {
        let input = io::stdin();
        if !input.is_terminal() {
            return Ok(None);
        }
        // Blocking as it was: standard output may be the same terminal, and its writers count on that.
        input
            .lock()
            .set_raw_mode()
            .map_err(|error| io::Error::from_raw_os_error(error.errno()))?;
        Ok(Some(Self(())))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        let input = io::stdin();
        if input.lock().set_canon_mode().is_err() {
            tracing::warn!("the terminal was left in raw mode; `reset` puts it right");
        }
    }
}
