//! Tests of the CPUID policy on lists like those KVM gives on an Intel server, and on QEMU's EPYC-Rome under TCG.

use super::*;

const KVM_SIGNATURE: [u32; 3] = [0x4b4d_564b, 0x564b_4d56, 0x4d];

fn entry(function: u32, index: u32, [eax, ebx, ecx, edx]: [u32; 4]) -> kvm_cpuid_entry2 {
    let flags = if INDEXED.contains(&function) {
        KVM_CPUID_FLAG_SIGNIFCANT_INDEX
    } else {
        0
    };
    kvm_cpuid_entry2 {
        function,
        index,
        flags,
        eax,
        ebx,
        ecx,
        edx,
        ..Default::default()
    }
}

fn kvm_leaves() -> [kvm_cpuid_entry2; 2] {
    let [ebx, ecx, edx] = KVM_SIGNATURE;
    [
        entry(0x4000_0000, 0, [0x4000_0001, ebx, ecx, edx]),
        entry(0x4000_0001, 0, [0x0100_7efb, 0, 0, 0]),
    ]
}

/// An Intel server of two sockets with hyper-threading.
fn intel() -> Vec<kvm_cpuid_entry2> {
    let mut list = vec![
        entry(0, 0, [0x20, 0x756e_6547, 0x6c65_746e, 0x4965_6e69]),
        entry(1, 0, [0x000c_06f2, 0x0140_0800, 0xfffa_3223, 0x1f8b_fbff]),
        entry(2, 0, [0x00fe_ff01, 0xf0, 0, 0]),
        entry(4, 0, [0xfc00_4121, 0x02c0_003f, 0x3f, 0]),
        entry(4, 1, [0xfc00_4122, 0x01c0_003f, 0x3f, 0]),
        entry(4, 2, [0xfc01_c143, 0x03c0_003f, 0x7ff, 0]),
        entry(4, 3, [0xfc0f_c163, 0x04c0_003f, 0x1_bfff, 4]),
        entry(4, 4, [0, 0, 0, 0]),
        entry(6, 0, [0x4, 0, 0, 0]),
        entry(7, 0, [0x2, 0xf1bf_07ef, 0x5b41_5f6e, 0xafc1_8410]),
        entry(7, 1, [0x1c30, 0, 0, 0]),
        entry(0xb, 0, [1, 2, 0x100, 0x41]),
        entry(0xb, 1, [6, 0x40, 0x201, 0x41]),
        entry(0xd, 0, [0x6_02e7, 0xa88, 0x2b00, 0]),
        entry(0xd, 1, [0x1f, 0x3c0, 0x1800, 0]),
        entry(0x12, 0, [0x63, 0, 0, 0x241f]),
        entry(0x15, 0, [0, 0, 0, 0]),
        entry(0x1f, 0, [1, 2, 0x100, 0x41]),
        entry(0x1f, 1, [6, 0x40, 0x201, 0x41]),
        entry(0x8000_0000, 0, [0x8000_0008, 0, 0, 0]),
        entry(0x8000_0001, 0, [0, 0, 0x121, 0x2c10_0800]),
        entry(0x8000_0008, 0, [0x0000_3934, 0, 0, 0]),
    ];
    list.extend(kvm_leaves());
    list
}

