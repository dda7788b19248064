//! Arguments that are there already: right, wrong, and somebody else's.

use super::*;
use crate::host::survey::{Function, Use};
use crate::host::{Capture, Survey};

/// What the author of the procedure ran by mistake: the processor's graphics on pci-stub, the card's audio not.
const MISTAKE: &str = "pci-stub.ids=8086:0152,10de:1401,8086:1e20";

#[test]
fn the_mistake_is_explained_and_the_right_line_given() {
    let (_dir, tree) = host(
        Z77,
        "GenuineIntel",
        &format!("ro rhgb quiet intel_iommu=on {MISTAKE}\n"),
    );
    let plan = BootPlan::of(&tree, &bdfs(&["01:00.0", "00:1b.0"])).unwrap();
    assert_eq!(
        plan.argument_line(),
        "intel_iommu=on iommu=pt vfio-pci.ids=8086:1e20,10de:1401,10de:0fba"
    );
    assert_eq!(plan.wrong.len(), 1);
    let wrong = &plan.wrong[0];
    assert!(wrong.defeats && wrong.argument == MISTAKE);
    for part in [
        "holds 0000:01:00.0 [10de:1401] on pci-stub",
        "claims 0000:00:02.0 [8086:0152], a display controller",
        "leaves 0000:01:00.1 [10de:0fba]",
    ] {
        assert!(wrong.why.contains(part), "{}", wrong.why);
    }
}

#[test]
fn what_defeats_the_plan_is_refused_or_replaced() {
    let (_dir, tree) = z77();
    for (distribution, path, old) in [
        ("fedora", "etc/default/grub", "rhgb quiet"),
        (
            "fedora",
            "boot/loader/entries/0123456789abcdef0123456789abcdef-6.11.4-301.fc41.x86_64.conf",
            "rhgb quiet",
        ),
        ("debian", "etc/default/grub", "=\"quiet\""),
        ("arch-uki", "etc/kernel/cmdline", "rw quiet"),
    ] {
        for word in [MISTAKE, "iommu=off", "amd_iommu=off"] {
            let installed = Installed::of(distribution);
            let new = match old.strip_suffix('"') {
                Some(open) => format!("{open} {word} last\""),
                None => format!("{old} {word} last"),
            };
            installed.replace(path, old, &new);
            let before = snapshot(installed.path());
            let plan = installed.plan(&tree, &["01:00.0"]);
            let error = Edits::applying(&plan, &installed.tree()).unwrap_err().to_string();
            assert!(error.contains(word) && error.contains("--replace"), "{error}");

            let named = bdfs(&["01:00.0"]);
            let plan = BootPlan::for_system(&tree, &installed.tree(), &named, true).unwrap();
            installed.apply(&plan);
            assert!(!installed.text(path).contains(word), "{}", installed.text(path));
            assert!(installed.apply(&plan).is_empty(), "{distribution} {word}");
            installed.remove();
            assert_eq!(snapshot(installed.path()), before, "{distribution} {word}");
        }
    }
}

#[test]
fn ids_of_the_user_are_taken_over_and_given_back() {
    let (_dir, tree) = z77();
    let installed = Installed::of("arch-grub");
    installed.replace(
        "etc/default/grub",
        "loglevel=3 quiet",
        "vfio-pci.ids=1b73:1100 iommu=pt",
    );
    let before = snapshot(installed.path());
    let plan = installed.plan(&tree, &["01:00.0"]);
    installed.apply(&plan);
    let line = "\"vfio-pci.ids=1b73:1100 iommu=pt intel_iommu=on vfio-pci.ids=1b73:1100,10de:1401,10de:0fba\"";
    assert!(
        installed.text("etc/default/grub").contains(line),
        "{}",
        installed.text("etc/default/grub")
    );
    assert!(installed.apply(&plan).is_empty());
    installed.remove();
    assert_eq!(snapshot(installed.path()), before);
}

#[test]
fn what_is_all_there_needs_nothing() {
    let (_dir, tree) = z77();
    let installed = Installed::of("ubuntu");
    let words = "intel_iommu=on vfio-pci.ids=10de:1401,10de:0fba";
    installed.replace("etc/default/grub", "iommu=pt", &format!("iommu=pt {words}"));
    let edits = Edits::applying(&installed.plan(&tree, &["01:00.0"]), &installed.tree()).unwrap();
    assert!(edits.is_empty(), "{}", edits.diff());
}

