//! Where each distribution's boot loader takes the kernel's arguments from.

use super::super::super::HostTree;
use super::super::place::Place;
use super::super::plan::Command;
use super::super::program::Program;
use super::{Family, System};

/// A way by which arguments reach the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) enum Arguments {
    /// A file that is there is edited.
    Edit { path: String, place: Place },
    /// A file of ours adds to a shell variable; what stands in `read` is in force already.
    ShellDropIn {
        path: String,
        variable: &'static str,
        read: Vec<String>,
    },
    /// A file of ours holds arguments; what stands in `read` is in force already.
    LineDropIn { path: String, read: Vec<String> },
    /// A program keeps them.
    Kept(Program),
}

const DEFAULT_GRUB: &str = "/etc/default/grub";
const KERNEL_CMDLINE: &str = "/etc/kernel/cmdline";
/// Where entries of the Boot Loader Specification lie, by the mount point of the partition.
const ENTRIES: [&str; 3] = [
    "/boot/loader/entries",
    "/efi/loader/entries",
    "/boot/efi/loader/entries",
];

pub(super) fn find(tree: &HostTree, system: &mut System) {
    match system.family {
        Family::Fedora => fedora(tree, system),
        Family::FedoraAtomic => system.arguments.push(Arguments::Kept(Program::RpmOstree)),
        Family::Pop => system.arguments.push(Arguments::Kept(Program::Kernelstub)),
        Family::Debian => debian(tree, system),
        Family::Proxmox => proxmox(tree, system),
        Family::Arch => arch(tree, system),
        Family::Suse => suse(tree, system),
        Family::Unknown => (),
    }
}

fn grub(variable: &str, other: &str) -> Arguments {
    Arguments::Edit {
        path: DEFAULT_GRUB.into(),
        place: Place::Shell {
            variable: variable.into(),
            others: vec![other.into()],
        },
    }
}

fn cmdline(path: &str) -> Arguments {
    Arguments::Edit {
        path: path.into(),
        place: Place::Line,
    }
}

fn mkconfig(program: &str, config: &str) -> Command {
    let why = "writes the boot menu with the new arguments";
    Command::of(&[program, "-o", config], why)
}

/// The entries that start a Linux kernel, without the rescue entries: they stay the way back into the host.
fn entries(tree: &HostTree, system: &mut System) -> Vec<Arguments> {
    let mut all = Vec::new();
    for folder in ENTRIES {
        let mut names = tree.list(folder).unwrap_or_default();
        names.retain(|name| name.ends_with(".conf"));
        if !names.is_empty() {
            system.evidence.push(format!("{folder} holds boot entries"));
        }
        for name in names {
            let path = format!("{folder}/{name}");
            let text = tree.text(&path).unwrap_or_default();
            let starts_linux = text.lines().any(|line| line.trim_start().starts_with("linux"));
            if name.contains("rescue") {
                system
                    .evidence
                    .push(format!("{path} is left as it is: the way back into the host"));
            } else if starts_linux {
                all.push(Arguments::Edit {
                    path,
                    place: Place::Options,
                });
            }
        }
    }
    all
}

/// Entries are what GRUB reads; `/etc/default/grub` and `/etc/kernel/cmdline` are what later kernels' entries are made
/// from. grubby writes all three as well.
fn fedora(tree: &HostTree, system: &mut System) {
    if tree.exists(DEFAULT_GRUB) {
        system
            .arguments
            .push(grub("GRUB_CMDLINE_LINUX", "GRUB_CMDLINE_LINUX_DEFAULT"));
    }
    if tree.exists(KERNEL_CMDLINE) {
        system.arguments.push(cmdline(KERNEL_CMDLINE));
    }
    let entries = entries(tree, system);
    let by_variable = |entry: &Arguments| match entry {
        Arguments::Edit { path, .. } => tree.text(path).is_ok_and(|text| text.contains("$kernelopts")),
        _ => false,
    };
    // RHEL 8 has the arguments of all entries, later ones too, in a variable of GRUB, which grub2-mkconfig sets anew.
    let by_variable = entries.iter().any(by_variable) && tree.exists(DEFAULT_GRUB);
    if by_variable {
        system
            .evidence
            .push("the boot entries take their arguments from GRUB's variable kernelopts".into());
        let efi = "/etc/grub2-efi.cfg";
        let config = if tree.exists(efi) { efi } else { "/boot/grub2/grub.cfg" };
        system.refresh.push(mkconfig("grub2-mkconfig", config));
    } else if entries.is_empty() && tree.exists(DEFAULT_GRUB) {
        system.refresh.push(mkconfig("grub2-mkconfig", "/boot/grub2/grub.cfg"));
    } else {
        system.arguments.extend(entries);
    }
}