/// QEMU's EPYC-Rome under TCG as a nested KVM shows it: highest leaves 0xD and 0x8000001F.
fn amd() -> Vec<kvm_cpuid_entry2> {
    let mut list = vec![
        entry(0, 0, [0xd, 0x6874_7541, 0x444d_4163, 0x6974_6e65]),
        entry(1, 0, [0x0083_0f10, 0x0304_0800, 0xfed8_3203, 0x178b_fbff]),
        entry(7, 0, [0, 0x219c_91a9, 0x0040_0004, 0]),
        entry(0xd, 0, [7, 0x340, 0x340, 0]),
        entry(0xd, 1, [0xf, 0x340, 0, 0]),
        entry(0xd, 2, [0x100, 0x240, 0, 0]),
        entry(0x8000_0000, 0, [0x8000_001f, 0x6874_7541, 0x444d_4163, 0x6974_6e65]),
        entry(0x8000_0001, 0, [0x0083_0f10, 0, 0x0040_03f7, 0x2fd3_fbff]),
        entry(0x8000_0008, 0, [0x0000_3028, 0x0100_d200, 0x0000_3003, 0]),
        entry(0x8000_000a, 0, [1, 16, 0, 0x0000_0009]),
        entry(0x8000_001d, 0, [0x0000_4121, 0x01c0_003f, 0x3f, 1]),
        entry(0x8000_001d, 2, [0x0000_4143, 0x01c0_003f, 0x3ff, 2]),
        entry(0x8000_001d, 3, [0x0000_c163, 0x03c0_003f, 0x3fff, 6]),
        entry(0x8000_001d, 4, [0, 0, 0, 0]),
        entry(0x8000_001e, 0, [3, 0x0103, 0, 0]),
        entry(0x8000_001f, 0, [0x1000f, 0x16f, 0x1fd, 1]),
    ];
    list.extend(kvm_leaves());
    list
}

fn policy(cpus: u32) -> CpuidPolicy {
    CpuidPolicy {
        cpus,
        hide_kvm: true,
        hypervisor_bit: true,
        phys_bits: 39,
        tsc_deadline: true,
        invariant_tsc: true,
        tsc_khz: None,
        without: Vec::new(),
    }
}

fn leaf(list: &[kvm_cpuid_entry2], function: u32, index: u32) -> kvm_cpuid_entry2 {
    let found: Vec<_> = list
        .iter()
        .filter(|entry| (entry.function, entry.index) == (function, index))
        .collect();
    assert_eq!(
        found.len(),
        1,
        "leaf {function:#x}.{index} occurs {} times",
        found.len()
    );
    *found[0]
}

fn has(list: &[kvm_cpuid_entry2], function: u32) -> bool {
    list.iter().any(|entry| entry.function == function)
}

#[test]
fn hidden_means_no_trace_of_kvm() {
    for host in [intel(), amd()] {
        let guest = guest_cpuid(&host, &policy(4), 0);
        assert!(!guest.iter().any(|entry| HYPERVISOR_LEAVES.contains(&entry.function)));
        for entry in &guest {
            let words = [entry.eax, entry.ebx, entry.ecx, entry.edx];
            assert!(
                !words.contains(&KVM_SIGNATURE[0]),
                "leaf {:#x} spells KVM",
                entry.function
            );
        }
    }
}

#[test]
fn shown_means_kvms_leaves_as_they_were() {
    let guest = guest_cpuid(
        &intel(),
        &CpuidPolicy {
            hide_kvm: false,
            ..policy(2)
        },
        1,
    );
    let [signature, features] = kvm_leaves();
    assert_eq!(leaf(&guest, 0x4000_0000, 0), signature);
    assert_eq!(leaf(&guest, 0x4000_0001, 0), features);
}

#[test]
fn hypervisor_bit_has_its_own_switch() {
    for (hide_kvm, hypervisor_bit) in [(false, false), (false, true), (true, false), (true, true)] {
        let guest = guest_cpuid(
            &amd(),
            &CpuidPolicy {
                hide_kvm,
                hypervisor_bit,
                ..policy(1)
            },
            0,
        );
        assert_eq!(leaf(&guest, 1, 0).ecx >> 31, u32::from(hypervisor_bit));
        assert_eq!(has(&guest, 0x4000_0000), !hide_kvm);
    }
}