#[test]
fn files_of_others_are_left_alone() {
    let (_dir, tree) = z77();
    let installed = Installed::of("fedora");
    let path = installed.path().join("etc/modprobe.d/tenon-vfio.conf");
    std::fs::create_dir(path.parent().unwrap()).unwrap();
    std::fs::write(&path, "options kvm ignore_msrs=1\n").unwrap();
    let error = Edits::applying(&installed.plan(&tree, &["01:00.0"]), &installed.tree())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("tenon-vfio.conf") && error.contains("not made by tenon"),
        "{error}"
    );
}

#[test]
fn drivers_that_are_built_in_are_dealt_with() {
    let (_dir, tree) = host(TWINS, "AuthenticAMD", "");
    for (distribution, by_address, script) in [("fedora", true, true), ("ubuntu", false, false)] {
        let plan = Installed::of(distribution).plan(&tree, &["03:00.0"]);
        let usb = &plan.functions[0];
        assert_eq!(usb.claim != Claim::ById, by_address, "{distribution}: {:?}", usb.claim);
        let scripts = plan
            .changes
            .iter()
            .any(|change| matches!(change, Change::File { executable: true, .. }));
        assert_eq!(scripts, script, "{distribution}");
    }
    let plan = Installed::of("ubuntu").plan(&tree, &["03:00.0"]);
    assert!(
        plan.changes.iter().all(|change| !change.path().contains("modprobe.d")),
        "{:?}",
        plan.changes
    );
    assert!(
        plan.notes.iter().any(|note| note.contains("built into")),
        "{:?}",
        plan.notes
    );
}

#[test]
fn what_else_there_is_to_know_is_said() {
    let (dir, tree) = z77();
    let note = |tree: &HostTree, named: &[&str], part: &str| {
        let plan = BootPlan::of(tree, &bdfs(named)).unwrap();
        plan.notes.iter().any(|note| note.contains(part))
    };
    for (part, expected) in [
        ("sysfb_init", false),
        ("no IOMMU is active", false),
        ("neither Intel", false),
    ] {
        assert_eq!(note(&tree, &["01:00.0"], part), expected, "{part}");
    }
    let root = dir.as_path();
    std::fs::create_dir_all(root.join("proc/sys/kernel")).unwrap();
    std::fs::write(root.join("proc/sys/kernel/osrelease"), "5.15.0-91-generic\n").unwrap();
    std::fs::write(root.join("sys/bus/pci/devices/0000:01:00.0/boot_vga"), "1\n").unwrap();
    std::fs::write(root.join("proc/cpuinfo"), "vendor_id : CentaurHauls\n").unwrap();
    assert!(note(&tree, &["01:00.0"], "sysfb_init") && !note(&tree, &["00:1b.0"], "sysfb_init"));
    assert!(note(&tree, &[], "neither Intel"));
    for (bdf, ..) in Z77 {
        std::fs::remove_file(root.join(format!("sys/bus/pci/devices/{bdf}/iommu_group"))).unwrap();
    }
    assert!(note(&tree, &["01:00.0"], "no IOMMU is active") && !note(&tree, &[], "no IOMMU is active"));
}

