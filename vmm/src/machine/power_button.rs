//! The power button, as signals and the terminal press it.

use std::cell::Cell;
use std::sync::Arc;

use devices::chipset::pm::PowerManagement;

use super::control::{Control, Request};

/// Pressed once, it asks the guest to power off; once more, and the machine stops at once.
#[derive(Debug)]
pub struct PowerButton {
    control: Arc<Control>,
    pm: Arc<PowerManagement>,
    pressed: Cell<bool>,
}

impl PowerButton {
    /// The button of a machine.
    pub fn new(control: &Arc<Control>, pm: &Arc<PowerManagement>) -> Self {
        Self {
            control: Arc::clone(control),
            pm: Arc::clone(pm),
            pressed: Cell::new(false),
        }
    }

    /// Presses it.
    pub fn press(&self) {
        if self.pressed.replace(true) {
            tracing::warn!("stopping at once");
            self.control.request(Request::Stop);
        } else if self.pm.press_power_button() {
            tracing::info!("power button pressed; once more stops the machine at once");
        } else {
            tracing::warn!(
                "power button pressed, but the guest does not listen to it yet; once more stops the machine at once"
            );
        }
    }
}