#[test]
fn topology_agrees_in_every_leaf() {
    for cpus in 1..=255 {
        for vcpu in [0, cpus / 2, cpus - 1] {
            let guest = guest_cpuid(&intel(), &policy(cpus), vcpu);
            check_extended_topology(&guest, 0xb, cpus, vcpu);
            check_extended_topology(&guest, 0x1f, cpus, vcpu);
            check_leaf_1(&guest, cpus, vcpu);
            // One thread a core: the ids of leaf 1 divided by the cores of leaf 4, as far as leaf 4 can count.
            let cores = (leaf(&guest, 4, 0).eax >> 26) + 1;
            let ids = (leaf(&guest, 1, 0).ebx >> 16) & 0xff;
            assert!(cpus > 64 || ids == cores, "{ids} ids for {cores} cores");
            assert!(
                (leaf(&guest, 4, 3).eax >> 14) & 0xfff >= cpus - 1,
                "the last cache is not everyone's"
            );
            assert_eq!((leaf(&guest, 4, 2).eax >> 14) & 0xfff, 0);
            assert_eq!(leaf(&guest, 4, 4).eax, 0);
            assert_eq!(leaf(&guest, 0x8000_0008, 0).ecx, 0);

            let guest = guest_cpuid(&amd(), &policy(cpus), vcpu);
            check_extended_topology(&guest, 0xb, cpus, vcpu);
            check_leaf_1(&guest, cpus, vcpu);
            let ecx = leaf(&guest, 0x8000_0008, 0).ecx;
            assert_eq!(ecx & 0xff, cpus - 1);
            assert!(1 << ((ecx >> 12) & 0xf) >= cpus);
            let node = leaf(&guest, 0x8000_001e, 0);
            assert_eq!((node.eax, node.ebx, node.ecx & 0x7ff), (vcpu, vcpu, 0));
            assert_eq!((leaf(&guest, 0x8000_001d, 3).eax >> 14) & 0xfff, cpus - 1);
            assert_eq!((leaf(&guest, 0x8000_0001, 0).ecx & amd_ecx::CMP_LEGACY) != 0, cpus > 1);
            assert!(!has(&guest, 0x1f) && !has(&guest, 4));
        }
    }
}

fn check_leaf_1(guest: &[kvm_cpuid_entry2], cpus: u32, vcpu: u32) {
    let leaf = leaf(guest, 1, 0);
    assert_eq!(leaf.ebx >> 24, vcpu);
    assert!((leaf.ebx >> 16) & 0xff >= cpus);
    assert_eq!(leaf.edx & EDX1_HTT != 0, cpus > 1);
}

fn check_extended_topology(guest: &[kvm_cpuid_entry2], function: u32, cpus: u32, vcpu: u32) {
    let [thread, core, end] = [0, 1, 2].map(|index| leaf(guest, function, index));
    assert_eq!((thread.eax, thread.ebx, thread.ecx), (0, 1, 0x100));
    assert_eq!((core.ebx, core.ecx), (cpus, 0x201));
    assert_eq!(vcpu >> core.eax, 0, "vCPU {vcpu} of {cpus} lies in another package");
    assert_eq!((end.eax, end.ebx, end.ecx), (0, 0, 2));
    assert!([thread, core, end].iter().all(|entry| entry.edx == vcpu));
}

#[test]
fn leaf_1_offers_what_the_machine_has() {
    let guest = guest_cpuid(&intel(), &policy(2), 0);
    let ecx = leaf(&guest, 1, 0).ecx;
    assert_eq!(ecx & (ecx1::VMX | ecx1::OSXSAVE), 0);
    assert_eq!(ecx & ecx1::X2APIC, ecx1::X2APIC);
    assert_eq!(ecx & ecx1::TSC_DEADLINE, ecx1::TSC_DEADLINE);
    let guest = guest_cpuid(
        &intel(),
        &CpuidPolicy {
            tsc_deadline: false,
            ..policy(2)
        },
        0,
    );
    assert_eq!(leaf(&guest, 1, 0).ecx & ecx1::TSC_DEADLINE, 0);
}

#[test]
fn nested_and_confidential_guests_are_not_offered() {
    let guest = guest_cpuid(&amd(), &policy(2), 0);
    assert!(!has(&guest, 0x8000_000a) && !has(&guest, 0x8000_001f));
    assert_eq!(leaf(&guest, 0x8000_0001, 0).ecx & amd_ecx::SVM, 0);
    let mut host = intel();
    host[0].eax = 0x21;
    host.push(entry(0x21, 0, [0, 0x6574_6e49, 0x2020_2020, 0x5844_546c]));
    let guest = guest_cpuid(&host, &policy(2), 0);
    assert!(!has(&guest, 0x21) && !has(&guest, 0x12));
    let features = leaf(&guest, 7, 0);
    assert_eq!((features.ebx & leaf7::EBX_SGX, features.ecx & leaf7::ECX_LA57), (0, 0));
}

