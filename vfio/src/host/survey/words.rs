//! The survey's findings in words: short for a table, with the why and the remedy for who asks.

use std::fmt;

use super::{Anomaly, Reason, Use};
use crate::host::Bdf;

/// `01:00.0`; the domain only where it is not 0, which it seldom is.
pub fn short(bdf: Bdf) -> String {
    let full = bdf.to_string();
    full.strip_prefix("0000:").map(str::to_owned).unwrap_or(full)
}

/// The addresses on one line.
pub fn short_list(bdfs: &[Bdf]) -> String {
    bdfs.iter().map(|bdf| short(*bdf)).collect::<Vec<_>>().join(" ")
}

impl fmt::Display for Use {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mount { at, disk } => write!(f, "holds {at} ({disk})"),
            Self::Swap { on, disk } => write!(f, "holds swap {on} ({disk})"),
            Self::DefaultRoute { through, interface } if through == interface => {
                write!(f, "carries the default route ({interface})")
            }
            Self::DefaultRoute { through, interface } => {
                write!(f, "carries the default route ({through} over {interface})")
            }
            Self::OnlyDisplay => f.write_str("the only display"),
            Self::Console { by } => write!(f, "has the console ({by})"),
            Self::Screens(screens) => write!(f, "has screens ({})", screens.join(", ")),
            Self::Keyboard { only: true } => f.write_str("has the only keyboard"),
            Self::Keyboard { only: false } => f.write_str("has a keyboard"),
            Self::Vm { pid, name } if name.is_empty() => write!(f, "in use by process {pid}"),
            Self::Vm { pid, name } => write!(f, "in use by {name} ({pid})"),
            Self::VirtualFunctions(1) => f.write_str("has a virtual function enabled"),
            Self::VirtualFunctions(count) => write!(f, "has {count} virtual functions enabled"),
        }
    }
}

impl Use {
    /// What happens to the host when the function is taken from it.
    pub fn consequence(&self) -> &'static str {
        match self {
            Self::Mount { .. } | Self::Swap { .. } => {
                "The disk disappears from the host while it is in use; its data may be lost."
            }
            Self::DefaultRoute { .. } => "The host loses its way to the network.",
            Self::OnlyDisplay => "Nothing is left that shows the host's console; keep another way in, like ssh.",
            Self::Console { .. } => "The console goes dark until another display takes it over.",
            Self::Screens(_) => "What is shown on these screens, a desktop session too, ends or goes dark.",
            Self::Keyboard { only: true } => "The host has no keyboard until the guest gives it back.",
            Self::Keyboard { only: false } => "The keyboard on it goes to the guest; others stay.",
            Self::Vm { .. } => "A function has one owner at a time.",
            Self::VirtualFunctions(_) => "Linux refuses to give away a physical function that has virtual ones.",
        }
    }

    /// What to do so that the function can be taken, where there is something; `bdf` is the function in use.
    pub fn remedy(&self, bdf: Bdf) -> Option<String> {
        Some(match self {
            Self::Mount { at, .. } if at == "/" => return None,
            Self::Mount { at, .. } => format!("if the host can do without it: `umount {}`", quoted(at)),
            Self::Swap { on, .. } => format!("if the host can do without it: `swapoff {}`", quoted(on)),
            Self::DefaultRoute { .. } => {
                "give the host another network interface with a default route first".to_owned()
            }
            Self::OnlyDisplay => {
                "with another way in: `--yes-this-is-my-display`; else add a second display, or turn on the \
                 processor's own graphics in the firmware setup"
                    .to_owned()
            }
            Self::Vm { .. } => "shut that machine down first".to_owned(),
            Self::VirtualFunctions(_) => format!("`echo 0 > /sys/bus/pci/devices/{bdf}/sriov_numvfs`"),
            Self::Keyboard { only: true } => "plug the keyboard into a port of another controller".to_owned(),
            Self::Console { .. } | Self::Screens(_) | Self::Keyboard { only: false } => return None,
        })
    }
}

