//! Logs that hold no failure, hostile ones, and long ones.

use super::super::*;

/// Lines of healthy machines, with the words that failures are made of.
const CLEAN: &str = "\
[    0.000000] Linux version 6.17.4-200.fc42.x86_64 (mockbuild@builder) #1 SMP PREEMPT_DYNAMIC
[    0.000000] Command line: BOOT_IMAGE=/vmlinuz ro rhgb quiet intel_iommu=on iommu=pt vfio-pci.ids=10de:1401,10de:0fba
[    0.000000] DMAR: IOMMU enabled
[    0.067043] Kernel is locked down from EFI Secure Boot mode; see man kernel_lockdown.7
[    0.102255] DMAR-IR: IOAPIC id 2 under DRHD base  0xfed91000 IOMMU 1
[    0.103000] DMAR-IR: Enabled IRQ remapping in x2apic mode
[    0.103001] DMAR: No RMRR found
[    0.439091] iommu: Adding device 0000:00:00.0 to group 0
[    0.645850] pci 0000:01:00.0: BAR 1 [mem 0xf800000000-0xfbffffffff 64bit pref]
[    0.645904] pci 0000:01:00.0: BAR 3: assigned to efifb
[    0.910000] AMD-Vi: Interrupt remapping enabled
[    0.910001] AMD-Vi: Extended features (0x58f77ef22294a5a, 0x0): PPR NX GT IA GA PC GA_vAPIC
[    2.553048] VFIO - User Level meta-driver version: 0.3
[    2.695107] vfio_pci: add [10de:1401[ffffffff:ffffffff]] class 0x000000/00000000
[    3.744910] vfio-pci 0000:01:00.0: vgaarb: VGA decodes changed: olddecodes=io+mem,decodes=none:owns=none
[  144.319744] vfio-pci 0000:01:00.0: enabling device (0002 -> 0003)
[  144.739926] vfio-pci 0000:01:00.0: vfio_ecap_init: hiding ecap 0x19@0x270
[  586.739361] vfio-pci 0000:01:00.0: resetting
[  586.740186] vfio-pci 0000:01:00.0: reset done
[  590.000000] kvm [52392]: ignored rdmsr: 0xc0011029 data 0x0
[  600.000000] x86/split lock detection: #AC: CPU 0/KVM/1234 took a split_lock trap at address: 0x7fef
[  700.000000] pcieport 0000:00:1c.5: AER: Corrected error message received from 0000:03:00.0
[  701.000000] audit: type=1400 apparmor=\"DENIED\" operation=\"open\" name=\"/sys/devices/\" comm=\"virt-aa-helper\"
Starting guest at 12:10:15.1 with memory 8G
";

#[test]
fn healthy_machines_are_left_in_peace() {
    let scan = Scanner::read(CLEAN.as_bytes()).unwrap();
    let found: Vec<_> = scan
        .sightings
        .iter()
        .map(|seen| (seen.symptom.id, &seen.line))
        .collect();
    assert!(found.is_empty(), "{found:#?}");
    assert_eq!(scan.lines, CLEAN.lines().count() as u64);
}

#[test]
fn words_alone_prove_nothing() {
    for line in [
        // A process that hangs, and a lockup, on a machine without VFIO.
        "INFO: task bash:123 blocked for more than 120 seconds.",
        "watchdog: BUG: soft lockup - CPU#3 stuck for 22s! [kworker/3:2:210]",
        "Code: Bad RIP value.",
        // Other devices.
        "pci 0000:00:1f.3: power state changed from D3hot to D0",
        "genirq: Flags mismatch irq 14. 00200081 (a) vs. 00200081 (b)",
        "VFIO_MAP_DMA done",
        "group 14 is viable",
        "error code 43",
        "amdgpu 0000:03:00.0: Invalid PCI ROM header signature: expecting 0xaa55, got 0xd65c",
        // tenon's own hint quotes what to look for.
        "if the kernel log says `No interrupt remapping support`, turn interrupt remapping on",
    ] {
        let scan = Scanner::lines([line]);
        assert!(scan.sightings.is_empty(), "{line}: {:?}", scan.sightings[0].symptom.id);
    }
}

#[test]
fn the_same_failure_is_told_once_for_each_device() {
    let line = |bdf: &str| format!("vfio-pci {bdf}: BAR 0: can't reserve [mem 0xd0000000-0xdfffffff 64bit pref]");
    let (first, second) = (line("0000:05:00.0"), line("0000:06:00.0"));
    let log = ["boot", &first, &second, &first, &first];
    let scan = Scanner::lines(log);
    let told: Vec<_> = scan.sightings.iter().map(|seen| (seen.first, seen.count)).collect();
    assert_eq!(told, [(2, 3), (3, 1)]);

    let flood: Vec<String> = (0..200).map(|bus| line(&format!("0000:{bus:02x}:00.0"))).collect();
    let scan = Scanner::lines(flood.iter().map(String::as_str));
    assert_eq!(scan.sightings.len(), 32);
    assert_eq!(scan.sightings.iter().map(|seen| seen.count).sum::<u64>(), 200);
}

#[test]
fn hostile_logs_are_read_to_their_end() {
    let mut log = vec![0xff; 100_000];
    log.extend(b"\nvfio 0000:ff:1f.7: group 99999999999999999999 is not viable\x1b]0;title\x07\n");
    log.extend(b"group 4294967295 is not viable\n\0\0\0\n");
    log.extend(b"0000:00:1f.9: group 7 is not viable, at last without an end of line");
    let scan = Scanner::read(log.as_slice()).unwrap();
    assert_eq!(scan.lines, 5);
    // What is no group is none; that the group is not viable stays true.
    assert_eq!(
        scan.sightings.iter().map(|seen| seen.group).collect::<Vec<_>>(),
        [Some(7)]
    );
    assert_eq!(scan.sightings[0].bdf, None);

    let line = "x".repeat(10_000) + "\ngroup 7 is not viable\u{1b}[2J\n";
    let scan = Scanner::read(line.as_bytes()).unwrap();
    assert_eq!((scan.lines, scan.sightings[0].first), (2, 2));
    assert!(!quote(&scan.sightings[0].line).contains('\u{1b}'));
}

#[test]
fn a_log_without_end_is_cut() {
    let endless = std::io::BufReader::new(std::io::repeat(b'a'));
    let scan = Scanner::read_within(1 << 20, endless).unwrap();
    assert_eq!((scan.lines, scan.cut), (1, true));
    assert!(!Scanner::read(CLEAN.as_bytes()).unwrap().cut);
}
