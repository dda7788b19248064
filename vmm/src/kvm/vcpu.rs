//! One vCPU: from a KVM exit to an access of the buses, and back.
#![expect(
    unsafe_code,
    reason = "the shared kvm_run page says what kvm-ioctls leaves out of its exits"
)]

use std::arch::x86_64::__cpuid;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use devices::{Bus, Effect};
use kvm_bindings::{
    CpuId, KVM_CAP_ENFORCE_PV_FEATURE_CPUID, Msrs, kvm_cpuid_entry2, kvm_enable_cap, kvm_msr_entry, kvm_run,
};
use kvm_ioctls::{Cap, Kvm, VcpuExit, VcpuFd, VmFd};

use super::host::{HostError, refused};

/// The two address spaces as a vCPU sees them.
#[derive(Debug, Default)]
pub struct Buses {
    /// IN and OUT.
    pub ports: Bus,
    /// Memory that exits.
    pub memory: Bus,
}

/// Exits of all vCPUs by kind; what `tenon run` reports at the end.
#[derive(Debug, Default)]
pub struct ExitCounts {
    /// IN and OUT instructions.
    pub port: AtomicU64,
    /// Accesses of memory that no slot backs.
    pub memory: AtomicU64,
    /// Everything else that came back to user space.
    pub other: AtomicU64,
}

impl ExitCounts {
    /// Writes the counts to the log.
    pub fn log(&self) {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        tracing::info!(
            ports = count(&self.port),
            memory = count(&self.memory),
            other = count(&self.other),
            "exits to user space"
        );
    }
}

/// What came of running a vCPU until its next exit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// The exit was handled; devices want this done.
    Handled(Effect),
    /// A signal arrived: look at what the machine wants.
    Interrupted,
    /// The guest faulted beyond recovery; a real processor would assert its shutdown line, which resets the board.
    TripleFault,
    /// A mapped BAR went away under the access. It is retried once the layout has settled.
    Vanished,
    /// KVM cannot go on.
    Failed(String),
}

/// HWCR and its bit TscFreqSel: the TSC counts at the P0 frequency (AMD64 APM vol. 2 §3.2.10, PPR for family 17h).
const MSR_HWCR: u32 = 0xc001_0015;
const HWCR_TSC_FREQ_SEL: u64 = 1 << 24;

/// Whether the guest sees an AMD processor (Hygon's are such) whose TSC never varies: Linux then wants HWCR to say so.
fn tsc_counts_at_p0(cpuid: &[kvm_cpuid_entry2]) -> bool {
    let leaf = |function| cpuid.iter().find(|entry| entry.function == function);
    let vendor = leaf(0).map(|leaf| [leaf.ebx, leaf.edx, leaf.ecx].map(u32::to_le_bytes).concat());
    let amd = vendor.is_some_and(|name| name == b"AuthenticAMD" || name == b"HygonGenuine");
    // CPUID 0x80000007 EDX bit 8: the TSC's rate is constant in all states.
    amd && leaf(0x8000_0007).is_some_and(|leaf| leaf.edx & 1 << 8 != 0)
}

/// Does what firmware does on the real board. KVM before Linux 6.7 has no such bit; there the guest's kernel warns, no more.
fn set_tsc_at_p0(vcpu: &VcpuFd) {
    let entry = kvm_msr_entry {
        index: MSR_HWCR,
        data: HWCR_TSC_FREQ_SEL,
        ..Default::default()
    };
    let written = Msrs::from_entries(&[entry]).ok().map(|msrs| vcpu.set_msrs(&msrs));
    if !matches!(written, Some(Ok(1))) {
        tracing::debug!("KVM does not let HWCR say that the TSC counts at the P0 frequency");
    }
}

/// A vCPU and its shared page.
pub struct Vcpu {
    fd: VcpuFd,
    run: *const kvm_run,
}

// SAFETY: the page that `run` points to lives as long as `fd`, which moves along, and is only read through `&mut self`.
unsafe impl Send for Vcpu {}

impl fmt::Debug for Vcpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vcpu").field("fd", &self.fd).finish_non_exhaustive()
    }
}

