//! Each distribution's tree against the golden files beside it. `TENON_BLESS=1` writes them anew.

use super::*;

const ALL: &[&str] = &[
    "arch-grub",
    "arch-systemd-boot",
    "arch-uki",
    "debian",
    "fedora",
    "fedora-atomic",
    "opensuse-leap",
    "opensuse-tumbleweed",
    "pop-os",
    "proxmox",
    "rhel",
    "rhel-8",
    "ubuntu",
];

/// The hosts, what is taken of each, and the folder with what comes of it.
fn cases() -> [(TempDir, HostTree, &'static [&'static str], &'static str); 2] {
    let (z77_dir, z77) = z77();
    let (twins_dir, twins) = host(TWINS, "AuthenticAMD", "root=/dev/nvme0n1p2 ro\n");
    [
        (z77_dir, z77, &["01:00.0", "00:1b.0"], "z77"),
        (twins_dir, twins, &["0a:00.0", "03:00.0"], "twins"),
    ]
}

#[test]
fn every_tree_that_is_there_is_tested() {
    let mut there: Vec<String> = std::fs::read_dir(resources())
        .unwrap()
        .map(Result::unwrap)
        .filter(|entry| entry.file_type().unwrap().is_dir())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    there.sort();
    assert_eq!(there, ALL);
}

/// What differs from the tree as it was, without tenon's own notes.
fn changed(before: &Snapshot, after: &Snapshot) -> Snapshot {
    after
        .iter()
        .filter(|(path, node)| before.get(*path) != Some(node) && node.0 != b"folder")
        .filter(|(path, _)| !path.starts_with("var/lib/tenon"))
        .map(|(path, node)| (path.clone(), node.clone()))
        .collect()
}

fn bless(folder: &Path, plan: &str, changed: &Snapshot) {
    let _ = std::fs::remove_dir_all(folder);
    std::fs::create_dir_all(folder).unwrap();
    std::fs::write(folder.join("plan.txt"), plan).unwrap();
    for (path, (bytes, mode)) in changed {
        let path = folder.join("applied").join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(*mode)).unwrap();
    }
}

#[test]
fn trees_become_what_the_golden_files_say() {
    for (_dir, host, named, case) in &cases() {
        for distribution in ALL {
            let installed = Installed::of(distribution);
            let before = snapshot(installed.path());
            let plan = installed.plan(host, named);
            assert_eq!(plan.obstacle(), None, "{distribution}");
            installed.apply(&plan);
            let found = changed(&before, &snapshot(installed.path()));
            let folder = resources().join(distribution).join(case);
            if std::env::var_os("TENON_BLESS").is_some() {
                bless(&folder, &plan.to_string(), &found);
            }
            let golden = std::fs::read_to_string(folder.join("plan.txt")).unwrap();
            assert_eq!(plan.to_string(), golden, "{distribution} {case}");
            let applied = folder.join("applied");
            let mut expected = if applied.exists() {
                snapshot(&applied)
            } else {
                Snapshot::new()
            };
            expected.retain(|_, node| node.0 != b"folder");
            let text = |all: &Snapshot| -> Vec<(PathBuf, String, bool)> {
                let line = |(path, (bytes, mode)): (&PathBuf, &(Vec<u8>, u32))| {
                    (
                        path.clone(),
                        String::from_utf8_lossy(bytes).into_owned(),
                        mode & 0o100 != 0,
                    )
                };
                all.iter().map(line).collect()
            };
            assert_eq!(text(&found), text(&expected), "{distribution} {case}");
        }
    }
}

#[test]
fn twice_is_once_and_removal_leaves_no_trace() {
    for (_dir, host, named, case) in &cases() {
        for distribution in ALL {
            let installed = Installed::of(distribution);
            let before = snapshot(installed.path());
            installed.apply(&installed.plan(host, named));
            let applied = snapshot(installed.path());
            let again = Edits::applying(&installed.plan(host, named), &installed.tree()).unwrap();
            assert!(again.is_empty(), "{distribution} {case}: {again:?}");
            installed.carry_out(&again);
            assert_eq!(snapshot(installed.path()), applied, "{distribution} {case}");

            let removal = installed.remove();
            assert!(removal.remarks.is_empty(), "{distribution}: {:?}", removal.remarks);
            assert_eq!(snapshot(installed.path()), before, "{distribution} {case}");
            assert!(Edits::undoing(&installed.tree()).unwrap().is_empty());
        }
    }
}

#[test]
fn another_plan_takes_the_place_of_the_first() {
    let (_dir, host) = z77();
    for distribution in ALL {
        let installed = Installed::of(distribution);
        let before = snapshot(installed.path());
        installed.apply(&installed.plan(&host, &["00:1b.0"]));
        installed.apply(&installed.plan(&host, &["01:00.0"]));
        let second = changed(&before, &snapshot(installed.path()));
        let fresh = Installed::of(distribution);
        fresh.apply(&fresh.plan(&host, &["01:00.0"]));
        assert_eq!(second, changed(&before, &snapshot(fresh.path())), "{distribution}");

        installed.apply(&installed.plan(&host, &[]));
        installed.remove();
        assert_eq!(snapshot(installed.path()), before, "{distribution}");
    }
}

