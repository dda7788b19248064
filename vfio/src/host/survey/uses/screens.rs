//! Which functions the host shows its face on.

use super::{Found, Use};
use crate::host::{Bdf, HostFunction};

pub(super) fn find(found: &mut Found<'_>) {
    let displays: Vec<&HostFunction> = found.functions.values().copied().filter(|f| f.is_display()).collect();
    let mut left_to_host = Vec::new();
    let mut uses: Vec<(Bdf, Use)> = Vec::new();
    for display in displays.iter().filter(|display| !display.is_set_aside()) {
        let screens = screens(found, display.bdf);
        // A 3D or other display controller without a screen is a helper of the one that has them, as in laptops.
        if display.class >> 8 == 0x0300 || !screens.is_empty() {
            left_to_host.push(display.bdf);
        }
        if !screens.is_empty() {
            uses.push((display.bdf, Use::Screens(screens)));
        }
        if display.boot_vga == Some(true) {
            let by = "boot_vga".to_owned();
            uses.push((display.bdf, Use::Console { by }));
        }
    }
    for name in frame_buffers(found) {
        for owner in found.owners(format!("/sys/class/graphics/{name}/device")) {
            uses.push((owner, Use::Console { by: name.clone() }));
        }
    }
    if let [only] = left_to_host.as_slice() {
        uses.retain(|(bdf, what)| bdf != only || matches!(what, Use::Screens(_)));
        uses.push((*only, Use::OnlyDisplay));
    }
    for (bdf, what) in uses {
        found.add(bdf, what);
    }
}

/// The connectors that a screen is plugged into.
fn screens(found: &Found<'_>, bdf: Bdf) -> Vec<String> {
    let folder = format!("/sys/bus/pci/devices/{bdf}/drm");
    let mut screens = Vec::new();
    for card in found.tree.list(&folder).unwrap_or_default() {
        let Ok(entries) = found.tree.list(format!("{folder}/{card}")) else {
            continue;
        };
        for entry in entries {
            let Some(connector) = entry.strip_prefix(&format!("{card}-")) else {
                continue;
            };
            let status = found.tree.text(format!("{folder}/{card}/{entry}/status"));
            if status.is_ok_and(|status| status == "connected") {
                screens.push(connector.to_owned());
            }
        }
    }
    screens
}

/// The frame buffers, if a console is on them.
fn frame_buffers(found: &Found<'_>) -> Vec<String> {
    let folder = "/sys/class/vtconsole";
    let consoles = found.tree.list(folder).unwrap_or_default();
    let is_bound = consoles.iter().any(|name| {
        let text = |file: &str| found.tree.text(format!("{folder}/{name}/{file}")).unwrap_or_default();
        text("bind") == "1" && text("name").contains("frame buffer")
    });
    let mut names = match is_bound {
        true => found.tree.list("/sys/class/graphics").unwrap_or_default(),
        false => Vec::new(),
    };
    names.retain(|name| {
        name.strip_prefix("fb")
            .is_some_and(|number| number.parse::<u32>().is_ok())
    });
    names
}
