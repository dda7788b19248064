//! Processor features by name, as Linux prints them in `/proc/cpuinfo`, so that single ones can be kept from the guest.
//! Names that begin with `kvm-` are KVM's own, which only a guest that sees KVM has
//! (Linux Documentation/virt/kvm/x86/cpuid.rst).

use std::fmt;
use std::str::FromStr;

use kvm_bindings::kvm_cpuid_entry2;

/// A register that CPUID answers in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Register {
    Eax,
    Ebx,
    Ecx,
    Edx,
}

/// Where the bits of a register are said to be: leaf, sub-leaf, register, and the names by bit number.
struct Word {
    leaf: u32,
    index: u32,
    register: Register,
    names: &'static [(u8, &'static str)],
}

/// The features that a guest can be kept from. Those that tenon itself sets by the machine (topology, address widths, the
/// hypervisor bit) have settings of their own. Sources: Intel SDM vol. 2A table 3-8, AMD APM vol. 3 appendix E.
const WORDS: &[Word] = &[
    Word {
        leaf: 0x1,
        index: 0,
        register: Register::Ecx,
        names: &[
            (0, "pni"),
            (1, "pclmulqdq"),
            (3, "monitor"),
            (9, "ssse3"),
            (12, "fma"),
            (13, "cx16"),
            (17, "pcid"),
            (19, "sse4_1"),
            (20, "sse4_2"),
            (21, "x2apic"),
            (22, "movbe"),
            (23, "popcnt"),
            (24, "tsc_deadline_timer"),
            (25, "aes"),
            (26, "xsave"),
            (28, "avx"),
            (29, "f16c"),
            (30, "rdrand"),
        ],
    },
    Word {
        leaf: 0x7,
        index: 0,
        register: Register::Ebx,
        names: &[
            (0, "fsgsbase"),
            (1, "tsc_adjust"),
            (3, "bmi1"),
            (4, "hle"),
            (5, "avx2"),
            (7, "smep"),
            (8, "bmi2"),
            (9, "erms"),
            (10, "invpcid"),
            (11, "rtm"),
            (16, "avx512f"),
            (17, "avx512dq"),
            (18, "rdseed"),
            (19, "adx"),
            (20, "smap"),
            (21, "avx512ifma"),
            (23, "clflushopt"),
            (24, "clwb"),
            (28, "avx512cd"),
            (29, "sha_ni"),
            (30, "avx512bw"),
            (31, "avx512vl"),
        ],
    },
    Word {
        leaf: 0x7,
        index: 0,
        register: Register::Ecx,
        names: &[
            (1, "avx512vbmi"),
            (2, "umip"),
            (3, "pku"),
            (5, "waitpkg"),
            (6, "avx512_vbmi2"),
            (8, "gfni"),
            (9, "vaes"),
            (10, "vpclmulqdq"),
            (11, "avx512_vnni"),
            (12, "avx512_bitalg"),
            (14, "avx512_vpopcntdq"),
            (22, "rdpid"),
            (24, "bus_lock_detect"),
            (25, "cldemote"),
            (27, "movdiri"),
            (28, "movdir64b"),
        ],
    },
    Word {
        leaf: 0x7,
        index: 0,
        register: Register::Edx,
        names: &[
            (4, "fsrm"),
            (8, "avx512_vp2intersect"),
            (10, "md_clear"),
            (14, "serialize"),
            (22, "amx_bf16"),
            (23, "avx512_fp16"),
            (24, "amx_tile"),
            (25, "amx_int8"),
        ],
    },
    Word {
        leaf: 0x7,
        index: 1,
        register: Register::Eax,
        names: &[(4, "avx_vnni"), (5, "avx512_bf16"), (23, "avx_ifma")],
    },
    Word {
        leaf: 0xd,
        index: 1,
        register: Register::Eax,
        names: &[(0, "xsaveopt"), (1, "xsavec"), (2, "xgetbv1"), (3, "xsaves")],
    },
    Word {
        leaf: 0x4000_0001,
        index: 0,
        register: Register::Eax,
        names: &[
            (0, "kvm-clocksource"),
            (1, "kvm-nop-io-delay"),
            (3, "kvm-clocksource2"),
            (4, "kvm-asyncpf"),
            (5, "kvm-steal-time"),
            (6, "kvm-pv-eoi"),
            (7, "kvm-pv-unhalt"),
            (9, "kvm-pv-tlb-flush"),
            (10, "kvm-asyncpf-vmexit"),
            (11, "kvm-pv-ipi"),
            (12, "kvm-poll-control"),
            (13, "kvm-pv-sched-yield"),
            (14, "kvm-asyncpf-int"),
            (16, "kvm-hc-map-gpa-range"),
            (17, "kvm-migration-control"),
            (24, "kvm-clocksource-stable"),
        ],
    },
    Word {
        leaf: 0x8000_0001,
        index: 0,
        register: Register::Ecx,
        names: &[
            (5, "abm"),
            (6, "sse4a"),
            (7, "misalignsse"),
            (8, "3dnowprefetch"),
            (11, "xop"),
            (16, "fma4"),
            (21, "tbm"),
        ],
    },
    Word {
        leaf: 0x8000_0001,
        index: 0,
        register: Register::Edx,
        names: &[(26, "pdpe1gb"), (27, "rdtscp")],
    },
    Word {
        leaf: 0x8000_0007,
        index: 0,
        register: Register::Edx,
        names: &[(8, "constant_tsc")],
    },
    Word {
        leaf: 0x8000_0008,
        index: 0,
        register: Register::Ebx,
        names: &[(0, "clzero"), (9, "wbnoinvd")],
    },
];

