//! The files under `/dev/vfio`: there, and open to this user.

use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::{Facts, Finding, Requirement, Section};

pub(super) const FILES: Requirement = Requirement {
    id: "vfio-files",
    title: "VFIO files",
    section: Section::Devices,
    look: files,
};

/// Only of the running host, and only of groups that are on vfio-pci: others have no file.
fn files(facts: &Facts) -> Vec<Finding> {
    if !facts.tree.is_live() {
        return Vec::new();
    }
    let mut groups: Vec<u32> = facts
        .subjects()
        .iter()
        .filter(|function| function.facts.on_vfio())
        .filter_map(|function| function.facts.group)
        .collect();
    groups.sort_unstable();
    groups.dedup();
    groups
        .into_iter()
        .map(|group| file(&Path::new("/dev/vfio").join(group.to_string())))
        .collect()
}

fn file(path: &Path) -> Finding {
    let name = path.display();
    let opened = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_CLOEXEC)
        .open(path);
    match opened {
        Ok(_) => Finding::pass(format!("{name} can be opened")),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Finding::fail(format!("you may not open {name}"))
            .remedy(
                "as root, or a udev rule: SUBSYSTEM==\"vfio\", GROUP=\"kvm\", MODE=\"0660\", and be in the group kvm",
            )
            .symptom("vfio-permission"),
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
            Finding::fail(format!("{name} is in use by another virtual machine"))
                .remedy(format!("stop it: `fuser -v {name}` names its process"))
                .symptom("group-busy")
        }
        Err(error) => Finding::fail(format!("{name}: {error}")).symptom("not-on-vfio"),
    }
}
