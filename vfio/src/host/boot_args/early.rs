//! The files that have vfio-pci loaded, and addresses claimed, before the drivers that would take the devices.

use std::collections::BTreeSet;

use super::claim::{Claim, Claimed};
use super::place::Place;
use super::plan::Change;
use super::system::Initramfs;

/// The first line of each file that tenon makes.
pub(super) const HEADER: &str = "# Made by `tenon boot-args --apply`; `tenon boot-args --remove` takes it away.\n";

/// The modules of VFIO. What was `vfio_virqfd` is part of `vfio` since Linux 6.2.
const MODULES: &str = "vfio_pci vfio vfio_iommu_type1";

/// Whether a file is one of those below, with a change of which the initramfs has to be made anew.
pub(super) fn is_in_initramfs(path: &str) -> bool {
    [
        "/modprobe.d/",
        "/dracut",
        "/initcpio/",
        "/mkinitcpio",
        "/initramfs-tools/",
    ]
    .iter()
    .any(|part| path.contains(part))
}

/// The files for these functions. With vfio-pci built into the kernel nothing has to be loaded.
pub(super) fn files(initramfs: Initramfs, claimed: &[Claimed], vfio_built_in: bool) -> Vec<Change> {
    if claimed.is_empty() {
        return Vec::new();
    }
    let scripted = claimed.iter().any(|function| function.claim != Claim::ById);
    let mut files = Vec::new();
    if !vfio_built_in {
        files.extend(modprobe(claimed));
    }
    let load = !vfio_built_in;
    match initramfs {
        Initramfs::Dracut => dracut(&mut files, claimed, scripted, load),
        Initramfs::Mkinitcpio => mkinitcpio(&mut files, claimed, scripted, load),
        Initramfs::InitramfsTools => initramfs_tools(&mut files, claimed, scripted, load),
        Initramfs::RpmOstree | Initramfs::Unknown => (),
    }
    files
}

/// With this the drivers that know the devices wait until vfio-pci had its turn.
fn modprobe(claimed: &[Claimed]) -> Option<Change> {
    let modules: BTreeSet<&str> = claimed
        .iter()
        .flat_map(|function| function.modules.iter().map(String::as_str))
        .collect();
    let lines: String = modules
        .iter()
        .map(|module| format!("softdep {module} pre: vfio-pci\n"))
        .collect();
    (!lines.is_empty()).then(|| Change::file("/etc/modprobe.d/tenon-vfio.conf", &format!("{HEADER}{lines}")))
}

fn dracut(files: &mut Vec<Change>, claimed: &[Claimed], scripted: bool, load: bool) {
    let mut config = HEADER.to_owned();
    if load {
        config += &format!("force_drivers+=\" {MODULES} \"\n");
    }
    if scripted {
        let folder = "/usr/lib/dracut/modules.d/90tenon-vfio";
        config += "add_dracutmodules+=\" tenon-vfio \"\n";
        files.push(Change::script(
            &format!("{folder}/module-setup.sh"),
            &format!("#!/bin/bash\n{HEADER}{DRACUT_MODULE}"),
        ));
        files.push(Change::script(&format!("{folder}/tenon-vfio.sh"), &script(claimed)));
    }
    if load || scripted {
        files.push(Change::file("/etc/dracut.conf.d/90-tenon-vfio.conf", &config));
    }
}

/// dracut.modules(7). The pre-udev hooks run before anything loads a driver by its aliases.
const DRACUT_MODULE: &str = "\
check() {
    return 255
}

depends() {
    return 0
}

install() {
    inst_hook pre-udev 10 \"$moddir/tenon-vfio.sh\"
}
";