#[test]
fn address_width_is_the_policys_in_both_fields() {
    let guest = guest_cpuid(&intel(), &policy(2), 0);
    assert_eq!(leaf(&guest, 0x8000_0008, 0).eax, 0x0027_3027);
    let guest = guest_cpuid(
        &amd(),
        &CpuidPolicy {
            phys_bits: 40,
            ..policy(2)
        },
        0,
    );
    let width = leaf(&guest, 0x8000_0008, 0);
    assert_eq!((width.eax, width.ebx), (0x0028_3028, 0x0100_d200));
}

#[test]
fn invariant_tsc_only_when_it_is() {
    for invariant_tsc in [false, true] {
        let guest = guest_cpuid(
            &amd(),
            &CpuidPolicy {
                invariant_tsc,
                ..policy(2)
            },
            0,
        );
        assert_eq!(leaf(&guest, 0x8000_0007, 0).edx, u32::from(invariant_tsc) << 8);
    }
}

#[test]
fn tsc_frequency_survives_linuxs_arithmetic() {
    for khz in [1_000_000, 1_896_003, 2_299_998, 3_399_906, 4_200_001, 5_700_123] {
        let guest = guest_cpuid(
            &intel(),
            &CpuidPolicy {
                tsc_khz: Some(khz),
                ..policy(2)
            },
            0,
        );
        let leaf_15 = leaf(&guest, 0x15, 0);
        // native_calibrate_tsc() in arch/x86/kernel/tsc.c: 32 bits, kHz.
        let crystal_khz = leaf_15.ecx / 1000;
        let product = crystal_khz.checked_mul(leaf_15.ebx).unwrap();
        let error = (product / leaf_15.eax).abs_diff(khz);
        assert!(
            u64::from(error) * 1_000_000 <= u64::from(khz) * 2,
            "{khz} kHz is off by {error} kHz"
        );
        assert!(
            leaf_15.ecx.abs_diff(1_000_000_000) < 1_000_000,
            "APIC timer at {} Hz",
            leaf_15.ecx
        );
        assert_eq!(leaf(&guest, 0x16, 0).eax, (khz + 500) / 1000);
    }
    assert!(!has(&guest_cpuid(&intel(), &policy(2), 0), 0x15));
    let guest = guest_cpuid(
        &amd(),
        &CpuidPolicy {
            tsc_khz: Some(2_000_000),
            ..policy(2)
        },
        0,
    );
    assert!(!has(&guest, 0x15));
}

#[test]
fn missing_leaves_are_made_and_the_maxima_cover_them() {
    let host = [
        entry(0, 0, [0x5, 0x756e_6547, 0x6c65_746e, 0x4965_6e69]),
        entry(1, 0, [0x6fb, 0, 0, 0]),
    ];
    let guest = guest_cpuid(
        &host,
        &CpuidPolicy {
            tsc_khz: Some(2_400_000),
            ..policy(2)
        },
        0,
    );
    assert_eq!(leaf(&guest, 0, 0).eax, 0x16);
    assert_eq!(leaf(&guest, 0x8000_0000, 0).eax, 0x8000_0008);
    assert_eq!(leaf(&guest, 6, 0).eax & EAX6_ARAT, EAX6_ARAT);
    assert_eq!(leaf(&guest, 0x8000_0008, 0).eax & 0xff, 39);
}

#[test]
fn sorted_with_the_index_flag_where_it_counts() {
    for host in [intel(), amd()] {
        let mut shuffled = host.clone();
        shuffled.reverse();
        for entry in &mut shuffled {
            entry.flags = 0;
        }
        let guest = guest_cpuid(&shuffled, &policy(8), 5);
        assert!(guest.is_sorted_by_key(|entry| (entry.function, entry.index)));
        assert!(guest.len() <= kvm_bindings::KVM_MAX_CPUID_ENTRIES);
        for entry in &guest {
            let indexed = entry.flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX != 0;
            assert_eq!(indexed, INDEXED.contains(&entry.function), "leaf {:#x}", entry.function);
        }
        assert_eq!(guest, guest_cpuid(&host, &policy(8), 5));
    }
}
