//! The common configuration (virtio 1.2 §4.1.4.3): status, features and queues as the driver programs them.

use super::interrupts::Interrupts;
use super::layout::COMMON_SIZE;
use crate::virtio::spec::{
    F_EVENT_IDX, F_INDIRECT_DESC, F_VERSION_1, STATUS_DRIVER_OK, STATUS_FEATURES_OK, STATUS_NEEDS_RESET,
};
use crate::virtio::{QueueConfig, read_image};

// Offsets of the fields.
const DEVICE_FEATURE_SELECT: u64 = 0x00;
const DRIVER_FEATURE_SELECT: u64 = 0x08;
const DRIVER_FEATURE: u64 = 0x0c;
const CONFIG_MSIX_VECTOR: u64 = 0x10;
const DEVICE_STATUS: u64 = 0x14;
const QUEUE_SELECT: u64 = 0x16;
const QUEUE_SIZE: u64 = 0x18;
const QUEUE_MSIX_VECTOR: u64 = 0x1a;
const QUEUE_ENABLE: u64 = 0x1c;
const QUEUE_DESC: u64 = 0x20;
const QUEUE_DRIVER: u64 = 0x28;
const QUEUE_DEVICE: u64 = 0x30;

/// What a write asks of the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Request {
    /// The driver wrote status 0.
    Reset,
    /// The driver set DRIVER_OK.
    Activate,
}

/// The registers.
#[derive(Debug)]
pub(super) struct Registers {
    offered: u64,
    max_sizes: Vec<u16>,
    features: u64,
    device_feature_select: u32,
    driver_feature_select: u32,
    status: u8,
    queue_select: u16,
    queues: Vec<QueueConfig>,
    /// An activation failed before.
    failed: bool,
}

impl Registers {
    /// After a reset. `features` are the device's own.
    pub(super) fn new(features: u64, max_sizes: &[u16]) -> Self {
        let mut registers = Self {
            offered: features | F_VERSION_1 | F_EVENT_IDX | F_INDIRECT_DESC,
            max_sizes: max_sizes.to_vec(),
            features: 0,
            device_feature_select: 0,
            driver_feature_select: 0,
            status: 0,
            queue_select: 0,
            queues: Vec::new(),
            failed: false,
        };
        registers.reset();
        registers
    }

    /// What the driver wrote is forgotten.
    pub(super) fn reset(&mut self) {
        self.features = 0;
        self.device_feature_select = 0;
        self.driver_feature_select = 0;
        self.status = 0;
        self.queue_select = 0;
        self.queues = self
            .max_sizes
            .iter()
            .map(|size| QueueConfig {
                size: *size,
                ..QueueConfig::default()
            })
            .collect();
    }

    /// The features negotiated.
    pub(super) fn features(&self) -> u64 {
        self.features
    }

    /// The queues as programmed.
    pub(super) fn queues(&self) -> &[QueueConfig] {
        &self.queues
    }

    /// The largest size of a queue.
    pub(super) fn max_size(&self, queue: u16) -> u16 {
        self.max_sizes.get(usize::from(queue)).copied().unwrap_or(0)
    }

    /// True the first time.
    pub(super) fn first_failure(&mut self) -> bool {
        !std::mem::replace(&mut self.failed, true)
    }

    /// Fills `data` from `offset`. Any width works, as reads here have no effects.
    pub(super) fn read(&self, offset: u64, data: &mut [u8], interrupts: &Interrupts) {
        read_image(&self.image(interrupts), offset, data);
    }

    fn image(&self, interrupts: &Interrupts) -> [u8; COMMON_SIZE as usize] {
        let queue = self.queues.get(usize::from(self.queue_select)).copied();
        let config = queue.unwrap_or_default();
        let vector = interrupts.queue_vector(self.queue_select);
        let mut status = self.status;
        if interrupts.needs_reset_seen() {
            status |= STATUS_NEEDS_RESET;
        }
        let bytes = self
            .device_feature_select
            .to_le_bytes()
            .into_iter()
            .chain(half(self.offered, self.device_feature_select).to_le_bytes())
            .chain(self.driver_feature_select.to_le_bytes())
            .chain(half(self.features, self.driver_feature_select).to_le_bytes())
            .chain(interrupts.config_vector().to_le_bytes())
            .chain((self.queues.len() as u16).to_le_bytes())
            // The generation stays: no device here changes its config.
            .chain([status, 0])
            .chain(self.queue_select.to_le_bytes())
            .chain(config.size.to_le_bytes())
            .chain(vector.to_le_bytes())
            .chain(u16::from(config.enabled).to_le_bytes())
            // Notification offset, in units of the multiplier: the queue's number.
            .chain(queue.map_or(0, |_| self.queue_select).to_le_bytes())
            .chain(config.desc.to_le_bytes())
            .chain(config.avail.to_le_bytes())
            .chain(config.used.to_le_bytes());
        let mut image = [0; COMMON_SIZE as usize];
        for (target, byte) in image.iter_mut().zip(bytes) {
            *target = byte;
        }
        image
    }

