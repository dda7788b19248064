//! Interrupts through KVM: message routes with irqfds, and level-triggered lines.
//!
//! Two orders are kept here. A vector is unmasked by setting its route first and its irqfd second, or KVM would inject through a stale
//! route; it is masked by removing the irqfd first and the route second, or a signal in between would be lost (and some AMD kernels
//! without commit a80ced6ea514 crash on it).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use devices::{InterruptFabric, IrqLine, MsiMessage, MsiVector};
use kvm_bindings::{
    KVM_IRQ_ROUTING_IRQCHIP, KVM_IRQ_ROUTING_MSI, KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE,
    KvmIrqRouting, kvm_irq_routing_entry, kvm_irq_routing_irqchip, kvm_irq_routing_msi,
};
use kvm_ioctls::VmFd;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// Inputs of the IOAPIC.
const IOAPIC_PINS: u32 = 24;
/// GSIs that KVM can route (KVM_MAX_IRQ_ROUTES).
const MAX_GSI: u32 = 4096;

/// The interrupt controllers of one virtual machine.
#[derive(Debug, Clone)]
pub struct KvmFabric {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    vm: Arc<VmFd>,
    routes: Mutex<Routes>,
    /// How many devices assert each line now.
    lines: Mutex<HashMap<u32, u32>>,
}

#[derive(Debug, Default)]
struct Routes {
    messages: BTreeMap<u32, MsiMessage>,
    taken: BTreeSet<u32>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn os(error: kvm_ioctls::Error) -> io::Error {
    io::Error::from_raw_os_error(error.errno())
}

impl KvmFabric {
    /// The controllers of `vm`, with every legacy line routed to PIC and IOAPIC.
    ///
    /// # Errors
    /// What KVM says.
    pub fn new(vm: Arc<VmFd>) -> io::Result<Self> {
        let shared = Shared {
            vm,
            routes: Mutex::default(),
            lines: Mutex::default(),
        };
        shared.commit(&Routes::default())?;
        Ok(Self {
            shared: Arc::new(shared),
        })
    }
}

impl Shared {
    fn commit(&self, routes: &Routes) -> io::Result<()> {
        let mut entries = legacy_routes();
        entries.extend(routes.messages.iter().map(|(gsi, message)| msi_route(*gsi, *message)));
        let table = KvmIrqRouting::from_entries(&entries).map_err(|_| io::Error::other("too many interrupt routes"))?;
        self.vm.set_gsi_routing(&table).map_err(os)
    }

    fn set_route(&self, gsi: u32, message: Option<MsiMessage>) -> io::Result<()> {
        let mut routes = lock(&self.routes);
        match message {
            Some(message) => routes.messages.insert(gsi, message),
            None => routes.messages.remove(&gsi),
        };
        self.commit(&routes)
    }
}

fn route(gsi: u32, kind: u32) -> kvm_irq_routing_entry {
    kvm_irq_routing_entry {
        gsi,
        type_: kind,
        ..Default::default()
    }
}

fn chip_route(gsi: u32, irqchip: u32, pin: u32) -> kvm_irq_routing_entry {
    let mut entry = route(gsi, KVM_IRQ_ROUTING_IRQCHIP);
    entry.u.irqchip = kvm_irq_routing_irqchip { irqchip, pin };
    entry
}

/// What a PC's board wires: ISA lines to the 8259s and the IOAPIC, the timer to IOAPIC input 2 (as the MADT says), the rest to the
/// IOAPIC alone.
fn legacy_routes() -> Vec<kvm_irq_routing_entry> {
    let mut entries = Vec::new();
    for line in 0..16 {
        // Input 2 of the master takes the slave.
        if line != 2 {
            let (chip, pin) = if line < 8 {
                (KVM_IRQCHIP_PIC_MASTER, line)
            } else {
                (KVM_IRQCHIP_PIC_SLAVE, line - 8)
            };
            entries.push(chip_route(line, chip, pin));
        }
    }
    for line in 0..IOAPIC_PINS {
        match line {
            0 => entries.push(chip_route(0, KVM_IRQCHIP_IOAPIC, 2)),
            2 => {}
            line => entries.push(chip_route(line, KVM_IRQCHIP_IOAPIC, line)),
        }
    }
    entries
}

fn msi_route(gsi: u32, message: MsiMessage) -> kvm_irq_routing_entry {
    let mut entry = route(gsi, KVM_IRQ_ROUTING_MSI);
    entry.u.msi = kvm_irq_routing_msi {
        address_lo: message.address as u32,
        address_hi: (message.address >> 32) as u32,
        data: message.data,
        ..Default::default()
    };
    entry
}

impl InterruptFabric for KvmFabric {
    fn msi_vector(&self) -> io::Result<Arc<dyn MsiVector>> {
        let event = EventFd::new(EFD_NONBLOCK)?;
        let mut routes = lock(&self.shared.routes);
        let gsi = (IOAPIC_PINS..MAX_GSI)
            .find(|gsi| !routes.taken.contains(gsi))
            .ok_or_else(|| io::Error::other("all 4096 interrupt routes are taken"))?;
        routes.taken.insert(gsi);
        Ok(Arc::new(KvmVector {
            shared: Arc::clone(&self.shared),
            gsi,
            event,
            routed: Mutex::new(None),
        }))
    }