/// A feature that the guest is not to have, written `-NAME`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct WithoutFeature {
    name: &'static str,
    leaf: u32,
    index: u32,
    register: Register,
    mask: u32,
}

/// Why a feature cannot be named so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FeatureError {
    /// Only taking away is possible.
    #[error(
        "write `-{0}` to keep the feature from the guest; all that KVM offers is on already, and nothing can be added to it"
    )]
    NoSign(String),
    /// No such name.
    #[error("there is no feature `{name}`; the names are those of /proc/cpuinfo{}", near(name))]
    Unknown {
        /// What was written.
        name: String,
    },
}

/// The names that share their beginning, as a help against misspelling.
fn near(name: &str) -> String {
    let stem: String = name.chars().take(3).collect();
    let names: Vec<&str> = all()
        .map(|feature| feature.name)
        .filter(|known| known.starts_with(&stem) && !stem.is_empty())
        .collect();
    if names.is_empty() {
        String::new()
    } else {
        format!(": {}", names.join(", "))
    }
}

fn all() -> impl Iterator<Item = WithoutFeature> {
    WORDS.iter().flat_map(|word| {
        word.names.iter().map(|(bit, name)| WithoutFeature {
            name,
            leaf: word.leaf,
            index: word.index,
            register: word.register,
            mask: 1 << bit,
        })
    })
}

impl WithoutFeature {
    /// Clears the feature's bit.
    pub(super) fn clear(self, entry: &mut kvm_cpuid_entry2) {
        if (entry.function, entry.index) == (self.leaf, self.index) {
            let value = match self.register {
                Register::Eax => &mut entry.eax,
                Register::Ebx => &mut entry.ebx,
                Register::Ecx => &mut entry.ecx,
                Register::Edx => &mut entry.edx,
            };
            *value &= !self.mask;
        }
    }
}

impl FromStr for WithoutFeature {
    type Err = FeatureError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let Some(name) = text.strip_prefix('-') else {
            return Err(FeatureError::NoSign(text.trim_start_matches('+').to_owned()));
        };
        all()
            .find(|feature| feature.name == name)
            .ok_or_else(|| FeatureError::Unknown { name: name.to_owned() })
    }
}

impl fmt::Display for WithoutFeature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "-{}", self.name)
    }
}

impl fmt::Debug for WithoutFeature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn each_name_and_each_bit_stands_once() {
        let names: BTreeSet<_> = all().map(|feature| feature.name).collect();
        let bits: BTreeSet<_> = all()
            .map(|feature| {
                (
                    feature.leaf,
                    feature.index,
                    format!("{:?}", feature.register),
                    feature.mask,
                )
            })
            .collect();
        assert_eq!((names.len(), bits.len()), (all().count(), all().count()));
    }

    #[test]
    fn the_named_bit_is_cleared_and_no_other() {
        let feature: WithoutFeature = "-kvm-pv-eoi".parse().unwrap();
        let full = |function, index| kvm_cpuid_entry2 {
            function,
            index,
            eax: u32::MAX,
            ebx: u32::MAX,
            ecx: u32::MAX,
            edx: u32::MAX,
            ..Default::default()
        };
        let mut entry = full(0x4000_0001, 0);
        feature.clear(&mut entry);
        assert_eq!((entry.eax, entry.ebx), (!(1 << 6), u32::MAX));
        let mut other = full(0x7, 1);
        "-avx2".parse::<WithoutFeature>().unwrap().clear(&mut other);
        assert_eq!(other, full(0x7, 1));
        assert_eq!(feature.to_string(), "-kvm-pv-eoi");
    }

    #[test]
    fn what_cannot_be_is_explained() {
        let told = |text: &str| text.parse::<WithoutFeature>().unwrap_err().to_string();
        assert!(told("+avx2").contains("write `-avx2`"), "{}", told("+avx2"));
        assert!(told("-avx3").contains("avx2, avx512f"), "{}", told("-avx3"));
        assert!(told("").contains("write `-`") && told("-").contains("no feature"));
    }
}
