//! Arguments that a program keeps instead of a file: rpm-ostree on image-based systems, kernelstub on Pop!_OS. Tenon
//! edits nothing there, but says what to run, and notes what that adds, to be able to say how it is taken back.

use serde::{Deserialize, Serialize};

use super::arguments;
use super::claim::Claimed;
use super::plan::Command;

/// A program that keeps the kernel's arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Program {
    RpmOstree,
    Kernelstub,
}

/// What a program was told.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// Arguments to add.
    pub given: Vec<String>,
    /// Arguments to take away, which were there before.
    pub withdrawn: Vec<String>,
}

impl Told {
    pub(super) fn is_empty(&self) -> bool {
        self.given.is_empty() && self.withdrawn.is_empty()
    }

    /// What it has to be told so that the wanted arguments are in force, given what it was told before. The kernel's
    /// command line says what it keeps, but lags behind until the next boot.
    pub(super) fn for_arguments(in_force: &[String], wanted: &[String], before: &Self, replace: bool) -> Self {
        let mut pristine: Vec<String> = in_force
            .iter()
            .filter(|word| !before.given.contains(word))
            .cloned()
            .collect();
        pristine.extend(before.withdrawn.iter().filter(|word| !in_force.contains(word)).cloned());
        let unwanted = |word: &String| replace && arguments::replaced(word, wanted);
        let (withdrawn, rest): (Vec<String>, Vec<String>) = pristine.into_iter().partition(unwanted);
        Self {
            given: arguments::missing(&rest, wanted),
            withdrawn,
        }
    }

    /// What takes it all back.
    pub(super) fn reversed(&self) -> Self {
        Self {
            given: self.withdrawn.clone(),
            withdrawn: self.given.clone(),
        }
    }

    /// The same, and takes away what was given before and is not any more.
    pub(super) fn after(&self, before: &Self) -> Self {
        let stale = before.given.iter().filter(|word| !self.given.contains(word));
        let mut told = self.clone();
        told.withdrawn.extend(stale.cloned());
        told
    }
}

impl Program {
    /// The commands that tell it.
    pub(super) fn commands(self, told: &Told) -> Vec<Command> {
        if told.is_empty() {
            return Vec::new();
        }
        match self {
            Self::RpmOstree => {
                let delete = told.withdrawn.iter().map(|word| format!("--delete-if-present={word}"));
                let append = told.given.iter().map(|word| format!("--append-if-missing={word}"));
                let start = ["rpm-ostree", "kargs"].map(str::to_owned).into_iter();
                vec![Command {
                    words: start.chain(delete).chain(append).collect(),
                    why: "makes a deployment with the arguments changed",
                }]
            }
            Self::Kernelstub => {
                let why = "changes the arguments of the boot entry";
                let of = |flag: &str, words: &[String]| {
                    let line = words.join(" ");
                    (!words.is_empty()).then(|| Command::of(&["kernelstub", flag, &line], why))
                };
                let delete = of("--delete-options", &told.withdrawn);
                delete.into_iter().chain(of("--add-options", &told.given)).collect()
            }
        }
    }
}

/// What has the modules of VFIO put into the initramfs of each deployment.
pub(super) fn rpm_ostree_initramfs(functions: &[Claimed], vfio_built_in: bool) -> Option<Command> {
    let words = [
        "rpm-ostree",
        "initramfs",
        "--enable",
        "--arg=--force-drivers",
        "--arg=vfio_pci vfio vfio_iommu_type1",
    ];
    let needed = !functions.is_empty() && !vfio_built_in;
    needed.then(|| Command::of(&words, "puts vfio-pci into the initramfs of each deployment"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(words: &[&str]) -> Vec<String> {
        words.iter().map(ToString::to_string).collect()
    }

    fn lines(program: Program, told: &Told) -> Vec<String> {
        program.commands(told).iter().map(Command::line).collect()
    }

    #[test]
    fn programs_are_told_the_difference() {
        let wanted = of(&["iommu=pt", "vfio-pci.ids=1:2"]);
        let there = of(&["ro", "iommu=pt", "pci-stub.ids=3:4"]);
        let first = Told::for_arguments(&there, &wanted, &Told::default(), true);
        assert_eq!(
            lines(Program::RpmOstree, &first),
            ["rpm-ostree kargs --delete-if-present=pci-stub.ids=3:4 --append-if-missing=vfio-pci.ids=1:2"]
        );
        // Before the reboot, and after it, it is told the same.
        assert_eq!(Told::for_arguments(&there, &wanted, &first, true), first);
        let booted = of(&["ro", "iommu=pt", "vfio-pci.ids=1:2"]);
        assert_eq!(Told::for_arguments(&booted, &wanted, &first, true), first);

        // Other devices take the place of the first; what was there before comes back in the end.
        let other = of(&["iommu=pt", "vfio-pci.ids=5:6"]);
        let second = Told::for_arguments(&booted, &other, &first, true);
        assert_eq!(second.given, ["vfio-pci.ids=5:6"]);
        assert_eq!(second.after(&first).withdrawn, ["pci-stub.ids=3:4", "vfio-pci.ids=1:2"]);
        assert_eq!(
            lines(Program::Kernelstub, &second.reversed()),
            [
                "kernelstub --delete-options vfio-pci.ids=5:6",
                "kernelstub --add-options pci-stub.ids=3:4"
            ]
        );
    }
}
