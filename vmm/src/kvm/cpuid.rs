//! What the guest's CPUID instruction answers: KVM's offer, cut and completed by a policy. Pure, so that it is tested
//! against lists captured elsewhere.

use std::fmt;

use kvm_bindings::{KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};

use super::feature::WithoutFeature;
use super::topology::Topology;

/// The leaves a hypervisor describes itself in; no processor answers there (Intel SDM vol. 2A, table 3-8, 4000_0000H).
const HYPERVISOR_LEAVES: std::ops::RangeInclusive<u32> = 0x4000_0000..=0x4000_ffff;

/// Leaves that are never passed on as they are: hybrid cores (0x1A) and what the host's topology looks like, which is not the
/// guest's; SGX (0x12) and TDX (0x21); SVM (0x8000000A), SEV (0x8000001F) and SNP's RMP (0x80000025); AMD's
/// extended topology (0x80000026), which repeats leaf 0xB. 0x15 and 0x16 come back when the frequency is known.
const DROPPED: [u32; 13] = [
    0xb,
    0x12,
    0x15,
    0x16,
    0x1a,
    0x1f,
    0x21,
    0x8000_000a,
    0x8000_001d,
    0x8000_001e,
    0x8000_001f,
    0x8000_0025,
    0x8000_0026,
];

/// Leaves whose ECX input matters (SDM vol. 2A and APM vol. 3, "sub-leaf"); KVM ignores ECX without the flag.
const INDEXED: [u32; 13] = [
    0x4,
    0x7,
    0xb,
    0xd,
    0xf,
    0x10,
    0x12,
    0x14,
    0x17,
    0x18,
    0x1f,
    0x8000_001d,
    0x8000_0020,
];

/// The highest basic leaf the guest needs whatever the host has: its topology.
const BASIC_MIN: u32 = 0xb;
/// The highest extended leaf the guest needs whatever the host has: its address width.
const EXTENDED_MIN: u32 = 0x8000_0008;

/// Frequency of KVM's APIC timer, `APIC_BUS_CYCLE_NS_DEFAULT` (Linux arch/x86/kvm/lapic.h).
const APIC_BUS_HZ: u64 = 1_000_000_000;

/// Bits of leaf 1 ECX.
mod ecx1 {
    pub const VMX: u32 = 1 << 5;
    pub const X2APIC: u32 = 1 << 21;
    pub const TSC_DEADLINE: u32 = 1 << 24;
    pub const OSXSAVE: u32 = 1 << 27;
    pub const HYPERVISOR: u32 = 1 << 31;
}
/// Leaf 1 EDX: the package holds more than one logical processor.
const EDX1_HTT: u32 = 1 << 28;
/// Leaf 6 EAX: the APIC timer runs in every C-state.
const EAX6_ARAT: u32 = 1 << 2;
/// Bits of leaf 7.0 that must not reach a guest without the leaf or the paging depth behind them.
mod leaf7 {
    pub const EBX_SGX: u32 = 1 << 2;
    pub const ECX_LA57: u32 = 1 << 16;
    pub const ECX_SGX_LC: u32 = 1 << 30;
    pub const EDX_HYBRID: u32 = 1 << 15;
}
/// Bits of leaf 0x80000001 ECX on AMD (APM vol. 3, E.4.2).
mod amd_ecx {
    pub const CMP_LEGACY: u32 = 1 << 1;
    pub const SVM: u32 = 1 << 2;
    pub const TOPOLOGY_EXTENSIONS: u32 = 1 << 22;
}
/// Leaf 0x80000007 EDX: the TSC runs at one rate in all P-, C- and T-states.
const EDX_INVARIANT_TSC: u32 = 1 << 8;
/// Width of a linear address with four levels of page tables.
const LINEAR_BITS_4_LEVEL: u32 = 48;

/// What the guest may know, and which machine it is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CpuidPolicy {
    /// Number of vCPUs, 1 to 255.
    pub cpus: u32,
    /// Whether all of the hypervisor's leaves are taken away.
    pub hide_kvm: bool,
    /// Leaf 1 ECX[31]: "there is a hypervisor".
    pub hypervisor_bit: bool,
    /// Width of a guest physical address in bits: what the CPU and the IOMMU both reach.
    pub phys_bits: u8,
    /// Whether KVM's APIC has the TSC-deadline mode (`KVM_CAP_TSC_DEADLINE_TIMER`).
    pub tsc_deadline: bool,
    /// Whether the host's TSC is invariant and its clock source trusts it.
    pub invariant_tsc: bool,
    /// The guest's TSC frequency in kHz (`KVM_GET_TSC_KHZ`), when it is known and constant.
    pub tsc_khz: Option<u32>,
    /// Features that the guest is not to have.
    pub without: Vec<WithoutFeature>,
}

/// Who made the processor, as far as the leaves differ by it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Maker {
    Intel,
    Amd,
}

