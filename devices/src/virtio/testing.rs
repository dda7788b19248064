//! A driver and a machine for tests: rings built in guest memory, registers programmed through the BAR, events in place of KVM.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::VirtioDevice;
use super::lock;
use super::pci::{Placement, VirtioPci};
use super::spec;
use crate::pci::{ByteEnables, PciFunction};
use crate::{Backing, BusDevice, InterruptFabric, IrqLine, MsiMessage, MsiVector};

pub(super) const BAR: u32 = 0xc000_0000;
pub(super) const COMMON: u64 = 0;
pub(super) const ISR: u64 = 0x1000;
pub(super) const DEVICE: u64 = 0x2000;
pub(super) const NOTIFY: u64 = 0x3000;
pub(super) const MSIX_TABLE: u64 = 0x4000;
pub(super) const MSIX_PENDING: u64 = 0x5000;

pub(super) const DESC: u64 = 0x1000;
pub(super) const AVAIL: u64 = 0x2000;
pub(super) const USED: u64 = 0x3000;
pub(super) const BUFFERS: u64 = 0x1_0000;
pub(super) const QUEUE_SIZE: u16 = 8;
const MEMORY: usize = 1 << 20;

#[derive(Debug)]
pub(super) struct TestVector {
    event: EventFd,
    pub(super) route: Mutex<Option<MsiMessage>>,
}

impl TestVector {
    /// Signals since the last call; leaves none.
    pub(super) fn take(&self) -> u64 {
        self.event.read().unwrap_or(0)
    }

    pub(super) fn wait(&self) {
        wait_until("an interrupt", || self.take() > 0);
    }
}

impl MsiVector for TestVector {
    fn event(&self) -> &EventFd {
        &self.event
    }
    fn route(&self, message: MsiMessage) -> io::Result<()> {
        *lock(&self.route) = Some(message);
        Ok(())
    }
    fn unroute(&self) -> io::Result<()> {
        *lock(&self.route) = None;
        Ok(())
    }
    fn pending(&self) -> bool {
        let count = self.event.read().unwrap_or(0);
        count > 0 && self.event.write(count).is_ok()
    }
}

#[derive(Debug, Default)]
pub(super) struct TestLine(AtomicBool);