fn mkinitcpio(files: &mut Vec<Change>, claimed: &[Claimed], scripted: bool, load: bool) {
    let mut config = HEADER.to_owned();
    if load {
        config += &format!("MODULES=({MODULES} \"${{MODULES[@]}}\")\n");
    }
    if scripted {
        config += "HOOKS=(\"${HOOKS[0]}\" tenon-vfio \"${HOOKS[@]:1}\")\n";
        let install = format!("#!/bin/bash\n{HEADER}{MKINITCPIO_INSTALL}");
        files.push(Change::file("/etc/initcpio/install/tenon-vfio", &install));
        let hook = format!("#!/usr/bin/ash\n{HEADER}run_earlyhook() {{\n    /usr/bin/tenon-vfio-claim\n}}\n");
        files.push(Change::file("/etc/initcpio/hooks/tenon-vfio", &hook));
        files.push(Change::script("/etc/initcpio/tenon-vfio-claim", &script(claimed)));
        files.push(Change::file(
            "/etc/initcpio/tenon-vfio.service",
            &format!("{HEADER}{SERVICE}"),
        ));
    }
    if load || scripted {
        files.push(Change::file("/etc/mkinitcpio.conf.d/90-tenon-vfio.conf", &config));
    }
}

/// An image whose init is systemd runs no hooks of its own kind, but units.
const MKINITCPIO_INSTALL: &str = "
build() {
    add_file /etc/initcpio/tenon-vfio-claim /usr/bin/tenon-vfio-claim 755
    add_runscript
    if [[ \" ${HOOKS[*]} \" == *' systemd '* ]]; then
        add_file /etc/initcpio/tenon-vfio.service /usr/lib/systemd/system/tenon-vfio.service
        add_symlink /usr/lib/systemd/system/sysinit.target.wants/tenon-vfio.service ../tenon-vfio.service
    fi
}

help() {
    echo 'Gives PCI devices to vfio-pci by their addresses before other drivers are loaded.'
}
";

const SERVICE: &str = "
[Unit]
Description=Give PCI devices to vfio-pci by their addresses
DefaultDependencies=no
Before=systemd-modules-load.service systemd-udevd.service systemd-udev-trigger.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/bin/tenon-vfio-claim
";

/// `init-top` scripts run in the order of their names before the one that starts udev, unless they ask for another.
fn initramfs_tools(files: &mut Vec<Change>, claimed: &[Claimed], scripted: bool, load: bool) {
    if load {
        files.push(Change::Words {
            path: "/etc/initramfs-tools/modules".into(),
            place: Place::List,
            words: MODULES.split(' ').map(str::to_owned).collect(),
        });
    }
    if scripted {
        let prerequisites = "case \"$1\" in\nprereqs)\n    echo\n    exit 0\n    ;;\nesac\n\n";
        files.push(Change::script(
            "/etc/initramfs-tools/scripts/init-top/00-tenon-vfio",
            &script(claimed).replacen("\n\n", &format!("\n\n{prerequisites}"), 1),
        ));
    }
}

/// Sets `driver_override` by address, and takes what a built-in driver holds already. The ID is looked at too: after
/// cards were moved another device may stand at the address, a disk controller for one.
fn script(claimed: &[Claimed]) -> String {
    let lines: String = claimed
        .iter()
        .filter(|function| function.claim != Claim::ById)
        .map(|function| {
            format!(
                "claim {} 0x{:04x} 0x{:04x}\n",
                function.bdf, function.vendor, function.device
            )
        })
        .collect();
    format!(
        "#!/bin/sh\n{HEADER}\n{SCRIPT}\n{lines}\nmodprobe vfio-pci\n\nfor bdf in $claimed; do\n    echo \"$bdf\" > /sys/bus/pci/drivers_probe\ndone\n"
    )
}

const SCRIPT: &str = "\
claimed=

# claim BDF VENDOR DEVICE
claim() {
    here=/sys/bus/pci/devices/$1
    [ -e \"$here/driver_override\" ] || return 0
    read -r vendor < \"$here/vendor\"
    read -r device < \"$here/device\"
    if [ \"$vendor $device\" != \"$2 $3\" ]; then
        echo \"tenon-vfio: $1 is now $vendor:$device, not $2:$3: left alone; run tenon boot-args again\" > /dev/kmsg
        return 0
    fi
    echo vfio-pci > \"$here/driver_override\"
    if [ -e \"$here/driver\" ]; then
        echo \"$1\" > \"$here/driver/unbind\"
    fi
    claimed=\"$claimed $1\"
}
";
