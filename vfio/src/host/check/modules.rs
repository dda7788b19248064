//! VFIO's modules: built in, loaded, or there to be loaded.

use std::path::{Path, PathBuf};

use super::{Facts, Finding, Requirement, Section};

pub(super) const MODULES: Requirement = Requirement {
    id: "modules",
    title: "VFIO modules",
    section: Section::Machine,
    look: modules,
};

/// The modules that a guest with devices stands on; what they need in turn is loaded with them.
const NEEDED: [&str; 2] = ["vfio_pci", "vfio_iommu_type1"];

enum Place {
    BuiltIn,
    Loaded,
    Loadable,
    Nowhere,
}

fn modules(facts: &Facts) -> Vec<Finding> {
    let places = NEEDED.map(|module| (module, place(facts, module)));
    let lacking = places.iter().filter(|(_, place)| matches!(place, Place::Nowhere));
    let lacking: Vec<&str> = lacking.map(|(module, _)| *module).collect();
    if lacking.is_empty() {
        let said: Vec<String> = places
            .iter()
            .map(|(module, place)| format!("{module} {}", word(place)))
            .collect();
        return vec![Finding::pass(said.join(", "))];
    }
    let Some(directory) = directory(facts) else {
        return vec![facts.not_said("the kernel's modules")];
    };
    if !facts.tree.is_dir(&directory) {
        if !facts.tree.is_live() {
            return vec![facts.not_said("the kernel's modules")];
        }
        let gone = directory.display();
        let others = facts.tree.list("/lib/modules").unwrap_or_default();
        return vec![
            match others.is_empty() {
                true => Finding::fail(format!("this kernel has no VFIO built in, and no modules ({gone})"))
                    .remedy("boot a kernel of a distribution"),
                false => Finding::fail(format!(
                    "{gone} is gone: the kernel was updated since this machine booted"
                ))
                .remedy("reboot into the installed kernel"),
            }
            .symptom("modules-of-another-kernel"),
        ];
    }
    vec![
        Finding::fail(format!(
            "{} neither built in nor in {}",
            lacking.join(" and "),
            directory.display()
        ))
        .remedy(
            "install the distribution's full set of modules for this kernel (linux-modules-extra, kernel-modules), or \
             reboot into the installed kernel",
        )
        .symptom("modules-of-another-kernel"),
    ]
}

fn word(place: &Place) -> &'static str {
    match place {
        Place::BuiltIn => "built in",
        Place::Loaded => "loaded",
        Place::Loadable => "can be loaded",
        Place::Nowhere => "missing",
    }
}

fn directory(facts: &Facts) -> Option<PathBuf> {
    Some(Path::new("/lib/modules").join(&facts.release.as_ref()?.text))
}

fn place(facts: &Facts, module: &str) -> Place {
    // File names have either letter, whatever the module calls itself.
    let lists = |list: &str| {
        let text = directory(facts).and_then(|directory| facts.tree.text(directory.join(list)).ok());
        text.unwrap_or_default().lines().any(|line| {
            let path = line.split(':').next().unwrap_or_default();
            let file = path.rsplit('/').next().unwrap_or_default();
            file.split('.').next().unwrap_or_default().replace('-', "_") == module
        })
    };
    if lists("modules.builtin") {
        return Place::BuiltIn;
    }
    let own = Path::new("/sys/module").join(module);
    let known = facts.tree.is_dir(&own);
    // A module that is built in has a directory only where it has parameters, and no state in it.
    let loaded = ["refcnt", "initstate"]
        .iter()
        .any(|file| facts.tree.exists(own.join(file)));
    match (loaded, lists("modules.dep"), known) {
        (true, _, _) | (false, true, true) => Place::Loaded,
        (false, true, false) => Place::Loadable,
        (false, false, true) => Place::BuiltIn,
        (false, false, false) => Place::Nowhere,
    }
}
