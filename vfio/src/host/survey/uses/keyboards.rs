//! Which USB controllers have a keyboard: who gives away the last one may be left with none.

use std::collections::BTreeSet;

use super::{Found, Use};
use crate::host::Bdf;

pub(super) fn find(found: &mut Found<'_>) {
    let folder = "/sys/bus/usb/devices";
    let mut controllers: BTreeSet<Bdf> = BTreeSet::new();
    for name in found.tree.list(folder).unwrap_or_default() {
        // Interfaces have a colon in their names, devices have not.
        if !name.contains(':') {
            continue;
        }
        let is = |file: &str, value: &str| {
            let text = found.tree.text(format!("{folder}/{name}/{file}"));
            text.is_ok_and(|text| text == value)
        };
        // Human interface device, protocol keyboard (HID 1.11 §4.3).
        if is("bInterfaceClass", "03") && is("bInterfaceProtocol", "01") {
            controllers.extend(found.owners(format!("{folder}/{name}")));
        }
    }
    let has_other = found
        .tree
        .list("/sys/bus/serio/drivers/atkbd")
        .is_ok_and(|entries| entries.iter().any(|entry| entry.starts_with("serio")));
    let only = controllers.len() == 1 && !has_other;
    for controller in controllers {
        found.add(controller, Use::Keyboard { only });
    }
}