/// A word for the shell.
fn quoted(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+,@:".contains(&byte);
    match text.bytes().all(plain) {
        true => text.to_owned(),
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

impl Reason {
    /// The reason in a few words, said of one function.
    pub fn brief(&self, of: Bdf) -> String {
        match self {
            Self::Bridge => "bridge".to_owned(),
            Self::NoGroup => "in no IOMMU group".to_owned(),
            Self::InUse { by, what } if *by == of => what.to_string(),
            Self::InUse {
                by,
                what: Use::OnlyDisplay,
            } => format!("{} is the only display", short(*by)),
            Self::InUse { by, what } => format!("{} {what}", short(*by)),
            Self::Reserved { group, .. } => format!("the firmware maps memory for group {group}"),
            Self::BridgeDriver { bridge, driver } => {
                format!("bridge {} in the group has driver {driver}", short(*bridge))
            }
        }
    }

    /// Why that is so.
    pub fn explanation(&self, of: Bdf) -> String {
        match self {
            Self::Bridge => {
                "A bridge stays with the host; the functions behind it are what a guest can have.".to_owned()
            }
            Self::NoGroup => "No IOMMU translates its memory accesses, so nothing would keep a guest from the host's \
                              memory."
                .to_owned(),
            Self::InUse { by, what } if *by == of => what.consequence().to_owned(),
            Self::InUse { by, what } => {
                format!("{} has to go with it. {}", short(*by), what.consequence())
            }
            Self::Reserved { region, .. } => format!(
                "The firmware wants {:#x}-{:#x} mapped one to one for a device of the group at all times (RMRR or IVMD; \
                 `direct` in reserved_regions), which no guest can have.",
                region.start, region.end
            ),
            Self::BridgeDriver { bridge, driver } => format!(
                "Linux gives the group away only when no driver of the host is left in it, and {driver} is on {}.",
                short(*bridge)
            ),
        }
    }

    /// What to do about it, where there is something.
    pub fn remedy(&self) -> Option<String> {
        Some(match self {
            Self::Bridge => return None,
            Self::NoGroup => {
                "turn on VT-d or AMD-Vi (\"IOMMU\") in the firmware setup and, with an Intel processor, boot \
                              with intel_iommu=on; `tenon check` tells which of it is missing"
                    .to_owned()
            }
            Self::InUse { by, what } => return what.remedy(*by),
            Self::Reserved { .. } => "turn off what needs it in the firmware setup (management agents, pre-boot DMA \
                                      protection, USB legacy support) or try another slot"
                .to_owned(),
            Self::BridgeDriver { bridge, driver } => format!(
                "`echo {bridge} > /sys/bus/pci/drivers/{driver}/unbind`; the host loses what {driver} does (for lpc_ich: \
                 watchdog and GPIO)"
            ),
        })
    }
}

impl Anomaly {
    /// What is wrong, in one line.
    pub fn title(&self) -> String {
        match self {
            Self::HalfTaken { taken, missing, .. } => format!(
                "{} set aside for a guest, but not {} that must go with {}",
                are(taken),
                short_list(missing),
                if taken.len() == 1 { "it" } else { "them" },
            ),
            Self::TakenInstead { function, .. } => {
                format!("{} is set aside, most likely by mistake", short(*function))
            }
            Self::OnStub(on_stub) => format!("{} on pci-stub", are(on_stub)),
            Self::NoDisplayLeft(displays) => match displays.as_slice() {
                [only] => format!(
                    "the only display, {}, is set aside: the host has none left",
                    short(*only)
                ),
                all => format!(
                    "all displays ({}) are set aside: the host has none left",
                    short_list(all)
                ),
            },
        }
    }

    /// What comes of it and what to do.
    pub fn explanation(&self) -> String {
        match self {
            Self::HalfTaken { missing, .. } => format!(
                "On kernels before 5.19 a guest may start so, and the host crashes when the guest shuts down and the whole \
                 card is reset under the driver that holds the rest; later kernels refuse to start it. Give {} to vfio-pci \
                 as well: `tenon bind {}` now, `tenon boot-args` for good.",
                short_list(missing),
                short_list(missing)
            ),
            Self::TakenInstead { missing, .. } => format!(
                "The host has its own use for it, while {missing} is missing beside its siblings: an address or an ID was \
                 mixed up. Take its ID out of the kernel arguments and put that of {missing} in.",
                missing = short_list(missing)
            ),
            Self::OnStub(on_stub) => format!(
                "pci-stub keeps other drivers away, but a guest gets a function from vfio-pci alone, and pci-stub can \
                 neither reset it nor let it sleep. `tenon bind {}` moves it over.",
                short_list(on_stub)
            ),
            Self::NoDisplayLeft(_) => {
                "Its console cannot be seen; keep another way in, like ssh, or release one.".to_owned()
            }
        }
    }
}

fn are(bdfs: &[Bdf]) -> String {
    format!("{} {}", short_list(bdfs), if bdfs.len() == 1 { "is" } else { "are" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_name_the_culprit_and_the_remedy() {
        let bdf = |text: &str| text.parse::<Bdf>().unwrap();
        let what = Use::Mount {
            at: "/my data".to_owned(),
            disk: "sda".to_owned(),
        };
        let reason = Reason::InUse {
            by: bdf("00:17.0"),
            what,
        };
        assert_eq!(reason.brief(bdf("00:17.0")), "holds /my data (sda)");
        assert_eq!(reason.brief(bdf("00:17.1")), "00:17.0 holds /my data (sda)");
        assert!(reason.remedy().unwrap().contains("umount '/my data'"));
        let anomaly = Anomaly::HalfTaken {
            unit: vec![bdf("01:00.0"), bdf("01:00.1")],
            taken: vec![bdf("01:00.0")],
            missing: vec![bdf("01:00.1")],
        };
        assert_eq!(
            anomaly.title(),
            "01:00.0 is set aside for a guest, but not 01:00.1 that must go with it"
        );
        assert!(anomaly.explanation().contains("tenon bind 01:00.1"));
    }
}
