//! From the addresses a user named to the IOMMU groups that must be opened for them. The group is the unit of
//! isolation: what is in it goes to the guest together or not at all.

use std::collections::BTreeMap;

use crate::host::{Bdf, HostFunction, Sysfs, SysfsError};

/// Why the named functions cannot be assigned.
#[derive(Debug, thiserror::Error)]
pub enum SelectionError {
    /// The host does not have the function, or its facts cannot be read.
    #[error(transparent)]
    Host(#[from] SysfsError),
    /// The same function twice.
    #[error("{0} is named twice")]
    Twice(Bdf),
    /// A bridge cannot be assigned.
    #[error("{0} is a bridge; a bridge stays with the host: name the functions behind it")]
    Bridge(Box<HostFunction>),
    /// There is no IOMMU group.
    #[error(
        "{0} is in no IOMMU group: no IOMMU is active; turn on VT-d or AMD-Vi in the firmware setup and, with an Intel \
         processor, boot with intel_iommu=on"
    )]
    NoIommu(Bdf),
    /// Another driver has the function.
    #[error(
        "{function} is not on vfio-pci; bind it first: {}; or let the run take it, with --bind",
        bind_hint(std::slice::from_ref(&**function))
    )]
    NotOnVfio {
        /// The function and its present driver.
        function: Box<HostFunction>,
    },
    /// Some functions of the group were left out.
    #[error(
        "{named} shares IOMMU group {group} with functions that were not named: {}; a group is assigned as a whole, so \
         name them too: {}",
        list(missing),
        device_flags(missing)
    )]
    Incomplete {
        /// One of the named functions of the group.
        named: Bdf,
        /// The group.
        group: u32,
        /// The functions left out.
        missing: Vec<HostFunction>,
    },
}

/// The functions to assign, by group, checked.
#[derive(Debug, Clone)]
pub struct Selection {
    /// IOMMU group number to the named functions in it, in order of address.
    pub groups: BTreeMap<u32, Vec<HostFunction>>,
}

impl Selection {
    /// Checks the named functions against the host.
    ///
    /// # Errors
    /// See [`SelectionError`]: each refusal names the functions and what to do.
    pub fn new(sysfs: &Sysfs, named: &[Bdf]) -> Result<Self, SelectionError> {
        let mut groups: BTreeMap<u32, Vec<HostFunction>> = BTreeMap::new();
        for (position, bdf) in named.iter().enumerate() {
            if named.iter().take(position).any(|earlier| earlier == bdf) {
                return Err(SelectionError::Twice(*bdf));
            }
            let function = sysfs.function(*bdf)?;
            if function.is_bridge() {
                return Err(SelectionError::Bridge(Box::new(function)));
            }
            let group = function.group.ok_or(SelectionError::NoIommu(*bdf))?;
            groups.entry(group).or_default().push(function);
        }
        for (group, functions) in &mut groups {
            functions.sort_by_key(|function| function.bdf);
            complete(sysfs, *group, functions)?;
        }
        // Completeness comes first: one message then says all that is missing, whatever driver holds it.
        match groups.values().flatten().find(|function| !function.on_vfio()) {
            Some(function) => Err(SelectionError::NotOnVfio {
                function: Box::new(function.clone()),
            }),
            None => Ok(Self { groups }),
        }
    }

    /// All functions in order of address.
    pub fn functions(&self) -> Vec<&HostFunction> {
        let mut all: Vec<&HostFunction> = self.groups.values().flatten().collect();
        all.sort_by_key(|function| function.bdf);
        all
    }

    /// Whether a display controller is among them.
    pub fn has_display(&self) -> bool {
        self.groups.values().flatten().any(HostFunction::is_display)
    }
}