#[test]
fn what_the_user_wrote_meanwhile_stays() {
    let (_dir, host) = z77();
    for (distribution, path, old, new) in [
        ("fedora", "etc/default/grub", "rhgb quiet", "rhgb"),
        (
            "fedora",
            "etc/kernel/cmdline",
            "ro rootflags",
            "ro mitigations=off rootflags",
        ),
        ("arch-grub", "etc/default/grub", "GRUB_TIMEOUT=5", "GRUB_TIMEOUT=1"),
        ("arch-systemd-boot", "boot/loader/entries/arch.conf", "rw", "rw quiet"),
        ("arch-uki", "etc/kernel/cmdline", "rw quiet", "rw"),
        ("debian", "etc/initramfs-tools/modules", "# raid1", "raid1"),
        ("opensuse-tumbleweed", "etc/kernel/cmdline", "quiet", "quiet debug"),
        (
            "proxmox",
            "etc/kernel/cmdline",
            "boot=zfs",
            "boot=zfs nvme_core.default_ps_max_latency_us=0",
        ),
    ] {
        let installed = Installed::of(distribution);
        installed.replace(path, old, new);
        let edited = snapshot(installed.path());

        let installed = Installed::of(distribution);
        let plan = installed.plan(&host, &["01:00.0"]);
        installed.apply(&plan);
        installed.replace(path, old, new);
        let mine = snapshot(installed.path());
        let again = installed.apply(&installed.plan(&host, &["01:00.0"]));
        assert!(again.is_empty(), "{distribution}: {}", again.diff());
        assert_eq!(snapshot(installed.path()), mine);
        let removal = installed.remove();
        assert_eq!(removal.remarks.len(), 1, "{distribution}: {:?}", removal.remarks);
        assert_eq!(snapshot(installed.path()), edited, "{distribution} {path}");
    }
}

#[test]
fn lines_of_the_user_in_our_files_stay() {
    let (_dir, host) = z77();
    let installed = Installed::of("fedora");
    let plan = installed.plan(&host, &["01:00.0"]);
    installed.apply(&plan);
    let path = "etc/modprobe.d/tenon-vfio.conf";
    installed.replace(path, "softdep nouveau", "options kvm ignore_msrs=1\nsoftdep nouveau");
    assert!(installed.apply(&plan).is_empty());
    installed.apply(&installed.plan(&host, &["00:1b.0"]));
    assert!(installed.text(path).contains("ignore_msrs"), "{}", installed.text(path));
    assert!(!installed.text(path).contains("nouveau"), "{}", installed.text(path));
    installed.remove();
    assert_eq!(installed.text(path), "options kvm ignore_msrs=1\n");
}

#[test]
fn an_edited_script_is_kept_aside() {
    let (_dir, host) = host(TWINS, "AuthenticAMD", "");
    let installed = Installed::of("debian");
    let plan = installed.plan(&host, &["0a:00.0"]);
    installed.apply(&plan);
    let path = "etc/initramfs-tools/scripts/init-top/00-tenon-vfio";
    installed.replace(path, "modprobe vfio-pci", "modprobe vfio-pci disable_vga=1");
    let other = installed.plan(&host, &["02:00.0"]);
    let error = Edits::applying(&other, &installed.tree()).unwrap_err().to_string();
    assert!(
        error.contains("edited by hand") && error.contains("--remove"),
        "{error}"
    );
    let removal = installed.remove();
    assert!(removal.remarks[0].contains("a copy is kept"), "{:?}", removal.remarks);
    assert!(!installed.path().join(path).exists());
    assert!(
        installed
            .text(&format!("var/lib/tenon/kept/{path}"))
            .contains("disable_vga")
    );
}

#[test]
fn an_unknown_distribution_is_told_what_to_do() {
    let (_dir, host) = z77();
    let dir = TempDir::new().unwrap();
    std::fs::create_dir(dir.as_path().join("etc")).unwrap();
    std::fs::write(
        dir.as_path().join("etc/os-release"),
        "ID=plan9\nPRETTY_NAME=\"Plan 9\"\n",
    )
    .unwrap();
    let plan = BootPlan::for_system(&host, &HostTree::at(dir.as_path()), &bdfs(&["01:00.0"]), false).unwrap();
    assert_eq!(
        plan.argument_line(),
        "intel_iommu=on iommu=pt vfio-pci.ids=10de:1401,10de:0fba"
    );
    let why = plan.obstacle().unwrap();
    assert!(why.contains("Plan 9") && why.contains("by hand"), "{why}");
    assert!(plan.to_string().contains("by hand"));
    assert!(plan.changes.iter().all(|change| change.path().contains("modprobe.d")));
}
