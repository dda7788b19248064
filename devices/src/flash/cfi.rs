//! The command cycles of the VARS flash: Intel's basic command set as far as stock OVMF uses it, in the dialect it was tested with.
//!
//! Two things differ from a chip. "Clear status" clears the ready bit too, since OVMF takes a chip that then reads 0x80 for a ROM
//! (edk2 QemuFlash.c, QemuFlashDetected). And only "read status" makes reads return the status: after a program or erase command they
//! return the array, so that the flash stays mapped through a run of thousands of bytes. OVMF polls nothing there.

/// Bytes that one erase clears: what OVMF has compiled in (OvmfPkgDefines.fdf.inc, BLOCK_SIZE).
pub const BLOCK_SIZE: u64 = 0x1000;

/// Commands (edk2 QemuFlash.c; Intel 28F128J3 datasheet, table 4).
mod command {
    pub const PROGRAM: u8 = 0x10;
    pub const ERASE: u8 = 0x20;
    pub const CLEAR_STATUS: u8 = 0x50;
    pub const READ_STATUS: u8 = 0x70;
    pub const ERASE_CONFIRM: u8 = 0xd0;
}

/// Bits of the status register (Intel 28F128J3 datasheet, table 16).
pub(super) mod status {
    pub const PROGRAM_ERROR: u8 = 0x10;
    pub const ERASE_ERROR: u8 = 0x20;
    pub const READY: u8 = 0x80;
}

/// What a write cycle asks of the array.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing.
    Nothing,
    /// Store the data of this cycle at its address; then [`Cfi::done`].
    Program,
    /// Set the block of this cycle's address to all-ones; then [`Cfi::done`].
    Erase,
}

/// What the next write cycle is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Command,
    ProgramData,
    EraseConfirm,
}

/// The state machine.
#[derive(Debug)]
pub(super) struct Cfi {
    next: Next,
    status: u8,
    shows_status: bool,
}

impl Default for Cfi {
    fn default() -> Self {
        Self {
            next: Next::Command,
            status: status::READY,
            shows_status: false,
        }
    }
}

impl Cfi {
    /// Whether reads return the status register rather than the array.
    pub fn shows_status(&self) -> bool {
        self.shows_status
    }

    /// The status register.
    pub fn status(&self) -> u8 {
        self.status
    }

    /// Takes one write cycle.
    pub fn write(&mut self, byte: u8) -> Step {
        match self.next {
            Next::Command => {
                self.command(byte);
                Step::Nothing
            }
            Next::ProgramData => {
                self.next = Next::Command;
                Step::Program
            }
            Next::EraseConfirm => {
                self.next = Next::Command;
                if byte == command::ERASE_CONFIRM {
                    // OVMF reads the array after an erase without asking for it.
                    self.shows_status = false;
                    return Step::Erase;
                }
                // Both error bits: a command sequence error.
                self.status |= status::READY | status::PROGRAM_ERROR | status::ERASE_ERROR;
                Step::Nothing
            }
        }
    }

    /// The array did what [`Cfi::write`] asked, or failed: then `error` is the bit to set.
    pub fn done(&mut self, error: Option<u8>) {
        self.status |= status::READY | error.unwrap_or(0);
    }

    fn command(&mut self, byte: u8) {
        match byte {
            // Neither leaves the status mode: the driver's detection programs a byte between two looks at the status, and each change
            // of mode costs a change of the memory map.
            command::PROGRAM => self.next = Next::ProgramData,
            command::ERASE => self.next = Next::EraseConfirm,
            command::READ_STATUS => self.shows_status = true,
            command::CLEAR_STATUS => {
                self.status = 0;
                self.shows_status = false;
            }
            // 0xff, and what is not implemented (identifiers, CFI query, buffered writes; OVMF uses none): back to the array.
            _ => self.shows_status = false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ready_chip_after_power_on() {
        let cfi = Cfi::default();
        assert_eq!((cfi.status(), cfi.shows_status()), (0x80, false));
    }

    #[test]
    fn clearing_the_status_clears_the_ready_bit_until_the_next_operation() {
        let mut cfi = Cfi::default();
        assert_eq!(cfi.write(0x50), Step::Nothing);
        assert_eq!(cfi.write(0x70), Step::Nothing);
        assert_eq!((cfi.status(), cfi.shows_status()), (0, true));
        assert_eq!(cfi.write(0x10), Step::Nothing);
        assert_eq!(cfi.write(0x70), Step::Program, "data, though it looks like a command");
        cfi.done(None);
        assert_eq!((cfi.status(), cfi.shows_status()), (0x80, true));
        assert_eq!(cfi.write(0xff), Step::Nothing);
        assert!(!cfi.shows_status());
    }

    #[test]
    fn errors_stay_until_cleared() {
        let mut cfi = Cfi::default();
        let _ = cfi.write(0x10);
        let _ = cfi.write(0);
        cfi.done(Some(status::PROGRAM_ERROR));
        let _ = cfi.write(0x10);
        let _ = cfi.write(0);
        cfi.done(None);
        assert_eq!(cfi.status(), 0x90);
        let _ = cfi.write(0x50);
        assert_eq!(cfi.status(), 0);
    }

    #[test]
    fn an_erase_needs_its_confirmation() {
        let mut cfi = Cfi::default();
        let _ = cfi.write(0x70);
        let _ = cfi.write(0x20);
        assert_eq!(cfi.write(0xff), Step::Nothing);
        assert_eq!(cfi.status(), 0xb0);
        let _ = cfi.write(0x20);
        assert_eq!(cfi.write(0xd0), Step::Erase);
        assert!(!cfi.shows_status());
    }
}