/// Debian's grub-mkconfig sources `/etc/default/grub.d/*.cfg` in the order of their names; cloud images set the
/// variable anew in one of them, so that ours must be the last.
fn debian(tree: &HostTree, system: &mut System) {
    if !tree.exists(DEFAULT_GRUB) {
        return;
    }
    let refresh = Command::new("update-grub", "writes the boot menu with the new arguments");
    system.refresh.push(refresh);
    let folder = "/etc/default/grub.d";
    if !tree.is_dir(folder) {
        let place = grub("GRUB_CMDLINE_LINUX_DEFAULT", "GRUB_CMDLINE_LINUX");
        return system.arguments.push(place);
    }
    system.evidence.push(format!("{folder} is there"));
    let names = tree.list(folder).unwrap_or_default();
    let drop_ins = names.iter().filter(|name| name.ends_with(".cfg"));
    let read = drop_ins.map(|name| format!("{folder}/{name}"));
    let path = format!("{folder}/zz-tenon.cfg");
    system.arguments.push(Arguments::ShellDropIn {
        read: std::iter::once(DEFAULT_GRUB.to_owned())
            .chain(read.filter(|other| *other != path))
            .collect(),
        path,
        variable: "GRUB_CMDLINE_LINUX_DEFAULT",
    });
}

fn proxmox(tree: &HostTree, system: &mut System) {
    let uuids = "/etc/kernel/proxmox-boot-uuids";
    debian(tree, system);
    if !tree.exists(uuids) {
        return;
    }
    system
        .evidence
        .push(format!("{uuids} is there: proxmox-boot-tool keeps the boot partitions"));
    if tree.exists(KERNEL_CMDLINE) {
        system.arguments.push(cmdline(KERNEL_CMDLINE));
    }
    // It runs update-grub itself where the partitions start GRUB.
    let why = "copies kernels and arguments to the boot partitions";
    system.refresh = vec![Command::new("proxmox-boot-tool refresh", why)];
}

fn arch(tree: &HostTree, system: &mut System) {
    let entries = entries(tree, system);
    let has_entries = !entries.is_empty();
    system.arguments.extend(entries);
    let unified = unified_image(tree, system);
    if has_entries && !unified && tree.exists(KERNEL_CMDLINE) {
        // Where kernel-install writes the entries, those of later kernels are made from it.
        system.arguments.push(cmdline(KERNEL_CMDLINE));
    }
    if unified {
        let folder = "/etc/cmdline.d";
        let names = tree.list(folder).unwrap_or_default();
        let path = format!("{folder}/zz-tenon.conf");
        let read: Vec<String> = names
            .iter()
            .filter(|name| name.ends_with(".conf"))
            .map(|name| format!("{folder}/{name}"))
            .filter(|other| *other != path)
            .collect();
        // mkinitcpio reads /etc/kernel/cmdline only where there is nothing in /etc/cmdline.d.
        if !read.is_empty() {
            system.arguments.push(Arguments::LineDropIn { path, read });
        } else if tree.exists(KERNEL_CMDLINE) {
            system.arguments.push(cmdline(KERNEL_CMDLINE));
        }
    }
    let config = "/boot/grub/grub.cfg";
    if tree.exists(DEFAULT_GRUB) && tree.exists(config) {
        system.evidence.push(format!("{config} is there"));
        system
            .arguments
            .push(grub("GRUB_CMDLINE_LINUX_DEFAULT", "GRUB_CMDLINE_LINUX"));
        system.refresh.push(mkconfig("grub-mkconfig", config));
    }
}

/// Whether mkinitcpio makes a unified kernel image, which holds its command line.
fn unified_image(tree: &HostTree, system: &mut System) -> bool {
    let folder = "/etc/mkinitcpio.d";
    let names = tree.list(folder).unwrap_or_default();
    let preset = names.iter().filter(|name| name.ends_with(".preset")).find(|name| {
        let text = tree.text(format!("{folder}/{name}")).unwrap_or_default();
        text.lines().any(|line| {
            line.trim()
                .split_once('=')
                .is_some_and(|(key, _)| key.ends_with("_uki") && !key.starts_with('#'))
        })
    });
    if let Some(name) = preset {
        system
            .evidence
            .push(format!("{folder}/{name} makes a unified kernel image"));
    }
    preset.is_some()
}

fn suse(tree: &HostTree, system: &mut System) {
    let sysconfig = tree.text("/etc/sysconfig/bootloader").unwrap_or_default();
    let loader = sysconfig
        .lines()
        .find_map(|line| line.trim().strip_prefix("LOADER_TYPE="))
        .map_or("", |value| value.trim_matches(['"', '\'']));
    if !loader.is_empty() {
        system
            .evidence
            .push(format!("/etc/sysconfig/bootloader: LOADER_TYPE={loader}"));
    }
    let by_entries = matches!(loader, "grub2-bls" | "systemd-boot");
    if by_entries {
        if tree.exists(KERNEL_CMDLINE) {
            system.arguments.push(cmdline(KERNEL_CMDLINE));
            let why = "writes the arguments into every boot entry";
            system.refresh.push(Command::new("sdbootutil update-all-entries", why));
        }
    } else if tree.exists(DEFAULT_GRUB) {
        system
            .arguments
            .push(grub("GRUB_CMDLINE_LINUX_DEFAULT", "GRUB_CMDLINE_LINUX"));
        system.refresh.push(mkconfig("grub2-mkconfig", "/boot/grub2/grub.cfg"));
    }
}