impl TestLine {
    pub(super) fn level(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

impl IrqLine for TestLine {
    fn set(&self, level: bool) {
        self.0.store(level, Ordering::SeqCst);
    }
}

#[derive(Debug, Default)]
pub(super) struct TestFabric(Mutex<Vec<Arc<TestVector>>>);

impl InterruptFabric for TestFabric {
    fn msi_vector(&self) -> io::Result<Arc<dyn MsiVector>> {
        let vector = Arc::new(TestVector {
            event: EventFd::new(EFD_NONBLOCK)?,
            route: Mutex::new(None),
        });
        lock(&self.0).push(Arc::clone(&vector));
        Ok(vector)
    }
    fn line(&self, _gsi: u32) -> Arc<dyn IrqLine> {
        Arc::new(TestLine::default())
    }
    fn connect_level(&self, _gsi: u32, _trigger: &EventFd, _resample: &EventFd) -> io::Result<()> {
        Ok(())
    }
    fn disconnect_level(&self, _gsi: u32, _trigger: &EventFd) -> io::Result<()> {
        Ok(())
    }
}

pub(super) fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !done() {
        assert!(Instant::now() < end, "{what} did not come");
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// A buffer of a chain.
#[derive(Debug, Clone, Copy)]
pub(super) struct Buffer {
    pub(super) address: u64,
    pub(super) len: u32,
    pub(super) write: bool,
}

pub(super) fn readable(address: u64, len: u32) -> Buffer {
    Buffer {
        address,
        len,
        write: false,
    }
}

pub(super) fn writable(address: u64, len: u32) -> Buffer {
    Buffer {
        address,
        len,
        write: true,
    }
}

/// A machine with one device, and its driver.
#[derive(Debug)]
pub(super) struct Driver {
    pub(super) function: VirtioPci,
    pub(super) memory: GuestMemoryMmap,
    pub(super) vectors: Vec<Arc<TestVector>>,
    pub(super) line: Arc<TestLine>,
    pub(super) available: u16,
    pub(super) used: u16,
}

impl Driver {
    /// BAR assigned, decode and bus mastering on.
    pub(super) fn new(device: Arc<dyn VirtioDevice>) -> Self {
        let half = MEMORY / 2;
        // Two regions that touch, so that buffers can cross from one to the other.
        let memory =
            GuestMemoryMmap::from_ranges(&[(GuestAddress(0), half), (GuestAddress(half as u64), half)]).unwrap();
        let fabric = TestFabric::default();
        let line = Arc::new(TestLine::default());
        let placement = Placement {
            requester: 0x18,
            pin: 1,
            line: Arc::clone(&line) as Arc<dyn IrqLine>,
            multifunction: false,
        };
        let function = VirtioPci::new(device, memory.clone(), &fabric, placement).unwrap();
        let vectors = lock(&fabric.0).clone();
        let driver = Self {
            function,
            memory,
            vectors,
            line,
            available: 0,
            used: 0,
        };
        driver.enable();
        driver
    }

    pub(super) fn enable(&self) {
        let _ = self.function.config_write(0x10, BAR, ByteEnables::ALL);
        let _ = self.function.config_write(0x04, 0x6, ByteEnables::of(0, 2));
    }

    pub(super) fn bar(&self) -> Arc<dyn BusDevice> {
        let mut regions = Vec::new();
        self.function.regions(&mut regions);
        match regions.pop().expect("BAR 0 decodes").backing {
            Backing::Device { device, .. } => device,
            Backing::Host { .. } => panic!("BAR 0 is emulated"),
        }
    }

    pub(super) fn read<const N: usize>(&self, offset: u64) -> [u8; N] {
        let mut data = [0xee; N];
        self.bar().read(offset, &mut data);
        data
    }

    pub(super) fn write(&self, offset: u64, data: &[u8]) {
        let _ = self.bar().write(offset, data);
    }

    pub(super) fn status(&self) -> u8 {
        let [status] = self.read(COMMON + 0x14);
        status
    }

    pub(super) fn set_status(&self, status: u8) {
        self.write(COMMON + 0x14, &[status]);
    }

    pub(super) fn offered(&self) -> u64 {
        let half = |select: u32| {
            self.write(COMMON, &select.to_le_bytes());
            u64::from(u32::from_le_bytes(self.read(COMMON + 4)))
        };
        half(1) << 32 | half(0)
    }

    pub(super) fn accept(&self, features: u64) {
        for select in [0u32, 1] {
            self.write(COMMON + 8, &select.to_le_bytes());
            let half = (features >> (32 * select)) as u32;
            self.write(COMMON + 0xc, &half.to_le_bytes());
        }
    }

    /// All of a driver's steps (virtio 1.2 §3.1.1); `features` are those it wants of what is offered, with VERSION_1.
    pub(super) fn start(&mut self, features: u64) {
        self.set_status(0);
        self.set_status(spec::STATUS_ACKNOWLEDGE);
        self.set_status(spec::STATUS_ACKNOWLEDGE | spec::STATUS_DRIVER);
        self.accept(self.offered() & (features | spec::F_VERSION_1));
        self.set_status(0x0b);
        assert_eq!(self.status(), 0x0b, "features were refused");
        self.program_queue(QUEUE_SIZE, DESC, AVAIL, USED);
        for ring in [AVAIL, USED] {
            self.memory.write_slice(&[0; 0x100], GuestAddress(ring)).unwrap();
        }
        (self.available, self.used) = (0, 0);
        self.set_status(0x0f);
    }

    pub(super) fn program_queue(&self, size: u16, desc: u64, avail: u64, used: u64) {
        self.write(COMMON + 0x16, &0u16.to_le_bytes());
        self.write(COMMON + 0x18, &size.to_le_bytes());
        self.write(COMMON + 0x20, &desc.to_le_bytes());
        self.write(COMMON + 0x28, &(avail as u32).to_le_bytes());
        self.write(COMMON + 0x2c, &((avail >> 32) as u32).to_le_bytes());
        self.write(COMMON + 0x30, &used.to_le_bytes());
        self.write(COMMON + 0x1c, &1u16.to_le_bytes());
    }

    /// Writes descriptor `index` of the table at `table`.
    pub(super) fn descriptor(&self, table: u64, index: u16, buffer: Buffer, flags: u16, next: u16) {
        let flags = flags | if buffer.write { 2 } else { 0 };
        let mut bytes = buffer.address.to_le_bytes().to_vec();
        bytes.extend(buffer.len.to_le_bytes());
        bytes.extend(flags.to_le_bytes());
        bytes.extend(next.to_le_bytes());
        let at = GuestAddress(table + 16 * u64::from(index));
        self.memory.write_slice(&bytes, at).unwrap();
    }

    /// A chain of `buffers` in descriptors from `first` on of the table at `table`.
    pub(super) fn chain(&self, table: u64, first: u16, buffers: &[Buffer]) {
        for (index, buffer) in (first..).zip(buffers) {
            let last = usize::from(index - first) + 1 == buffers.len();
            let flags = if last { 0 } else { 1 };
            self.descriptor(table, index, *buffer, flags, index + 1);
        }
    }

    /// Makes the chain that starts at `head` available, without notifying.
    pub(super) fn offer(&mut self, head: u16) {
        let slot = AVAIL + 4 + 2 * u64::from(self.available % QUEUE_SIZE);
        self.memory.write_obj(head, GuestAddress(slot)).unwrap();
        self.available = self.available.wrapping_add(1);
        self.memory
            .store(self.available, GuestAddress(AVAIL + 2), Ordering::Release)
            .unwrap();
    }

    pub(super) fn notify(&self) {
        self.write(NOTIFY, &0u16.to_le_bytes());
    }

    pub(super) fn used_index(&self) -> u16 {
        self.memory.load(GuestAddress(USED + 2), Ordering::Acquire).unwrap()
    }

    /// Waits for the next used element: head and length.
    pub(super) fn wait_used(&mut self) -> (u32, u32) {
        let mine = self.used;
        wait_until("a used buffer", || self.used_index() != mine);
        let slot = USED + 4 + 8 * u64::from(mine % QUEUE_SIZE);
        self.used = mine.wrapping_add(1);
        let head: u32 = self.memory.read_obj(GuestAddress(slot)).unwrap();
        let len: u32 = self.memory.read_obj(GuestAddress(slot + 4)).unwrap();
        (head, len)
    }

    /// Offers a chain of `buffers`, notifies, and waits until it was used. Returns the bytes written.
    pub(super) fn submit(&mut self, buffers: &[Buffer]) -> u32 {
        self.chain(DESC, 0, buffers);
        self.offer(0);
        self.notify();
        let (head, len) = self.wait_used();
        assert_eq!(head, 0);
        len
    }

    pub(super) fn wait_needs_reset(&self) {
        wait_until("NEEDS_RESET", || self.status() & spec::STATUS_NEEDS_RESET != 0);
    }

    pub(super) fn bytes(&self, address: u64, len: usize) -> Vec<u8> {
        let mut data = vec![0; len];
        self.memory.read_slice(&mut data, GuestAddress(address)).unwrap();
        data
    }

    pub(super) fn fill(&self, address: u64, data: &[u8]) {
        self.memory.write_slice(data, GuestAddress(address)).unwrap();
    }
}
