//! Virtio over PCI, the modern interface only (virtio 1.2 §4.1).
//!
//! Three locks, taken in this order: the registers (held while a reset waits for the I/O thread), config space, interrupts. I/O threads
//! take only the last. The machine's lines and vectors are called with locks held; they do not come back.

mod interrupts;
mod layout;
mod msix;
mod registers;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::{Arc, Mutex};

use tracing::warn;
use vm_memory::GuestMemoryMmap;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::{Activation, ActiveQueue, VirtioDevice, lock};
use crate::pci::spec::{COMMAND, COMMAND_BUS_MASTER, COMMAND_INTX_DISABLE, STATUS_INTERRUPT};
use crate::pci::{ByteEnables, ConfigSpace, PciFunction};
use crate::{Backing, BusDevice, Effect, InterruptFabric, IoEvent, IrqLine, Region, Space};
use interrupts::Interrupts;
use layout::{Layout, Part};
use registers::{Registers, Request};

/// Where a function sits and how it interrupts without messages.
#[derive(Debug, Clone)]
pub struct Placement {
    /// Bus << 8 | device << 3 | function, which its messages carry.
    pub requester: u16,
    /// Interrupt pin: 1 INTA .. 4 INTD.
    pub pin: u8,
    /// What the pin is wired to.
    pub line: Arc<dyn IrqLine>,
    /// Whether the slot has further functions.
    pub multifunction: bool,
}

/// A virtio device as a PCI function: BAR 0 with all structures and MSI-X, one vector a queue and one for config changes.
#[derive(Debug)]
pub struct VirtioPci {
    inner: Arc<Inner>,
}

impl VirtioPci {
    /// Puts `device` behind a PCI function.
    ///
    /// # Errors
    /// No eventfd or no interrupt vector is left.
    pub fn new(
        device: Arc<dyn VirtioDevice>,
        memory: GuestMemoryMmap,
        fabric: &dyn InterruptFabric,
        placement: Placement,
    ) -> io::Result<Self> {
        let queues = device.queue_sizes().len();
        let kicks = (0..queues)
            .map(|_| Ok(Arc::new(EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?)))
            .collect::<io::Result<Vec<_>>>()?;
        let (layout, config) = Layout::build(device.as_ref(), &placement);
        let interrupts = Arc::new(Interrupts::new(fabric, placement, queues)?);
        let registers = Registers::new(device.features(), device.queue_sizes());
        let inner = Arc::new(Inner {
            device,
            memory,
            layout,
            kicks,
            interrupts,
            config: Mutex::new(config),
            registers: Mutex::new(registers),
        });
        inner.command_written();
        Ok(Self { inner })
    }

    /// The device behind the function.
    pub fn device(&self) -> &Arc<dyn VirtioDevice> {
        &self.inner.device
    }
}

#[derive(Debug)]
struct Inner {
    device: Arc<dyn VirtioDevice>,
    memory: GuestMemoryMmap,
    layout: Layout,
    /// One a queue; signalled by its notifications.
    kicks: Vec<Arc<EventFd>>,
    interrupts: Arc<Interrupts>,
    config: Mutex<ConfigSpace>,
    registers: Mutex<Registers>,
}

impl PciFunction for VirtioPci {
    fn config_read(&self, register: u16) -> u32 {
        let inner = &self.inner;
        let window = inner.layout.window(&lock(&inner.config), register);
        if let Some((offset, len)) = window {
            let mut data = [0; 4];
            if let Some(data) = data.get_mut(..len) {
                BusDevice::read(inner.as_ref(), offset, data);
            }
            return u32::from_le_bytes(data);
        }
        let value = lock(&inner.config).read(register);
        if register == COMMAND && inner.interrupts.intx_pending() {
            value | u32::from(STATUS_INTERRUPT) << 16
        } else {
            value
        }
    }

    fn config_write(&self, register: u16, value: u32, enables: ByteEnables) -> Effect {
        let inner = &self.inner;
        let (moved, window) = {
            let mut config = lock(&inner.config);
            let moved = config.write(register, value, enables);
            if let Some(control) = inner.layout.msix_control(&config, register) {
                inner.interrupts.set_msix_control(control);
            }
            (moved, inner.layout.window(&config, register))
        };
        if let Some((offset, len)) = window
            && let Some(data) = value.to_le_bytes().get(..len)
        {
            let _ = BusDevice::write(inner.as_ref(), offset, data);
        }
        if register == COMMAND {
            inner.command_written();
        }
        if moved { Effect::Relayout } else { Effect::None }
    }

