//! Which functions the default routes leave through, under bridges, bonds, teams and VLANs.

use std::collections::BTreeSet;

use super::{Found, Use};
use crate::host::HostTree;

/// `include/uapi/linux/route.h`: the route is in use; it refuses.
const RTF_UP: u32 = 0x1;
const RTF_REJECT: u32 = 0x200;

/// More default routes than any host has.
const MOST_ROUTES: usize = 64;

pub(super) fn find(found: &mut Found<'_>) {
    for through in default_interfaces(found.tree).into_iter().take(MOST_ROUTES) {
        for interface in below(found.tree, &through) {
            let owners = found.owners(format!("/sys/class/net/{interface}/device"));
            let what = Use::DefaultRoute {
                through: through.clone(),
                interface,
            };
            found.add_all(&owners, &what);
        }
    }
}

/// The interfaces of the default routes of IPv4 and IPv6.
fn default_interfaces(tree: &HostTree) -> BTreeSet<String> {
    let text = |name: &str| {
        let paths = [format!("/proc/net/{name}"), format!("/proc/self/net/{name}")];
        paths.iter().find_map(|path| tree.text(path).ok()).unwrap_or_default()
    };
    let mut interfaces = BTreeSet::new();
    interfaces.extend(text("route").lines().filter_map(ipv4).map(str::to_owned));
    interfaces.extend(text("ipv6_route").lines().filter_map(ipv6).map(str::to_owned));
    interfaces
}

/// `eth0 00000000 0101A8C0 0003 0 0 100 00000000 …`: interface, destination, gateway, flags, …, mask at the eighth place.
fn ipv4(line: &str) -> Option<&str> {
    let mut fields = line.split_whitespace();
    let interface = fields.next()?;
    let destination = fields.next()?;
    let flags = fields.nth(1)?;
    let mask = fields.nth(3)?;
    let default = destination == "00000000" && mask == "00000000" && is_up(flags);
    (default && is_name(interface)).then_some(interface)
}

/// Destination, its length, …, flags, interface.
fn ipv6(line: &str) -> Option<&str> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let [destination, "00", .., flags, interface] = fields.as_slice() else {
        return None;
    };
    let default = !destination.is_empty() && destination.bytes().all(|digit| digit == b'0') && is_up(flags);
    (default && is_name(interface) && *interface != "lo").then_some(interface)
}

fn is_up(flags: &str) -> bool {
    u32::from_str_radix(flags, 16).is_ok_and(|flags| flags & RTF_UP != 0 && flags & RTF_REJECT == 0)
}

fn is_name(interface: &str) -> bool {
    !interface.contains('/') && interface != ".."
}

/// The interfaces with a device that an interface stands on; itself, if it has one.
fn below(tree: &HostTree, interface: &str) -> BTreeSet<String> {
    let mut with_device = BTreeSet::new();
    let mut seen = BTreeSet::new();
    let mut ahead = vec![interface.to_owned()];
    while let Some(name) = ahead.pop() {
        if !seen.insert(name.clone()) {
            continue;
        }
        let folder = format!("/sys/class/net/{name}");
        let entries = tree.list(&folder).unwrap_or_default();
        if entries.iter().any(|entry| entry == "device") {
            with_device.insert(name.clone());
        }
        let lower = entries.iter().filter_map(|entry| entry.strip_prefix("lower_"));
        ahead.extend(lower.map(str::to_owned));
        ahead.extend(tree.list(format!("{folder}/brif")).unwrap_or_default());
    }
    if with_device.is_empty() {
        with_device = open_vswitch(tree);
    }
    with_device
}

/// The ports of Open vSwitch, whose bridges do not tell what they stand on.
fn open_vswitch(tree: &HostTree) -> BTreeSet<String> {
    if !tree.exists("/sys/class/net/ovs-system") {
        return BTreeSet::new();
    }
    let names = tree.list("/sys/class/net").unwrap_or_default();
    let is_port = |name: &String| {
        let master = tree.link_name(format!("/sys/class/net/{name}/master"));
        master.as_deref() == Some("ovs-system") && tree.exists(format!("/sys/class/net/{name}/device"))
    };
    names.into_iter().filter(is_port).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_routes_are_told_from_others() {
        for (line, expected) in [
            (
                "enp3s0\t00000000\t0101A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0",
                Some("enp3s0"),
            ),
            ("ppp0 00000000 00000000 0001 0 0 0 00000000 0 0 0", Some("ppp0")),
            ("eth1 00000000 0101A8C0 0003 0 0 0 00000080 0 0 0", None),
            ("eth1 0000000A 00000000 0001 0 0 0 000000FF 0 0 0", None),
            ("eth1 00000000 00000000 0200 0 0 0 00000000 0 0 0", None),
            ("../x 00000000 00000000 0001 0 0 0 00000000 0 0 0", None),
            ("Iface Destination Gateway Flags RefCnt Use Metric Mask", None),
            ("eth0", None),
        ] {
            assert_eq!(ipv4(line), expected, "{line}");
        }
        let zeros = "0".repeat(32);
        for (line, expected) in [
            (
                format!("{zeros} 00 {zeros} 00 fe80 00000400 00000001 00000000 00000003 br0"),
                Some("br0"),
            ),
            (
                format!("{zeros} 00 {zeros} 00 {zeros} ffffffff 00000001 00000000 00200200 lo"),
                None,
            ),
            (
                format!("{zeros} 80 {zeros} 00 {zeros} 00000000 00000001 00000000 00000001 eth0"),
                None,
            ),
            ("00".to_owned(), None),
        ] {
            assert_eq!(ipv6(&line), expected, "{line}");
        }
    }
}
