//! What tenon counts on KVM to do, shown by guests of a few bytes on `/dev/kvm`.
//!
//! Where there is no `/dev/kvm` these tests say so, and `cargo lab test` counts them as skipped; it runs them in the lab host as well,
//! where there always is one.
#![expect(clippy::unwrap_used, reason = "all of this is a test")]

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use devices::{Backing, BusDevice, Effect, HostMapping, InterruptFabric, IoEvent, MsiMessage, Region, Space};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use vmm::kvm::irq::KvmFabric;
use vmm::kvm::memory::Slots;
use vmm::kvm::vcpu::{ExitCounts, Step, Vcpu, supported_cpuid};
use vmm::machine::address_space::{AddressSpace, Decoded, Source};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// Where the guest's code lies and starts.
const CODE: u64 = 0x1000;

struct Guest {
    vcpu: Vcpu,
    space: AddressSpace,
    memory: GuestMemoryMmap,
    counts: ExitCounts,
}

impl Guest {
    /// A real-mode guest of `code`, or nothing where there is no KVM.
    fn new(code: &[u8], sources: Vec<Source>) -> Option<Self> {
        let kvm = match vmm::kvm::host::open() {
            Ok(kvm) => kvm,
            Err(error) => {
                println!(
                    "skipped: {}: {error}",
                    std::thread::current().name().unwrap_or("kvm_contract")
                );
                return None;
            }
        };
        let vm = vmm::kvm::host::create_vm(&kvm, 0xfeff_c000, 0xfeff_d000).unwrap();
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x1_0000)]).unwrap();
        memory.write_slice(code, GuestAddress(CODE)).unwrap();
        let slots = Slots::with_ram(Arc::clone(&vm), &memory).unwrap();
        let vcpu = Vcpu::new(&vm, 0, &supported_cpuid(&kvm).unwrap(), true).unwrap();
        let mut sregs = vcpu.fd().get_sregs().unwrap();
        sregs.cs.base = 0;
        sregs.cs.selector = 0;
        vcpu.fd().set_sregs(&sregs).unwrap();
        let regs = kvm_bindings::kvm_regs {
            rip: CODE,
            rflags: 2,
            ..Default::default()
        };
        vcpu.fd().set_regs(&regs).unwrap();
        let space = AddressSpace::new(vm, slots, sources, vec![(0, 0x1_0000)]);
        space.relayout();
        Some(Self {
            vcpu,
            space,
            memory,
            counts: ExitCounts::default(),
        })
    }

    fn step(&mut self) -> Step {
        self.vcpu.step(&self.space.buses(), &self.counts)
    }
}

#[derive(Debug, Default)]
struct Recorder {
    written: Mutex<Vec<(u64, Vec<u8>)>>,
    effect: Mutex<Effect>,
}

impl BusDevice for Recorder {
    fn read(&self, _offset: u64, data: &mut [u8]) {
        data.fill(0x5a);
    }

    fn write(&self, offset: u64, data: &[u8]) -> Effect {
        self.written.lock().unwrap().push((offset, data.to_vec()));
        *self.effect.lock().unwrap()
    }
}

fn region(space: Space, base: u64, size: u64, device: &Arc<Recorder>) -> Region {
    let device: Arc<dyn BusDevice> = Arc::clone(device) as _;
    Region {
        space,
        base,
        size,
        backing: Backing::Device { device, offset: 0 },
    }
}

#[test]
fn string_output_arrives_element_by_element() {
    let device = Arc::new(Recorder::default());
    let source = Arc::clone(&device);
    // mov cx,3; mov si,0x2000; mov dx,0x402; rep outsw; hlt
    let code = [0xb9, 3, 0, 0xbe, 0, 0x20, 0xba, 0x02, 0x04, 0xf3, 0x6f, 0xf4];
    let sources: Vec<Source> = vec![Box::new(move |out: &mut Decoded| {
        out.regions.push(region(Space::Port, 0x402, 2, &source));
    })];
    let Some(mut guest) = Guest::new(&code, sources) else {
        return;
    };
    guest
        .memory
        .write_slice(&[1, 2, 3, 4, 5, 6], GuestAddress(0x2000))
        .unwrap();
    while device.written.lock().unwrap().len() < 3 {
        assert_eq!(guest.step(), Step::Handled(Effect::None));
    }
    let written = device.written.lock().unwrap().clone();
    assert_eq!(written, [(0, vec![1, 2]), (0, vec![3, 4]), (0, vec![5, 6])]);
}

#[test]
fn a_device_s_effect_comes_back_from_its_exit() {
    let device = Arc::new(Recorder::default());
    *device.effect.lock().unwrap() = Effect::Reset;
    let source = Arc::clone(&device);
    // mov al,6; mov dx,0xcf9; out dx,al; hlt
    let code = [0xb0, 6, 0xba, 0xf9, 0x0c, 0xee, 0xf4];
    let sources: Vec<Source> = vec![Box::new(move |out: &mut Decoded| {
        out.regions.push(region(Space::Port, 0xcf9, 1, &source));
    })];
    let Some(mut guest) = Guest::new(&code, sources) else {
        return;
    };
    assert_eq!(guest.step(), Step::Handled(Effect::Reset));
    assert_eq!(*device.written.lock().unwrap(), [(0, vec![6])]);
}