    fn regions(&self, regions: &mut Vec<Region>) {
        for bar in lock(&self.inner.config).decoded_bars() {
            regions.push(Region {
                space: bar.space,
                base: bar.base,
                size: bar.size,
                backing: Backing::Device {
                    device: Arc::clone(&self.inner) as Arc<dyn BusDevice>,
                    offset: 0,
                },
            });
        }
    }

    fn io_events(&self, events: &mut Vec<IoEvent>) {
        for bar in lock(&self.inner.config).decoded_bars() {
            for (queue, event) in self.inner.kicks.iter().enumerate() {
                events.push(IoEvent {
                    space: Space::Memory,
                    address: bar.base.wrapping_add(Layout::notify_offset(queue)),
                    // Any width: KVM then does not have to decode the instruction.
                    width: 0,
                    value: None,
                    event: Arc::clone(event),
                });
            }
        }
    }

    fn reset(&self) {
        self.inner.reset_device(&mut lock(&self.inner.registers));
        lock(&self.inner.config).reset();
        self.inner.interrupts.power_on();
        self.inner.command_written();
    }
}

impl BusDevice for Inner {
    fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        match self.layout.part(offset) {
            Some((Part::Common, at)) => {
                lock(&self.registers).read(at, data, &self.interrupts);
            }
            Some((Part::Isr, 0)) => {
                if let Some(byte) = data.first_mut() {
                    *byte = self.interrupts.take_isr();
                }
            }
            Some((Part::Device, at)) => self.device.config_read(at, data),
            Some((Part::MsixTable, at)) => self.interrupts.read_table(at, data),
            Some((Part::MsixPending, at)) => self.interrupts.read_pending(at, data),
            _ => {}
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> Effect {
        match self.layout.part(offset) {
            Some((Part::Common, at)) => self.common_write(at, data),
            Some((Part::Device, at)) => self.device.config_write(at, data),
            Some((Part::Notify, at)) => {
                let queue = usize::try_from(at / u64::from(layout::NOTIFY_MULTIPLIER)).ok();
                if let Some(kick) = queue.and_then(|queue| self.kicks.get(queue)) {
                    // It fails when the counter is full: the event is signalled then.
                    let _ = kick.write(1);
                }
            }
            Some((Part::MsixTable, at)) => self.interrupts.write_table(at, data),
            _ => {}
        }
        Effect::None
    }
}

impl Inner {
    fn common_write(&self, at: u64, data: &[u8]) {
        let mut registers = lock(&self.registers);
        match registers.write(at, data, &self.interrupts) {
            None => {}
            Some(Request::Reset) => self.reset_device(&mut registers),
            Some(Request::Activate) => self.activate(&mut registers),
        }
    }

    fn activate(&self, registers: &mut Registers) {
        if let Err(error) = self.try_activate(registers) {
            if registers.first_failure() {
                warn!(%error, "virtio device not started; further failures are not logged");
            }
            super::Notifier::needs_reset(self.interrupts.as_ref());
        }
    }

    fn try_activate(&self, registers: &Registers) -> io::Result<()> {
        let mut queues = Vec::new();
        for ((index, config), kick) in (0u16..).zip(registers.queues()).zip(&self.kicks) {
            if !config.enabled {
                continue;
            }
            let max_size = registers.max_size(index);
            let features = registers.features();
            let queue = ActiveQueue::new(index, max_size, config, features, Arc::clone(kick), &self.memory)
                .map_err(io::Error::other)?;
            queues.push(queue);
        }
        self.device.activate(Activation {
            memory: self.memory.clone(),
            features: registers.features(),
            queues,
            notifier: Arc::clone(&self.interrupts) as Arc<dyn super::Notifier>,
        })
    }

    /// Device reset, by the driver or with the platform. Waits for the I/O thread.
    fn reset_device(&self, registers: &mut Registers) {
        self.device.reset();
        for kick in &self.kicks {
            // Nothing to read is an error, and as good.
            let _ = kick.read();
        }
        self.interrupts.device_reset();
        registers.reset();
    }

    /// Carries out what COMMAND says. Under the registers' lock, so that the last of several writers wins.
    fn command_written(&self) {
        let registers = lock(&self.registers);
        let command = lock(&self.config).get_u16(COMMAND);
        self.interrupts.set_intx_disabled(command & COMMAND_INTX_DISABLE != 0);
        // Without bus mastering a function may not access memory (PCIe 6.0 §7.5.1.1.3).
        self.device.set_running(command & COMMAND_BUS_MASTER != 0);
        drop(registers);
    }
}