/// Makes the CPUID list of one vCPU.
///
/// `host` is the list of `KVM_GET_SUPPORTED_CPUID`, `vcpu` the number of the vCPU and thereby its APIC id. The result is
/// sorted by leaf and sub-leaf, ready for `KVM_SET_CPUID2`.
#[must_use]
pub fn guest_cpuid(host: &[kvm_cpuid_entry2], policy: &CpuidPolicy, vcpu: u32) -> Vec<kvm_cpuid_entry2> {
    let topology = Topology {
        cpus: policy.cpus.max(1),
        apic_id: vcpu,
    };
    let mut leaves = Leaves::kept_from(host, policy.hide_kvm);
    let basic_max = leaves.at_least(0, BASIC_MIN);
    leaves.at_least(0x8000_0000, EXTENDED_MIN);

    features(&mut leaves, policy, topology);
    for leaf in leaves.all(0x4) {
        leaf.eax = if leaf.eax & 0x1f == 0 {
            leaf.eax
        } else {
            topology.leaf_4_eax(leaf.eax)
        };
    }
    leaves.add(&topology.extended_leaf(0xb));
    if basic_max >= 0x1f {
        leaves.add(&topology.extended_leaf(0x1f));
    }
    addresses(&mut leaves, policy.phys_bits);
    match leaves.maker() {
        Maker::Intel => tsc_frequency(&mut leaves, policy.tsc_khz),
        Maker::Amd => amd_topology(&mut leaves, host, topology),
    }
    for feature in &policy.without {
        leaves.0.iter_mut().for_each(|entry| feature.clear(entry));
    }
    leaves.finish()
}

/// Feature bits that depend on the machine rather than on the processor.
fn features(leaves: &mut Leaves, policy: &CpuidPolicy, topology: Topology) {
    let intel = leaves.maker() == Maker::Intel;
    let leaf = leaves.first(0x1);
    leaf.ebx = topology.leaf_1_ebx(leaf.ebx, intel);
    // OSXSAVE mirrors CR4 and is KVM's to keep; VMX is not offered: a guest with a GPU runs no guests of its own.
    leaf.ecx &= !(ecx1::VMX | ecx1::OSXSAVE | ecx1::TSC_DEADLINE | ecx1::HYPERVISOR);
    leaf.ecx |= ecx1::X2APIC;
    leaf.ecx |= if policy.tsc_deadline { ecx1::TSC_DEADLINE } else { 0 };
    leaf.ecx |= if policy.hypervisor_bit { ecx1::HYPERVISOR } else { 0 };
    leaf.edx = if topology.cpus > 1 {
        leaf.edx | EDX1_HTT
    } else {
        leaf.edx & !EDX1_HTT
    };

    // KVM's APIC timer never stops; without this bit Linux looks for another timer to wake it.
    leaves.first(0x6).eax |= EAX6_ARAT;

    // OVMF before 2024 ignores LA57 and later ones drop back to four levels: hidden, all of them do the same.
    for leaf in leaves.all(0x7).filter(|leaf| leaf.index == 0) {
        leaf.ebx &= !leaf7::EBX_SGX;
        leaf.ecx &= !(leaf7::ECX_LA57 | leaf7::ECX_SGX_LC);
        leaf.edx &= !leaf7::EDX_HYBRID;
    }

    leaves.first(0x8000_0001).ecx &= !amd_ecx::SVM;
    let leaf = leaves.first(0x8000_0007);
    leaf.edx = if policy.invariant_tsc { EDX_INVARIANT_TSC } else { 0 };
}

/// Address widths. OVMF places its 64-bit PCI window by EAX[7:0] and believes it when EAX[23:16] says the same.
fn addresses(leaves: &mut Leaves, phys_bits: u8) {
    let leaf = leaves.first(0x8000_0008);
    let linear = ((leaf.eax >> 8) & 0xff).min(LINEAR_BITS_4_LEVEL);
    let physical = u32::from(phys_bits);
    leaf.eax = physical | (linear << 8) | (physical << 16);
}

/// Leaves 0x15 and 0x16, from which Linux and Windows take the TSC frequency instead of measuring it; with KVM hidden
/// there is no kvm-clock to tell them. Linux reads them on Intel processors only.
///
/// TSC = ECX × EBX / EAX. Linux takes ECX for the rate of the APIC timer too and multiplies in 32 bits and kHz, so ECX
/// is kept near KVM's timer rate and EBX small.
fn tsc_frequency(leaves: &mut Leaves, tsc_khz: Option<u32>) {
    const DENOMINATOR: u32 = 500;
    let Some(khz) = tsc_khz.filter(|khz| *khz >= 1_000_000 / DENOMINATOR) else {
        return;
    };
    let hz = u64::from(khz) * 1000;
    let numerator = (hz * u64::from(DENOMINATOR) + APIC_BUS_HZ / 2) / APIC_BUS_HZ;
    let (Ok(ebx), Ok(ecx)) = (
        u32::try_from(numerator),
        u32::try_from((hz * u64::from(DENOMINATOR)).div_ceil(numerator.max(1))),
    ) else {
        return;
    };
    leaves.at_least(0, 0x16);
    let mhz = (khz + 500) / 1000;
    leaves.add(&[
        kvm_cpuid_entry2 {
            function: 0x15,
            eax: DENOMINATOR,
            ebx,
            ecx,
            ..Default::default()
        },
        // Base and maximum frequency, and the 100 MHz bus Intel has had since 2011.
        kvm_cpuid_entry2 {
            function: 0x16,
            eax: mhz,
            ebx: mhz,
            ecx: 100,
            ..Default::default()
        },
    ]);
}