    fn line(&self, gsi: u32) -> Arc<dyn IrqLine> {
        Arc::new(KvmLine {
            shared: Arc::clone(&self.shared),
            gsi,
            asserted: AtomicBool::new(false),
        })
    }

    fn connect_level(&self, gsi: u32, trigger: &EventFd, resample: &EventFd) -> io::Result<()> {
        self.shared
            .vm
            .register_irqfd_with_resample(trigger, resample, gsi)
            .map_err(os)
    }

    fn disconnect_level(&self, gsi: u32, trigger: &EventFd) -> io::Result<()> {
        self.shared.vm.unregister_irqfd(trigger, gsi).map_err(os)
    }
}

/// An eventfd, a GSI, and the message it is routed to.
#[derive(Debug)]
struct KvmVector {
    shared: Arc<Shared>,
    gsi: u32,
    event: EventFd,
    routed: Mutex<Option<MsiMessage>>,
}

impl MsiVector for KvmVector {
    fn event(&self) -> &EventFd {
        &self.event
    }

    fn route(&self, message: MsiMessage) -> io::Result<()> {
        let mut routed = lock(&self.routed);
        if *routed == Some(message) {
            return Ok(());
        }
        self.shared.set_route(self.gsi, Some(message))?;
        if routed.is_none() {
            // KVM delivers what is already pending in the eventfd when it takes it.
            self.shared.vm.register_irqfd(&self.event, self.gsi).map_err(os)?;
        }
        *routed = Some(message);
        Ok(())
    }

    fn unroute(&self) -> io::Result<()> {
        let mut routed = lock(&self.routed);
        if routed.take().is_none() {
            return Ok(());
        }
        self.shared.vm.unregister_irqfd(&self.event, self.gsi).map_err(os)?;
        self.shared.set_route(self.gsi, None)
    }

    fn pending(&self) -> bool {
        lock(&self.routed).is_none() && is_readable(&self.event)
    }
}

impl Drop for KvmVector {
    fn drop(&mut self) {
        if let Err(error) = self.unroute() {
            tracing::debug!(gsi = self.gsi, %error, "interrupt route not removed");
        }
        lock(&self.shared.routes).taken.remove(&self.gsi);
    }
}

fn is_readable(event: &EventFd) -> bool {
    vmm_sys_util::poll::PollContext::<u32>::new()
        .and_then(|poll| poll.add(event, 0).map(|()| poll))
        .and_then(|poll| {
            poll.wait_timeout(std::time::Duration::ZERO)
                .map(|events| events.iter_readable().count() > 0)
        })
        .unwrap_or_else(|error| {
            tracing::debug!(fd = event.as_raw_fd(), %error, "cannot poll an interrupt event");
            false
        })
}

/// One device's share of a line.
#[derive(Debug)]
struct KvmLine {
    shared: Arc<Shared>,
    gsi: u32,
    asserted: AtomicBool,
}

impl IrqLine for KvmLine {
    fn set(&self, level: bool) {
        // The count is changed and KVM told under one lock: two devices that share the line must not be seen out of order.
        let mut lines = lock(&self.shared.lines);
        if self.asserted.swap(level, Ordering::Relaxed) == level {
            return;
        }
        let count = lines.entry(self.gsi).or_default();
        *count = if level {
            count.saturating_add(1)
        } else {
            count.saturating_sub(1)
        };
        let changed = if level { *count == 1 } else { *count == 0 };
        if changed && let Err(error) = self.shared.vm.set_irq_line(self.gsi, level) {
            tracing::debug!(gsi = self.gsi, level, %error, "KVM refused a line change");
        }
    }
}

impl Drop for KvmLine {
    fn drop(&mut self) {
        self.set(false);
    }
}
