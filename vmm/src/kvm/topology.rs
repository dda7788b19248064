//! The processor topology a guest sees: one socket of N cores with one thread each, APIC ids 0 to N − 1.
//!
//! Firmware and operating systems read it from several CPUID leaves and distrust a processor whose leaves disagree, so
//! every one of them is made here, from the same two numbers.

use kvm_bindings::{KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};

/// Domain type of leaves 0xB and 0x1F, ECX[15:8]: threads of a core (Intel SDM vol. 2A, CPUID, leaf 0BH).
const DOMAIN_THREAD: u32 = 1;
/// Domain type of leaves 0xB and 0x1F, ECX[15:8]: cores of a package.
const DOMAIN_CORE: u32 = 2;

/// Where one vCPU stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Topology {
    /// How many vCPUs the machine has, 1 to 255.
    pub cpus: u32,
    /// Which of them this is, which is also its APIC id.
    pub apic_id: u32,
}

impl Topology {
    /// How many low bits of an APIC id tell the cores apart.
    #[must_use]
    pub fn core_bits(&self) -> u32 {
        self.id_space().trailing_zeros()
    }

    /// How many APIC ids the package takes up: the number of cores, rounded up to a power of two.
    fn id_space(&self) -> u32 {
        self.cpus.max(1).next_power_of_two()
    }

    /// Leaf 1 EBX: APIC id in [31:24], logical processors in [23:16]; the rest as it was.
    ///
    /// Intel counts the ids set aside (SDM vol. 2A, CPUID.01H:EBX), AMD the processors (APM vol. 3, E.3.2).
    #[must_use]
    pub fn leaf_1_ebx(&self, ebx: u32, intel: bool) -> u32 {
        let count = if intel { self.id_space() } else { self.cpus };
        (ebx & 0xffff) | (count.min(0xff) << 16) | ((self.apic_id & 0xff) << 24)
    }

    /// Leaf 4 EAX: cores in [31:26], processors sharing the cache in [25:14], each less one.
    ///
    /// The field for cores holds no more than 64; leaf 0xB, which every system since 2008 prefers, has no such limit.
    #[must_use]
    pub fn leaf_4_eax(&self, eax: u32) -> u32 {
        let cores = (self.id_space() - 1).min(0x3f);
        (eax & 0x3fff) | (self.sharing(eax, self.id_space()) << 14) | (cores << 26)
    }

    /// Leaf 0x8000001D EAX: processors sharing the cache, less one, in [25:14] (APM vol. 3, E.4.16).
    #[must_use]
    pub fn leaf_8000001d_eax(&self, eax: u32) -> u32 {
        (eax & 0x3fff) | (self.sharing(eax, self.cpus) << 14)
    }

    /// Caches of level 1 and 2 belong to a core, those above to the package. The level is in EAX[7:5] for both makers.
    fn sharing(&self, eax: u32, package: u32) -> u32 {
        let level = (eax >> 5) & 7;
        if level <= 2 { 0 } else { package - 1 }
    }

    /// All of leaf 0xB or 0x1F: threads, cores, and the entry that ends the list.
    #[must_use]
    pub fn extended_leaf(&self, function: u32) -> [kvm_cpuid_entry2; 3] {
        let domain = |index: u32, shift: u32, processors: u32, kind: u32| kvm_cpuid_entry2 {
            function,
            index,
            flags: KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
            eax: shift,
            ebx: processors,
            ecx: (kind << 8) | index,
            edx: self.apic_id,
            ..Default::default()
        };
        [
            domain(0, 0, 1, DOMAIN_THREAD),
            domain(1, self.core_bits(), self.cpus, DOMAIN_CORE),
            domain(2, 0, 0, 0),
        ]
    }

    /// Leaf 0x80000008 ECX on AMD: cores less one in [7:0], width of the core id in [15:12]; the rest as it was
    /// (APM vol. 3, E.4.7).
    #[must_use]
    pub fn leaf_80000008_ecx(&self, ecx: u32) -> u32 {
        (ecx & !0xf0ff) | ((self.cpus - 1) & 0xff) | (self.core_bits() << 12)
    }

    /// Leaf 0x8000001E: APIC id, core id, one thread a core, one node (APM vol. 3, E.4.17).
    #[must_use]
    pub fn leaf_8000001e(&self) -> kvm_cpuid_entry2 {
        kvm_cpuid_entry2 {
            function: 0x8000_001e,
            eax: self.apic_id,
            ebx: self.apic_id & 0xff,
            ..Default::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn core_bits_hold_every_id() {
        for cpus in 1..=255 {
            let bits = Topology { cpus, apic_id: 0 }.core_bits();
            assert!((cpus - 1) >> bits == 0, "{cpus} CPUs in {bits} bits");
            assert!(
                bits == 0 || (cpus - 1) >> (bits - 1) == 1,
                "{bits} bits are too many for {cpus} CPUs"
            );
        }
    }

    #[test]
    fn caches_near_the_core_are_private() {
        let topology = Topology { cpus: 6, apic_id: 3 };
        let sharing = |eax: u32| (topology.leaf_4_eax(eax) >> 14) & 0xfff;
        assert_eq!(sharing(0xfc00_4121), 0);
        assert_eq!(sharing(0xfc00_4143), 0);
        assert_eq!(sharing(0xfc1f_c163), 7);
        assert_eq!((topology.leaf_8000001d_eax(0x0001_c163) >> 14) & 0xfff, 5);
    }

    #[test]
    fn leaf_1_keeps_what_is_not_topology() {
        let topology = Topology {
            cpus: 255,
            apic_id: 254,
        };
        assert_eq!(topology.leaf_1_ebx(0x0110_0800, true), 0xfeff_0800);
        assert_eq!(topology.leaf_1_ebx(0x0110_0800, false), 0xfeff_0800);
        assert_eq!(Topology { cpus: 6, apic_id: 1 }.leaf_1_ebx(0, true), 0x0108_0000);
        assert_eq!(Topology { cpus: 6, apic_id: 1 }.leaf_1_ebx(0, false), 0x0106_0000);
    }
}
