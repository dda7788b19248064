//! `/dev/kvm`: there, and open to this user.

use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use super::{Facts, Finding, Requirement, Section, Vendor};
use crate::host::HostTree;

pub(super) const KVM: Requirement = Requirement {
    id: "kvm",
    title: "KVM",
    section: Section::Machine,
    look: kvm,
};

const DEVICE: &str = "/dev/kvm";

fn kvm(facts: &Facts) -> Vec<Finding> {
    let module = match facts.vendor() {
        Vendor::Amd => "kvm_amd",
        _ => "kvm_intel",
    };
    let loaded = facts.tree.is_dir(Path::new("/sys/module").join(module));
    if !facts.tree.is_live() {
        return vec![match facts.tree.exists(DEVICE) {
            true => Finding::pass(format!("{DEVICE} is there; a capture does not tell who may open it")),
            false if loaded => Finding::unknown(format!(
                "{module} is loaded; a capture does not tell who may open {DEVICE}"
            )),
            false => Finding::unknown(format!("a capture does not tell of {DEVICE}")),
        }];
    }
    let opened = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_CLOEXEC)
        .open(DEVICE);
    vec![match opened {
        Ok(_) => Finding::pass(format!("{DEVICE} can be opened")),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            Finding::fail(format!("{DEVICE} is there, but you may not open it"))
                .remedy(permission(&facts.tree))
                .symptom("vfio-permission")
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Finding::fail(format!("{DEVICE} is not there"))
            .remedy(format!(
                "`modprobe {module}`; if that fails, turn virtualisation on in the firmware setup"
            ))
            .symptom("kvm-disabled"),
        Err(error) => Finding::fail(format!("{DEVICE} cannot be opened: {error}"))
            .remedy(format!("`modprobe {module}`, and see what `dmesg` says of kvm")),
    }]
}

/// The group that owns the device is the one to join.
fn permission(tree: &HostTree) -> String {
    let gid = std::fs::metadata(DEVICE).map_or(0, |file| file.gid());
    let groups = tree.text("/etc/group").unwrap_or_default();
    let name = groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(gid)).then(|| name.to_owned())
    });
    match name {
        Some(name) if gid != 0 => format!("`sudo usermod -aG {name} $USER`, then log in anew; or run as root"),
        _ => "run as root, or let a udev rule give it to the group kvm: KERNEL==\"kvm\", GROUP=\"kvm\", MODE=\"0660\""
            .to_owned(),
    }
}