    /// Takes a write. Fields are written whole, 64-bit ones also by halves (§4.1.3.1); anything else is dropped.
    pub(super) fn write(&mut self, offset: u64, data: &[u8], interrupts: &Interrupts) -> Option<Request> {
        match *data {
            [value] if offset == DEVICE_STATUS => return self.write_status(value, interrupts),
            [a, b] => self.write16(offset, u16::from_le_bytes([a, b]), interrupts),
            [a, b, c, d] => self.write32(offset, u32::from_le_bytes([a, b, c, d])),
            [a, b, c, d, e, f, g, h] => {
                self.write32(offset, u32::from_le_bytes([a, b, c, d]));
                self.write32(offset.wrapping_add(4), u32::from_le_bytes([e, f, g, h]));
            }
            _ => {}
        }
        None
    }

    fn write16(&mut self, offset: u64, value: u16, interrupts: &Interrupts) {
        match offset {
            CONFIG_MSIX_VECTOR => interrupts.set_config_vector(value),
            QUEUE_SELECT => self.queue_select = value,
            QUEUE_MSIX_VECTOR => interrupts.set_queue_vector(self.queue_select, value),
            QUEUE_SIZE => {
                let max = self.max_size(self.queue_select);
                if let Some(queue) = self.programmable()
                    && value.is_power_of_two()
                    && value <= max
                {
                    queue.size = value;
                }
            }
            QUEUE_ENABLE => {
                if let Some(queue) = self.programmable() {
                    // Only a reset disables (§4.1.4.3.2).
                    queue.enabled = value == 1;
                }
            }
            _ => {}
        }
    }

    fn write32(&mut self, offset: u64, value: u32) {
        match offset {
            DEVICE_FEATURE_SELECT => self.device_feature_select = value,
            DRIVER_FEATURE_SELECT => self.driver_feature_select = value,
            DRIVER_FEATURE if self.status & STATUS_FEATURES_OK == 0 => {
                set_half(&mut self.features, self.driver_feature_select, value);
            }
            _ => {
                let Some(queue) = self.programmable() else { return };
                let field = match offset & !7 {
                    QUEUE_DESC => &mut queue.desc,
                    QUEUE_DRIVER => &mut queue.avail,
                    QUEUE_DEVICE => &mut queue.used,
                    _ => return,
                };
                match offset & 7 {
                    0 => set_half(field, 0, value),
                    4 => set_half(field, 1, value),
                    _ => {}
                }
            }
        }
    }

    /// The selected queue while the driver may program it: until it is enabled.
    fn programmable(&mut self) -> Option<&mut QueueConfig> {
        let running = self.status & STATUS_DRIVER_OK != 0;
        let queue = self.queues.get_mut(usize::from(self.queue_select))?;
        (!running && !queue.enabled).then_some(queue)
    }

    fn write_status(&mut self, value: u8, interrupts: &Interrupts) -> Option<Request> {
        if value == 0 {
            return Some(Request::Reset);
        }
        // A driver sets bits and never clears one (§2.1.1); NEEDS_RESET is not its to set.
        let mut set = value & !self.status & !STATUS_NEEDS_RESET;
        let acceptable = self.features & !self.offered == 0 && self.features & F_VERSION_1 != 0;
        if !acceptable {
            set &= !STATUS_FEATURES_OK;
        }
        self.status |= set;
        if self.status & STATUS_FEATURES_OK == 0 {
            self.status &= !STATUS_DRIVER_OK;
        }
        let start = set & self.status & STATUS_DRIVER_OK != 0 && !interrupts.needs_reset_seen();
        start.then_some(Request::Activate)
    }
}

/// 32 bits of a 64-bit feature set; zero beyond.
fn half(value: u64, select: u32) -> u32 {
    match select {
        0 => value as u32,
        1 => (value >> 32) as u32,
        _ => 0,
    }
}

fn set_half(target: &mut u64, select: u32, value: u32) {
    let value = u64::from(value);
    match select {
        0 => *target = *target & !0xffff_ffff | value,
        1 => *target = *target & 0xffff_ffff | value << 32,
        _ => {}
    }
}