/// Functions on pci-stub do not spoil a group: nothing drives them. Bridges are left out of the count as well: root ports and switch ports stay on `pcieport`, and a chipset's LPC bridge is no
/// use to a guest. Whether the driver of one spoils the group is the kernel's to say, when the group is opened.
fn complete(sysfs: &Sysfs, group: u32, named: &[HostFunction]) -> Result<(), SelectionError> {
    let missing: Vec<HostFunction> = sysfs
        .group_members(group)?
        .into_iter()
        .filter(|member| {
            !member.is_bridge() && !member.on_stub() && named.iter().all(|function| function.bdf != member.bdf)
        })
        .collect();
    match named.first() {
        Some(first) if !missing.is_empty() => Err(SelectionError::Incomplete {
            named: first.bdf,
            group,
            missing,
        }),
        _ => Ok(()),
    }
}

/// The functions on one line.
pub(crate) fn list(functions: &[HostFunction]) -> String {
    functions.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn device_flags(functions: &[HostFunction]) -> String {
    functions
        .iter()
        .map(|function| format!("--device {}", function.bdf))
        .collect::<Vec<_>>()
        .join(" ")
}

/// How functions are freed from the drivers that hold them: most go to vfio-pci; a bridge, which that does not take, needs
/// no driver at all.
pub(crate) fn bind_hint(functions: &[HostFunction]) -> String {
    let (bridges, others): (Vec<&HostFunction>, Vec<&HostFunction>) =
        functions.iter().partition(|function| function.is_bridge());
    let addresses: Vec<String> = others.iter().map(|function| function.bdf.to_string()).collect();
    let bind = (!addresses.is_empty()).then(|| format!("`tenon bind {}`", addresses.join(" ")));
    let unbind = bridges.iter().map(|bridge| {
        let driver = bridge.driver.as_deref().unwrap_or("its driver");
        format!(
            "unbind {driver} from the bridge {}, which needs no driver and is not for vfio-pci",
            bridge.bdf
        )
    });
    bind.into_iter().chain(unbind).collect::<Vec<_>>().join(", and ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::sysfs::tests::Host;

    fn gaming_host() -> Host {
        Host::new()
            .with("0000:00:01.0", 0x060400, Some("pcieport"), Some(1))
            .with("0000:01:00.0", 0x030000, Some("vfio-pci"), Some(1))
            .with("0000:01:00.1", 0x040300, Some("vfio-pci"), Some(1))
            .with("0000:00:1b.0", 0x040300, Some("snd_hda_intel"), Some(6))
            .with("0000:03:00.0", 0x010802, Some("vfio-pci"), None)
    }

    fn select(named: &[&str]) -> Result<Selection, SelectionError> {
        let named: Vec<Bdf> = named.iter().map(|text| text.parse().unwrap()).collect();
        Selection::new(&gaming_host().sysfs(), &named)
    }

    #[test]
    fn a_whole_group_is_taken_without_its_bridge() {
        let selection = select(&["01:00.1", "01:00.0"]).unwrap();
        assert_eq!(selection.groups.keys().copied().collect::<Vec<_>>(), [1]);
        assert_eq!(selection.functions()[0].bdf.function, 0);
        assert!(selection.has_display());
    }

    #[test]
    fn half_a_group_is_refused_with_the_rest() {
        let message = select(&["01:00.0"]).unwrap_err().to_string();
        assert!(
            message.contains("--device 0000:01:00.1") && message.contains("group 1"),
            "{message}"
        );
        assert!(!message.contains("00:01.0"), "{message}");
    }

    #[test]
    fn refusals_name_what_to_do() {
        for (named, expected) in [
            (&["00:1b.0"][..], "driver snd_hda_intel"),
            (&["00:1b.0"], "bind it first: `tenon bind 0000:00:1b.0`"),
            (&["09:00.0"], "no PCI function 0000:09:00.0"),
            (&["00:01.0"], "is a bridge"),
            (&["03:00.0"], "VT-d or AMD-Vi"),
            (&["01:00.0", "01:00.0"], "named twice"),
        ] {
            let message = select(named).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }
}
