//! The processor's virtualisation, and whether there is another hypervisor below.

use super::{Facts, Finding, Requirement, Section, Vendor};

pub(super) const VIRTUALISATION: Requirement = Requirement {
    id: "virtualisation",
    title: "CPU virtualisation",
    section: Section::Machine,
    look: virtualisation,
};

fn virtualisation(facts: &Facts) -> Vec<Finding> {
    let Some(processor) = &facts.processor else {
        return vec![facts.not_said("/proc/cpuinfo")];
    };
    let (flag, name, option) = match processor.vendor {
        Vendor::Amd => ("svm", "SVM", "`SVM Mode`"),
        _ => ("vmx", "VT-x", "`Intel Virtualization Technology`"),
    };
    let disabled = facts
        .log
        .find("disabled by bios")
        .or_else(|| facts.log.find("(by BIOS)"));
    // Some kernels of virtual machines have a KVM that needs no such flag.
    let runs = facts.tree.exists("/dev/kvm");
    vec![match (processor.has(flag), disabled) {
        (true, None) => Finding::pass(format!("{name} ({flag}) on {}", processor.model)),
        (true, Some(_)) => Finding::fail(format!("{name} is there, but the firmware keeps it switched off"))
            .remedy(format!("turn on {option} in the firmware setup, then power off once"))
            .symptom("kvm-disabled"),
        (false, None) if runs => Finding::pass(format!("no `{flag}` among its flags, but KVM runs all the same")),
        (false, _) if processor.has("hypervisor") => {
            Finding::fail(format!("this virtual machine was not given {name} ({flag})")).remedy(
                "on the machine below, allow nesting (kvm_intel.nested=1 or kvm_amd.nested=1) and give this one \
                     the processor as it is (host-passthrough)",
            )
        }
        (false, _) => Finding::fail(format!("no `{flag}` among the flags of {}", processor.model))
            .remedy(format!("turn on {option} in the firmware setup, then power off once"))
            .symptom("kvm-disabled"),
    }]
}

pub(super) const NESTED: Requirement = Requirement {
    id: "nested",
    title: "Nested",
    section: Section::Machine,
    look: nested,
};

fn nested(facts: &Facts) -> Vec<Finding> {
    match &facts.processor {
        Some(processor) if processor.has("hypervisor") => vec![Finding::warn(
            "this host is a virtual machine itself: it can give away only what the machine below gave it, and only \
             with a virtual IOMMU",
        )],
        _ => Vec::new(),
    }
}