impl Vcpu {
    /// Makes vCPU `index` with `cpuid`. With `enforce_pv`, paravirtual MSRs that CPUID does not offer fault, as on real hardware.
    ///
    /// # Errors
    /// What KVM says.
    pub fn new(vm: &VmFd, index: u32, cpuid: &[kvm_cpuid_entry2], enforce_pv: bool) -> Result<Self, HostError> {
        let mut fd = vm.create_vcpu(u64::from(index)).map_err(refused("create a vCPU"))?;
        if enforce_pv {
            // Before CPUID is set: older kernels compute what to refuse from the CPUID of that moment.
            let cap = kvm_enable_cap {
                cap: KVM_CAP_ENFORCE_PV_FEATURE_CPUID,
                args: [1, 0, 0, 0],
                ..Default::default()
            };
            fd.enable_cap(&cap).map_err(refused(
                "refuse paravirtual MSRs (KVM_CAP_ENFORCE_PV_FEATURE_CPUID, Linux 5.10)",
            ))?;
        }
        let entries = CpuId::from_entries(cpuid).map_err(|_| HostError::Lacks("room for the guest's CPUID leaves"))?;
        fd.set_cpuid2(&entries).map_err(refused("take the guest's CPUID"))?;
        if tsc_counts_at_p0(cpuid) {
            set_tsc_at_p0(&fd);
        }
        let run = std::ptr::from_mut(fd.get_kvm_run()).cast_const();
        Ok(Self { fd, run })
    }

    /// The KVM file of this vCPU.
    pub fn fd(&self) -> &VcpuFd {
        &self.fd
    }

    /// Completes the last exit's instruction without running the guest any further. A vCPU whose state is about to be replaced needs
    /// this, or KVM would apply the pending half of an IN or an emulated load to the new state.
    pub fn complete_exit(&mut self) {
        self.fd.set_kvm_immediate_exit(1);
        let _ = self.fd.run();
        self.fd.set_kvm_immediate_exit(0);
    }

    /// Runs the guest until it exits and answers the exit from `buses`.
    pub fn step(&mut self, buses: &Buses, counts: &ExitCounts) -> Step {
        let run = self.run;
        match self.fd.run() {
            Ok(VcpuExit::IoIn(port, data)) => {
                counts.port.fetch_add(1, Ordering::Relaxed);
                // A string instruction brings all its elements in one exit; the device sees them one by one.
                for element in data.chunks_mut(io_width(run)) {
                    buses.ports.read(u64::from(port), element);
                }
                Step::Handled(Effect::None)
            }
            Ok(VcpuExit::IoOut(port, data)) => {
                counts.port.fetch_add(1, Ordering::Relaxed);
                let write = |effect: Effect, element: &[u8]| effect.or(buses.ports.write(u64::from(port), element));
                Step::Handled(data.chunks(io_width(run)).fold(Effect::None, write))
            }
            Ok(VcpuExit::MmioRead(address, data)) => {
                counts.memory.fetch_add(1, Ordering::Relaxed);
                buses.memory.read(address, data);
                Step::Handled(Effect::None)
            }
            Ok(VcpuExit::MmioWrite(address, data)) => {
                counts.memory.fetch_add(1, Ordering::Relaxed);
                Step::Handled(buses.memory.write(address, data))
            }
            exit => {
                counts.other.fetch_add(1, Ordering::Relaxed);
                rare_exit(exit, run)
            }
        }
    }
}

fn rare_exit(exit: Result<VcpuExit<'_>, kvm_ioctls::Error>, run: *const kvm_run) -> Step {
    match exit {
        Ok(VcpuExit::Shutdown) => Step::TripleFault,
        Ok(VcpuExit::Intr | VcpuExit::Hlt | VcpuExit::IrqWindowOpen | VcpuExit::IoapicEoi(_)) => {
            Step::Handled(Effect::None)
        }
        Ok(VcpuExit::InternalError) => Step::Failed(internal_error(run)),
        Ok(VcpuExit::MemoryFault { .. }) => Step::Vanished,
        Ok(VcpuExit::FailEntry(reason, cpu)) => Step::Failed(format!(
            "the processor refused to enter the guest (hardware reason {reason:#x} on host CPU {cpu})"
        )),
        Ok(other) => Step::Failed(format!("KVM stopped with an exit that is not handled: {other:?}")),
        Err(error) => match error.errno() {
            libc::EINTR | libc::EAGAIN => Step::Interrupted,
            libc::EFAULT => Step::Vanished,
            _ => Step::Failed(format!("KVM_RUN failed: {error}")),
        },
    }
}