#[test]
fn unclaimed_ports_and_memory_read_all_ones() {
    // in al,0x80; mov ds:[0x2000],al; mov bx,0xffff; mov ds,bx; mov al,ds:[0xf00f]; mov ds,cx(0); mov ds:[0x2001],al; out 0x81,al
    let code = [
        0xe4, 0x80, 0xa2, 0x00, 0x20, 0xbb, 0xff, 0xff, 0x8e, 0xdb, 0xa0, 0x0f, 0xf0, 0x31, 0xc9, 0x8e, 0xd9, 0xa2,
        0x01, 0x20, 0xe6, 0x81,
    ];
    let Some(mut guest) = Guest::new(&code, Vec::new()) else {
        return;
    };
    while guest.counts.port.load(Ordering::Relaxed) < 2 {
        assert_eq!(guest.step(), Step::Handled(Effect::None));
    }
    let mut seen = [0; 2];
    guest.memory.read_slice(&mut seen, GuestAddress(0x2000)).unwrap();
    assert_eq!(seen, [0xff, 0xff]);
}

/// The property a BAR needs: what was reached without an exit exits again once the slot is gone.
#[test]
fn a_removed_slot_exits_again() {
    let mapping = Arc::new(HostMapping::anonymous(4096).unwrap());
    mapping.write(0, &[0x77]);
    let mapped = Arc::new(Mutex::new(true));
    let (source_mapping, source_mapped) = (Arc::clone(&mapping), Arc::clone(&mapped));
    let sources: Vec<Source> = vec![Box::new(move |out: &mut Decoded| {
        if *source_mapped.lock().unwrap() {
            let backing = Backing::Host {
                mapping: Arc::clone(&source_mapping),
                offset: 0,
                writes: None,
            };
            out.regions.push(Region {
                space: Space::Memory,
                base: 0x1_0000,
                size: 4096,
                backing,
            });
        }
    })];
    // mov bx,0x1000; mov ds,bx; again: mov al,ds:[0]; out 0x81,al; jmp again
    let code = [0xbb, 0x00, 0x10, 0x8e, 0xdb, 0xa0, 0, 0, 0xe6, 0x81, 0xeb, 0xf9];
    let Some(mut guest) = Guest::new(&code, sources) else {
        return;
    };
    assert_eq!(guest.step(), Step::Handled(Effect::None));
    assert_eq!(
        guest.vcpu.fd().get_regs().unwrap().rax & 0xff,
        0x77,
        "read without an exit"
    );
    assert_eq!(guest.counts.memory.load(Ordering::Relaxed), 0);
    *mapped.lock().unwrap() = false;
    guest.space.relayout();
    while guest.counts.memory.load(Ordering::Relaxed) == 0 {
        assert_eq!(guest.step(), Step::Handled(Effect::None));
    }
    assert_eq!(guest.step(), Step::Handled(Effect::None));
    assert_eq!(
        guest.vcpu.fd().get_regs().unwrap().rax & 0xff,
        0xff,
        "nobody is there any more"
    );
}

#[test]
fn an_io_event_signals_without_an_exit() {
    let event = Arc::new(EventFd::new(EFD_NONBLOCK).unwrap());
    let source = Arc::clone(&event);
    let sources: Vec<Source> = vec![Box::new(move |out: &mut Decoded| {
        out.io_events.push(IoEvent {
            space: Space::Port,
            address: 0x90,
            width: 2,
            value: Some(0x1234),
            event: Arc::clone(&source),
        });
    })];
    // mov ax,0x1234; out 0x90,ax; inc ax; out 0x90,ax
    let code = [0xb8, 0x34, 0x12, 0xe7, 0x90, 0x40, 0xe7, 0x90];
    let Some(mut guest) = Guest::new(&code, sources) else {
        return;
    };
    assert_eq!(guest.step(), Step::Handled(Effect::None));
    assert_eq!(
        guest.counts.port.load(Ordering::Relaxed),
        1,
        "only the other value exits"
    );
    assert_eq!(event.read().unwrap(), 1);
}

#[test]
fn a_signal_while_masked_stays_pending() {
    let Ok(kvm) = vmm::kvm::host::open() else {
        return eprintln!("SKIPPED: no /dev/kvm");
    };
    let vm = vmm::kvm::host::create_vm(&kvm, 0xfeff_c000, 0xfeff_d000).unwrap();
    let fabric = KvmFabric::new(vm).unwrap();
    let vector = fabric.msi_vector().unwrap();
    vector.event().write(1).unwrap();
    assert!(vector.pending());
    let message = MsiMessage {
        address: 0xfee0_0000,
        data: 0x31,
        requester: 0,
    };
    vector.route(message).unwrap();
    assert!(!vector.pending(), "routed vectors are the kernel's");
    let deadline = std::time::Instant::now() + Duration::from_secs(5);
    while vector.event().read().is_ok() && std::time::Instant::now() < deadline {}
    vector.unroute().unwrap();
    assert!(!vector.pending(), "the kernel has taken the signal");
}

#[test]
fn the_processor_keeps_its_name() {
    let Ok(kvm) = vmm::kvm::host::open() else {
        return println!("skipped: the_processor_keeps_its_name: no /dev/kvm");
    };
    let leaves = supported_cpuid(&kvm).unwrap();
    for function in 0x8000_0002..=0x8000_0004 {
        let found: Vec<_> = leaves.iter().filter(|leaf| leaf.function == function).collect();
        assert_eq!(found.len(), 1, "{function:#x}");
        assert_eq!(found[0].eax, std::arch::x86_64::__cpuid(function).eax);
    }
}
