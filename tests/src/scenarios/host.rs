//! Contracts of the lab itself: if these do not hold, nothing that the other scenarios say means anything.

use std::path::Path;
use std::time::Duration;

use crate::lab::{LabHost, Set, bdf};
use crate::scenario::{Failure, Scenario, Wish};

const LIMIT: Duration = Duration::from_secs(60);

/// The host boots its set's kernel, has KVM with nested paging, and the IOMMU groups of the machine that tenon is for.
#[derive(Debug)]
pub struct Stands(pub Set);

impl Scenario for Stands {
    fn name(&self) -> &'static str {
        match self.0 {
            Set::New => "lab-host-new",
            Set::Old => "lab-host-old",
        }
    }

    fn shows(&self) -> &'static str {
        "the lab host has KVM with nested paging, the right IOMMU groups, and lends its functions to vfio-pci and back"
    }

    fn wish(&self) -> Wish {
        Wish::of(self.0)
    }

    fn run(&self, host: &mut LabHost, _logs: &Path) -> Result<(), Failure> {
        let release = host.check("uname -r", LIMIT)?;
        let version = if self.0 == Set::New { "6.12." } else { "6.1." };
        Failure::unless(release.starts_with(version), || format!("the kernel is {release}"))?;
        host.check("test -c /dev/kvm && grep -q 1 /sys/module/kvm_amd/parameters/npt || grep -q Y /sys/module/kvm_amd/parameters/npt", LIMIT)?;
        groups(host)?;
        lending(host)
    }
}

fn groups(host: &mut LabHost) -> Result<(), Failure> {
    let mut members = |bdf: &str| -> Result<Vec<String>, Failure> {
        Ok(host
            .check(&format!("members_of $(group_of {bdf})"), LIMIT)?
            .lines()
            .map(str::to_owned)
            .collect())
    };
    for (bdf, wanted) in [(bdf::GPU, vec![bdf::GPU, bdf::HDMI]), (bdf::HDA, vec![bdf::HDA])] {
        let found = members(bdf)?;
        Failure::unless(found == wanted, || {
            format!("the group of {bdf} is {found:?}, not {wanted:?}")
        })?;
    }
    Ok(())
}

fn lending(host: &mut LabHost) -> Result<(), Failure> {
    let all = [bdf::GPU, bdf::HDMI, bdf::HDA].join(" ");
    // Twice: what was given back can be had again.
    for _ in 0..2 {
        host.check(
            &format!("bind_vfio {all} && for f in {all}; do test -c /dev/vfio/$(group_of $f) || exit 1; done"),
            LIMIT,
        )?;
        host.check(
            &format!("unbind_vfio {all} && for f in {all}; do test \"$(driver_of $f)\" != vfio-pci || exit 1; done"),
            LIMIT,
        )?;
    }
    let nodes = host.check("ls /dev/vfio", LIMIT)?;
    Failure::unless(nodes.trim() == "vfio", || format!("/dev/vfio still has {nodes}"))
}
