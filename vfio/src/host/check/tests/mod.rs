//! Hosts made up for one requirement each: what is seen of it, what is advised, and which failure it is.

mod tables;

use std::sync::Arc;

use super::*;
use crate::host::HostTree;
use crate::host::capture::Memory;
use crate::host::symptom::find;

/// A host as its files.
struct Host(Memory);

/// Address, class, vendor and device, driver, group.
type Function = (&'static str, u32, (u16, u16), Option<&'static str>, Option<u32>);

const ROOT_PORT: Function = ("0000:00:01.0", 0x060400, (0x8086, 0x0151), Some("pcieport"), Some(1));
const IGD: Function = ("0000:00:02.0", 0x030000, (0x8086, 0x0152), Some("i915"), Some(2));
const GPU: Function = ("0000:01:00.0", 0x030000, (0x10de, 0x1401), Some("vfio-pci"), Some(1));
const AUDIO: Function = ("0000:01:00.1", 0x040300, (0x10de, 0x0fba), Some("vfio-pci"), Some(1));

const fn on(function: Function, driver: Option<&'static str>) -> Function {
    (function.0, function.1, function.2, driver, function.4)
}

impl Host {
    /// In order but for its functions.
    fn of(functions: &[Function]) -> Self {
        let mut host = Self(Memory::new());
        host.0.directory("sys/bus/pci/devices").unwrap();
        for (bdf, class, (vendor, device), driver, group) in functions {
            let path = format!("sys/bus/pci/devices/{bdf}");
            host = host
                .file(&format!("{path}/class"), &format!("0x{class:06x}\n"))
                .file(&format!("{path}/vendor"), &format!("0x{vendor:04x}\n"))
                .file(&format!("{path}/device"), &format!("0x{device:04x}\n"));
            if let Some(driver) = driver {
                host.0
                    .link(format!("{path}/driver"), format!("/sys/bus/pci/drivers/{driver}"))
                    .unwrap();
            }
            if let Some(group) = group {
                let group = format!("sys/kernel/iommu_groups/{group}");
                host.0.link(format!("{path}/iommu_group"), format!("/{group}")).unwrap();
                host.0
                    .link(format!("{group}/devices/{bdf}"), format!("/{path}"))
                    .unwrap();
            }
        }
        host.file(
            "/proc/cpuinfo",
            "processor : 0\nvendor_id : GenuineIntel\nmodel name : Core i5\nflags : fpu vmx sse\n",
        )
        .file("/proc/sys/kernel/osrelease", "6.12.30\n")
        .file("/proc/cmdline", "ro quiet intel_iommu=on\n")
        .file(
            "/proc/meminfo",
            "MemTotal: 25165824 kB\nMemAvailable: 20971520 kB\nHugepagesize: 2048 kB\n",
        )
        .file("/proc/interrupts", " 1: 9 IR-IO-APIC 1-edge i8042\n")
        .file("/sys/firmware/acpi/tables/DMAR", "")
        .file("/sys/module/vfio_pci/refcnt", "0\n")
        .file("/sys/module/vfio_iommu_type1/refcnt", "0\n")
        .file("/tenon/kernel.log", "[    0.000000] Linux version 6.12.30\n")
    }

    fn file(mut self, path: &str, content: &str) -> Self {
        let path = path.trim_start_matches('/');
        self.0.take(path);
        self.0.file(path, content.as_bytes()).unwrap();
        self
    }

    fn without(mut self, path: &str) -> Self {
        self.0.take(path.trim_start_matches('/')).unwrap();
        self
    }

    fn check(self, wanted: Wanted) -> Vec<Line> {
        check(&Facts::of(HostTree::of(Arc::new(self.0)), wanted).unwrap())
    }
}

fn wanted(devices: &[&str]) -> Wanted {
    Wanted {
        devices: devices.iter().map(|bdf| bdf.parse().unwrap()).collect(),
        ..Wanted::default()
    }
}