/// Bytes of one element of the port access that exited; kvm-ioctls gives only the product of width and count.
fn io_width(run: *const kvm_run) -> usize {
    // SAFETY: the page is mapped while the vCPU exists, and after an I/O exit the kernel has filled the `io` member.
    let width = unsafe { (*run).__bindgen_anon_1.io.size };
    usize::from(width.clamp(1, 8))
}

fn internal_error(run: *const kvm_run) -> String {
    // SAFETY: as above; after this exit the kernel has filled the `internal` member.
    let (suberror, data) = unsafe {
        (
            (*run).__bindgen_anon_1.internal.suberror,
            (*run).__bindgen_anon_1.internal.data,
        )
    };
    let kind = match suberror {
        1 => "an instruction it cannot emulate",
        2 => "an exception while delivering another",
        3 => "an exit while delivering an event",
        4 => "an unexpected exit reason",
        _ => "an internal error",
    };
    format!(
        "KVM met {kind} (KVM_EXIT_INTERNAL_ERROR, suberror {suberror}, data {:#x} {:#x})",
        data[0], data[1]
    )
}

/// The processor's brand string (Intel SDM vol. 2A, CPUID leaves 0x80000002 to 0x80000004).
const BRAND: std::ops::RangeInclusive<u32> = 0x8000_0002..=0x8000_0004;

/// The CPUID leaves that KVM can give a guest on this host.
///
/// # Errors
/// What KVM says.
pub fn supported_cpuid(kvm: &Kvm) -> Result<Vec<kvm_cpuid_entry2>, HostError> {
    let cpuid = kvm
        .get_supported_cpuid(kvm_bindings::KVM_MAX_CPUID_ENTRIES)
        .map_err(refused("say what CPUID it supports"))?;
    let mut leaves = cpuid.as_slice().to_vec();
    // KVM leaves the name out: it is for user space to choose. The guest has the host's processor, and says so.
    leaves.retain(|leaf| !BRAND.contains(&leaf.function));
    leaves.extend(BRAND.map(|function| {
        let name = __cpuid(function);
        kvm_cpuid_entry2 {
            function,
            eax: name.eax,
            ebx: name.ebx,
            ecx: name.ecx,
            edx: name.edx,
            ..Default::default()
        }
    }));
    Ok(leaves)
}

/// Whether KVM emulates the TSC-deadline timer; older kernels say so here and not in their CPUID.
pub fn has_tsc_deadline(kvm: &Kvm) -> bool {
    kvm.check_extension(Cap::TscDeadlineTimer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(function: u32, [ebx, ecx, edx]: [u32; 3]) -> kvm_cpuid_entry2 {
        kvm_cpuid_entry2 {
            function,
            ebx,
            ecx,
            edx,
            ..Default::default()
        }
    }

    #[test]
    fn only_amd_processors_with_a_constant_tsc_have_the_bit_for_it() {
        // "AuthenticAMD" and "GenuineIntel".
        let amd = leaf(0, [0x6874_7541, 0x444d_4163, 0x6974_6e65]);
        let intel = leaf(0, [0x756e_6547, 0x6c65_746e, 0x4965_6e69]);
        let constant = leaf(0x8000_0007, [0, 0, 1 << 8]);
        let varying = leaf(0x8000_0007, [0, 0, 0]);
        assert!(tsc_counts_at_p0(&[amd, constant]));
        assert!(!tsc_counts_at_p0(&[amd, varying]));
        assert!(!tsc_counts_at_p0(&[intel, constant]));
        assert!(!tsc_counts_at_p0(&[]));
    }
}