#[test]
fn what_cannot_be_taken_is_refused() {
    let (_dir, tree) = z77();
    for (named, expected) in [("00:01.0", "is a bridge"), ("09:00.0", "no PCI function 0000:09:00.0")] {
        let error = BootPlan::of(&tree, &bdfs(&[named])).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn a_file_that_is_missing_is_not_made_up() {
    let (_dir, tree) = z77();
    let installed = Installed::of("debian");
    std::fs::remove_file(installed.path().join("etc/initramfs-tools/modules")).unwrap();
    let error = Edits::applying(&installed.plan(&tree, &["01:00.0"]), &installed.tree()).unwrap_err();
    assert_eq!(error.to_string(), "cannot read /etc/initramfs-tools/modules");
}

/// Captures, a device of each, how it is claimed, and what the host would lose with it.
#[test]
fn captures_of_hosts_are_planned_for() {
    let hosts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../resources/hosts");
    for (name, device, by_address, loss) in [
        ("z77", "01:00.0", false, None),
        ("two-t400", "65:00.0", true, None),
        ("two-t400", "17:00.0", true, None),
        ("server-nvme-shared", "a disk in use", true, Some("holds /")),
        ("single-gpu-b450", "the display", false, Some("the only display")),
    ] {
        let capture = Capture::open(&hosts.join(format!("{name}.tar.zst"))).unwrap();
        let tree = capture.into_tree();
        let survey = Survey::of(&tree).unwrap();
        let wanted = |function: &&Function| match device {
            "a disk in use" => function.uses.iter().any(|found| matches!(found, Use::Mount { .. })),
            "the display" => function.facts.is_display(),
            address => function.bdf() == address.parse().unwrap(),
        };
        let bdf = survey.functions.iter().find(wanted).unwrap().bdf();
        let plan = BootPlan::of(&tree, &[bdf]).unwrap();
        let claimed = plan.functions.iter().find(|claimed| claimed.bdf == bdf).unwrap();
        assert_eq!(claimed.claim != Claim::ById, by_address, "{name} {device}");
        let found = plan
            .losses
            .iter()
            .map(|found| found.what.as_str())
            .find(|what| loss.is_some_and(|loss| what.contains(loss)));
        assert_eq!(found.is_some(), loss.is_some(), "{name} {device}: {:?}", plan.losses);
    }
}

#[test]
fn garbled_journals_are_refused() {
    let installed = Installed::of("debian");
    let path = installed.path().join("var/lib/tenon/boot-args/journal.json");
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    for (text, expected) in [
        ("{", "not a journal"),
        ("{\"format\": 9, \"entries\": []}", "format 9"),
        ("[1]", "not a journal"),
    ] {
        std::fs::write(&path, text).unwrap();
        let error = Edits::undoing(&installed.tree()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn programs_that_keep_arguments_are_told_what_to_do() {
    let mistaken = format!("ro quiet iommu=pt {MISTAKE}\n");
    let (_dir, tree) = host(Z77, "GenuineIntel", &mistaken);
    for (distribution, applied, removed) in [
        (
            "fedora-atomic",
            "rpm-ostree kargs --delete-if-present=pci-stub.ids=8086:0152,10de:1401,8086:1e20 \
             --append-if-missing=intel_iommu=on --append-if-missing=rd.driver.pre=vfio-pci \
             --append-if-missing=vfio-pci.ids=10de:1401,10de:0fba",
            "rpm-ostree kargs --delete-if-present=intel_iommu=on --delete-if-present=rd.driver.pre=vfio-pci \
             --delete-if-present=vfio-pci.ids=10de:1401,10de:0fba \
             --append-if-missing=pci-stub.ids=8086:0152,10de:1401,8086:1e20",
        ),
        (
            "pop-os",
            "kernelstub --delete-options pci-stub.ids=8086:0152,10de:1401,8086:1e20",
            "kernelstub --delete-options 'intel_iommu=on vfio-pci.ids=10de:1401,10de:0fba'",
        ),
    ] {
        let installed = Installed::of(distribution);
        let before = snapshot(installed.path());
        let refused = Edits::applying(&installed.plan(&tree, &["01:00.0"]), &installed.tree()).unwrap_err();
        assert!(refused.to_string().contains("--replace"), "{refused}");
        let named = bdfs(&["01:00.0"]);
        let plan = BootPlan::for_system(&tree, &installed.tree(), &named, true).unwrap();
        assert_eq!(plan.commands[0].line(), applied, "{distribution}");
        installed.apply(&plan);
        let plan = BootPlan::for_system(&tree, &installed.tree(), &named, true).unwrap();
        assert!(installed.apply(&plan).is_empty());
        let removal = installed.remove();
        let commands = System::of(&installed.tree()).commands_after_removal(&removal);
        assert_eq!(commands[0].line(), removed, "{distribution}");
        assert_eq!(snapshot(installed.path()), before, "{distribution}");
    }
}