/// AMD's own topology leaves.
fn amd_topology(leaves: &mut Leaves, host: &[kvm_cpuid_entry2], topology: Topology) {
    let leaf = leaves.first(0x8000_0008);
    leaf.ecx = topology.leaf_80000008_ecx(leaf.ecx);

    let leaf = leaves.first(0x8000_0001);
    // CmpLegacy: the logical processors of leaf 1 are cores, not threads.
    leaf.ecx = if topology.cpus > 1 {
        leaf.ecx | amd_ecx::CMP_LEGACY
    } else {
        leaf.ecx & !amd_ecx::CMP_LEGACY
    };
    if leaf.ecx & amd_ecx::TOPOLOGY_EXTENSIONS == 0 {
        return;
    }
    leaves.at_least(0x8000_0000, 0x8000_001e);
    let caches: Vec<_> = host
        .iter()
        .filter(|entry| entry.function == 0x8000_001d)
        .map(|entry| match entry.eax & 0x1f {
            0 => *entry,
            _ => kvm_cpuid_entry2 {
                eax: topology.leaf_8000001d_eax(entry.eax),
                ..*entry
            },
        })
        .collect();
    leaves.add(&caches);
    leaves.add(&[topology.leaf_8000001e()]);
}

/// A CPUID list in the making.
struct Leaves(Vec<kvm_cpuid_entry2>);

impl Leaves {
    fn kept_from(host: &[kvm_cpuid_entry2], hide_kvm: bool) -> Self {
        let keep = |function: u32| {
            let hidden = hide_kvm && HYPERVISOR_LEAVES.contains(&function);
            !hidden && !DROPPED.contains(&function)
        };
        Self(host.iter().filter(|entry| keep(entry.function)).copied().collect())
    }

    /// The only or first entry of a leaf, made of zeros when there is none.
    fn first(&mut self, function: u32) -> &mut kvm_cpuid_entry2 {
        let at = self
            .0
            .iter()
            .position(|entry| entry.function == function)
            .unwrap_or_else(|| {
                self.0.push(kvm_cpuid_entry2 {
                    function,
                    ..Default::default()
                });
                self.0.len() - 1
            });
        &mut self.0[at]
    }

    fn all(&mut self, function: u32) -> impl Iterator<Item = &mut kvm_cpuid_entry2> {
        self.0.iter_mut().filter(move |entry| entry.function == function)
    }

    fn add(&mut self, entries: &[kvm_cpuid_entry2]) {
        self.0.extend_from_slice(entries);
    }

    /// Raises the highest leaf of the range that starts at `function` to `min` at least; answers with what it is then.
    fn at_least(&mut self, function: u32, min: u32) -> u32 {
        let leaf = self.first(function);
        leaf.eax = leaf.eax.max(min);
        leaf.eax
    }

    /// By the vendor string. Makers of Intel's kind (Zhaoxin) describe themselves with Intel's leaves, Hygon with AMD's.
    fn maker(&self) -> Maker {
        let vendor = self.0.iter().find(|entry| entry.function == 0);
        match vendor.map(|leaf| (leaf.ebx, leaf.edx, leaf.ecx)) {
            Some(words) if words == vendor_words(b"AuthenticAMD") || words == vendor_words(b"HygonGenuine") => {
                Maker::Amd
            }
            _ => Maker::Intel,
        }
    }

    fn finish(mut self) -> Vec<kvm_cpuid_entry2> {
        for entry in &mut self.0 {
            if INDEXED.contains(&entry.function) {
                entry.flags |= KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
            }
        }
        self.0.sort_by_key(|entry| (entry.function, entry.index));
        self.0
    }
}

impl fmt::Debug for Leaves {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Leaves").field(&self.0.len()).finish()
    }
}

/// The registers EBX, EDX and ECX that spell a vendor.
const fn vendor_words(name: &[u8; 12]) -> (u32, u32, u32) {
    const fn word(name: &[u8; 12], at: usize) -> u32 {
        u32::from_le_bytes([name[at], name[at + 1], name[at + 2], name[at + 3]])
    }
    (word(name, 0), word(name, 4), word(name, 8))
}

#[cfg(test)]
#[path = "cpuid_tests.rs"]
mod tests;
