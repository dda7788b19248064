//! From the device's interrupts to the guest's, in the kernel: VFIO signals an eventfd, KVM turns it into the interrupt
//! the guest programmed. This module only connects the two, and follows what the guest does to its registers.
//!
//! A function has one kind of interrupt enabled at a time: the kernel refuses a second (`is_irq_none` in
//! `vfio_pci_intrs.c`), so the old kind is always disabled before the new one is enabled.

mod intx;
mod msi;
mod msix;

use std::io;
use std::sync::Arc;

use devices::InterruptFabric;
use devices::pci::spec;

use crate::config_space::ConfigSpace;
use crate::discover::Layout;
use crate::host::Bdf;
use crate::io::{DeviceIo, IrqRequest};
use intx::Intx;
use msi::Msi;
pub(crate) use msix::Msix;

/// Warnings a guest can provoke about one device, at most.
const WARNINGS: u32 = 16;

/// What interrupts are made with.
#[derive(Debug, Clone)]
pub(crate) struct Wiring {
    /// The device's side.
    pub io: Arc<dyn DeviceIo>,
    /// The guest's side.
    pub fabric: Arc<dyn InterruptFabric>,
    /// The requester ID in messages: the function's place in the guest's slot; the bus is not known.
    pub requester: u16,
}

/// Which kind is enabled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// None: the function has not been started, or its kind could not be enabled.
    Off,
    /// The pin.
    Intx,
    /// MSI.
    Msi,
    /// MSI-X.
    Msix,
}

/// The interrupts of one function.
#[derive(Debug)]
pub(crate) struct Interrupts {
    wiring: Wiring,
    bdf: Bdf,
    mode: Mode,
    /// A kind that was refused; not tried again until the guest wants another.
    refused: Option<Mode>,
    intx: Option<Intx>,
    msi: Option<Msi>,
    msix: Option<Msix>,
    warnings: u32,
}

impl Interrupts {
    /// The interrupts that the layout names, all off. `gsi` is where INTx goes, if it goes anywhere.
    pub(crate) fn new(wiring: Wiring, bdf: Bdf, layout: &Layout, gsi: Option<u32>) -> io::Result<Self> {
        Ok(Self {
            intx: gsi.map(Intx::new).transpose()?,
            msi: layout.msi.map(Msi::new),
            msix: layout.msix.map(Msix::new),
            wiring,
            bdf,
            mode: Mode::Off,
            refused: None,
            warnings: 0,
        })
    }

    /// The kind enabled now.
    pub(crate) fn mode(&self) -> Mode {
        self.mode
    }

    /// MSI-X, if the function has it.
    pub(crate) fn msix(&self) -> Option<&Msix> {
        self.msix.as_ref()
    }

    /// A write to the MSI-X table.
    pub(crate) fn write_table(&mut self, offset: u64, data: &[u8]) {
        if let Some(msix) = &mut self.msix {
            let result = msix.write(&self.wiring, offset, data);
            self.note("MSI-X", result);
        }
    }

    /// Pending bits of MSI.
    pub(crate) fn msi_pending(&self) -> u32 {
        self.msi.as_ref().map_or(0, Msi::pending)
    }

    /// Follows the registers: switches the kind if the guest did, and updates messages and masks.
    pub(crate) fn sync(&mut self, config: &ConfigSpace) {
        let wanted = self.wanted(config);
        if wanted != self.mode {
            if self.refused == Some(wanted) {
                return;
            }
            self.leave();
            self.enter(wanted, config);
            return;
        }
        let result = match (self.mode, &mut self.msi, &mut self.msix) {
            (Mode::Msi, Some(msi), _) => msi.update(&self.wiring, config),
            (Mode::Msix, _, Some(msix)) => msix.update(&self.wiring, config),
            _ => Ok(()),
        };
        self.note("interrupt", result);
    }

    fn wanted(&self, config: &ConfigSpace) -> Mode {
        if self.msix.as_ref().is_some_and(|msix| msix.enabled(config)) {
            return Mode::Msix;
        }
        if self.msi.as_ref().is_some_and(|msi| msi.enabled(config)) {
            return Mode::Msi;
        }
        // The pin is taken when the guest first lets the function decode. Earlier is too early: the host's line may be
        // shared with a device that does not allow it, and a guest that uses MSI never needs it. Once taken it stays:
        // sizing a BAR turns decode off for a moment.
        let started = config.command() & (spec::COMMAND_MEMORY | spec::COMMAND_IO) != 0;
        match self.intx {
            Some(_) if started || self.mode == Mode::Intx => Mode::Intx,
            _ => Mode::Off,
        }
    }

    fn enter(&mut self, mode: Mode, config: &ConfigSpace) {
        let result = match (mode, &mut self.intx, &mut self.msi, &mut self.msix) {
            (Mode::Intx, Some(intx), ..) => intx.enter(&self.wiring),
            (Mode::Msi, _, Some(msi), _) => msi.enter(&self.wiring, config),
            (Mode::Msix, _, _, Some(msix)) => msix.enter(&self.wiring, config),
            _ => Ok(()),
        };
        self.refused = result.is_err().then_some(mode);
        self.mode = if result.is_ok() { mode } else { Mode::Off };
        let name = match mode {
            Mode::Intx => "INTx (the host's line may be shared with a device that does not allow it)",
            Mode::Msi => "MSI",
            Mode::Msix => "MSI-X",
            Mode::Off => "",
        };
        tracing::trace!("{}: interrupts now {:?}", self.bdf, self.mode);
        self.note(name, result);
    }

    /// Turns everything off.
    pub(crate) fn leave(&mut self) {
        match (self.mode, &mut self.intx, &mut self.msi, &mut self.msix) {
            (Mode::Intx, Some(intx), ..) => intx.leave(&self.wiring),
            (Mode::Msi, _, Some(msi), _) => msi.leave(&self.wiring),
            (Mode::Msix, _, _, Some(msix)) => msix.leave(&self.wiring),
            _ => {}
        }
        self.mode = Mode::Off;
        self.refused = None;
    }

    /// Back to power-on.
    pub(crate) fn reset(&mut self) {
        self.leave();
        if let Some(msix) = &mut self.msix {
            msix.reset();
        }
    }

    fn note(&mut self, what: &str, result: io::Result<()>) {
        if let Err(error) = result
            && self.warnings < WARNINGS
        {
            self.warnings += 1;
            tracing::warn!("{}: {what} could not be set up: {error}", self.bdf);
        }
    }
}

/// Disables an interrupt index. That it was not enabled is no trouble.
fn disable(wiring: &Wiring, index: u32) {
    if let Err(error) = wiring.io.set_irqs(&IrqRequest::disable(index)) {
        tracing::trace!("disabling interrupt index {index}: {error}");
    }
}