/// Status, a part of what was seen, a part of the remedy, the failure.
type Expected = (Status, &'static str, &'static str, Option<&'static str>);

#[track_caller]
fn expect(lines: &[Line], requirement: &str, status: Status, seen: &str, remedy: &str, symptom: Option<&str>) {
    let own: Vec<&Line> = lines.iter().filter(|line| line.requirement == requirement).collect();
    let met = own.iter().any(|line| {
        let finding = &line.finding;
        finding.status == status
            && finding.seen.contains(seen)
            && finding.remedy.clone().unwrap_or_default().contains(remedy)
            && finding.symptom == symptom
    });
    assert!(met, "no {status:?} `{seen}`, `{remedy}`, {symptom:?} among {own:#?}");
}

#[test]
fn a_host_in_order_passes() {
    let host = Host::of(&[ROOT_PORT, IGD, GPU, AUDIO]);
    let lines = host.check(wanted(&["0000:01:00.0", "0000:01:00.1"]));
    let bad: Vec<&Line> = lines
        .iter()
        .filter(|line| line.finding.status >= Status::Warn)
        .collect();
    assert!(bad.is_empty(), "{bad:#?}");
    expect(
        &lines,
        "devices",
        Status::Pass,
        "01:00.0 and 01:00.1 on vfio-pci",
        "",
        None,
    );
}

#[test]
fn names_and_titles_are_in_order() {
    for requirement in REQUIREMENTS {
        assert!(requirement.title.len() <= LONGEST_TITLE, "{}", requirement.title);
    }
    let sections: Vec<Section> = REQUIREMENTS.iter().map(|requirement| requirement.section).collect();
    assert!(sections.is_sorted());
}

/// One file of a host in order is changed.
#[test]
fn the_machine_is_looked_at() {
    for (path, content, requirement, (status, seen, remedy, symptom)) in tables::FILES {
        let content = match *path {
            "/proc/cpuinfo" => format!("vendor_id : AuthenticAMD\nmodel name : Ryzen\nflags : {content}\n"),
            "/tenon/kernel.log" => format!("[    0.000000] Linux version 6.12.30\n[    1.000000] {content}\n"),
            _ => (*content).to_owned(),
        };
        let host = Host::of(&[ROOT_PORT, IGD, GPU, AUDIO]).file(path, &content);
        let lines = host.check(Wanted::default());
        expect(&lines, requirement, *status, seen, remedy, *symptom);
    }
}

/// One file of a host in order is missing.
#[test]
fn what_a_capture_leaves_out_is_unknown() {
    for (path, requirement) in [
        ("/proc/cpuinfo", "virtualisation"),
        ("/proc/cmdline", "kernel-arguments"),
        ("/proc/meminfo", "memory"),
        ("/tenon/kernel.log", "kernel-log"),
    ] {
        let lines = Host::of(&[ROOT_PORT, IGD, GPU, AUDIO])
            .without(path)
            .check(Wanted::default());
        expect(&lines, requirement, Status::Unknown, "", "", None);
        assert!(
            lines.iter().all(|line| line.finding.status != Status::Fail),
            "{path}: {lines:#?}"
        );
    }
}

#[test]
fn an_iommu_that_is_off_is_turned_on_where_it_is_off() {
    let groupless = |function: Function| (function.0, function.1, function.2, function.3, None);
    let functions = [IGD, GPU].map(groupless);
    for (table, arguments, requirement, remedy) in [
        (Some("DMAR"), "quiet", "iommu", "intel_iommu=on"),
        (Some("DMAR"), "iommu=off", "iommu", "iommu=off off"),
        (Some("DMAR"), "intel_iommu=off", "iommu", "intel_iommu=off off"),
        (Some("FACP"), "quiet", "iommu-firmware", "`VT-d`"),
        (Some("FACP"), "quiet", "iommu", "once the firmware has it"),
        (Some("DMAR"), "intel_iommu=on", "iommu", "`VT-d`"),
    ] {
        let mut host = Host::of(&functions)
            .without("/sys/firmware/acpi/tables/DMAR")
            .file("/proc/cmdline", arguments);
        if let Some(table) = table {
            host = host.file(&format!("/sys/firmware/acpi/tables/{table}"), "");
        }
        expect(
            &host.check(Wanted::default()),
            requirement,
            Status::Fail,
            "",
            remedy,
            Some("no-iommu"),
        );
    }
}

/// Functions as they should not be.
#[test]
fn devices_are_looked_at() {
    for (functions, asked, requirement, (status, seen, remedy, symptom)) in tables::FUNCTIONS {
        let arguments = match *requirement {
            "isolation" => "quiet",
            _ => "intel_iommu=on vfio-pci.ids=10de:1401,10de:0fba",
        };
        let host = Host::of(functions).file("/proc/cmdline", arguments);
        let lines = host.check(wanted(asked));
        expect(&lines, requirement, *status, seen, remedy, *symptom);
    }
}

/// A file of the GPU that is asked for.
#[test]
fn facts_of_a_device_are_looked_at() {
    for (file, content, release, requirement, (status, seen, remedy, symptom)) in tables::DEVICE {
        let (status, symptom) = (*status, *symptom);
        let start = if status == Status::Unknown {
            "00000000-00000000"
        } else {
            "d0000000-d02fffff"
        };
        let host = Host::of(&[IGD, GPU, AUDIO])
            .file(&format!("/sys/bus/pci/devices/0000:01:00.0/{file}"), content)
            .file("/sys/bus/pci/devices/0000:01:00.0/sriov_totalvfs", "7")
            .file(
                "/proc/iomem",
                &format!("c0000000-ffffffff : PCI Bus\n  {start} : BOOTFB\n"),
            )
            .file("/proc/sys/kernel/osrelease", release);
        let lines = host.check(wanted(&["01:00.0", "01:00.1"]));
        expect(&lines, requirement, status, seen, remedy, symptom);
    }
}

#[test]
fn reserved_memory_counts_for_its_group() {
    let direct = "0x000000007c000000 0x000000007fffffff direct\n0x00000000fee00000 0x00000000feefffff msi\n";
    let reserve = |groups: &[u32]| {
        groups.iter().fold(Host::of(&[IGD, GPU, AUDIO]), |host, group| {
            host.file(&format!("/sys/kernel/iommu_groups/{group}/reserved_regions"), direct)
        })
    };
    let asked = || wanted(&["01:00.0", "01:00.1"]);
    expect(
        &reserve(&[1]).check(asked()),
        "devices",
        Status::Fail,
        "memory for group 1",
        "pre-boot DMA",
        Some("direct-mapping"),
    );
    expect(
        &reserve(&[2]).check(asked()),
        "reserved-memory",
        Status::Pass,
        "groups 2,",
        "",
        Some("direct-mapping"),
    );
    expect(
        &reserve(&[1, 2]).check(Wanted::default()),
        "devices",
        Status::Fail,
        "memory for group",
        "",
        Some("direct-mapping"),
    );
}

#[test]
fn a_guest_without_devices_needs_no_iommu() {
    let groupless = (GPU.0, GPU.1, GPU.2, GPU.3, None);
    let asked = Wanted {
        without_devices: true,
        ..Wanted::default()
    };
    let lines = Host::of(&[groupless]).check(asked);
    assert!(
        lines.iter().all(|line| line.finding.status != Status::Fail),
        "{lines:#?}"
    );
    expect(&lines, "virtualisation", Status::Pass, "vmx", "", None);
}

#[test]
fn memory_that_is_not_there_is_refused() {
    let asked = Wanted {
        memory: Some(32 << 30),
        ..Wanted::default()
    };
    let lines = Host::of(&[IGD]).check(asked);
    expect(
        &lines,
        "memory",
        Status::Fail,
        "32 GiB wanted, 20 GiB free of 24 GiB",
        "--memory",
        None,
    );
}

/// A failure that no log shows is one that a requirement shows; and each name that a requirement gives is one.
#[test]
fn every_failure_can_be_recognised() {
    let source = [
        include_str!("../acs.rs"),
        include_str!("../arguments.rs"),
        include_str!("../devices.rs"),
        include_str!("../framebuffer.rs"),
        include_str!("../graphics.rs"),
        include_str!("../iommu.rs"),
        include_str!("../isolation.rs"),
        include_str!("../kernel.rs"),
        include_str!("../kvm.rs"),
        include_str!("../memory.rs"),
        include_str!("../modules.rs"),
        include_str!("../permission.rs"),
        include_str!("../processor.rs"),
        include_str!("../remapping.rs"),
        include_str!("../reserved.rs"),
    ]
    .concat();
    for symptom in crate::host::symptom::all().filter(|symptom| symptom.signs.is_empty()) {
        assert!(
            source.contains(&format!("symptom(\"{}\")", symptom.id)),
            "nothing shows {}",
            symptom.id
        );
    }
    for name in source
        .split(".symptom(\"")
        .skip(1)
        .filter_map(|rest| rest.split('"').next())
    {
        assert!(find(name).is_some(), "{name} is no failure");
    }
}

/// Whatever stands in the files, there is an answer.
#[test]
fn garbage_is_borne() {
    let garbage = "\u{0}\u{1b}[2J 99999999999999999999 ::: -1 0x\n=\"\n - - direct\n";
    let mut host = Host::of(&[ROOT_PORT, IGD, GPU, AUDIO]);
    for path in [
        "/proc/cpuinfo",
        "/proc/cmdline",
        "/proc/meminfo",
        "/proc/iomem",
        "/proc/interrupts",
        "/proc/sys/kernel/osrelease",
        "/tenon/kernel.log",
        "/sys/kernel/security/lockdown",
        "/sys/class/iommu/dmar0/intel-iommu/cap",
        "/sys/kernel/iommu_groups/1/reserved_regions",
        "/sys/class/dmi/id/chassis_type",
        "/sys/bus/pci/devices/0000:01:00.0/resource",
        "/sys/bus/pci/devices/0000:01:00.0/power_state",
    ] {
        host = host.file(path, garbage);
    }
    let lines = host.check(wanted(&["01:00.0", "ffff:ff:1f.7"]));
    for line in &lines {
        let text = format!("{}{:?}", line.finding.seen, line.finding.remedy);
        assert!(!text.contains('\u{1b}'), "{text:?}");
    }
}
