//! Network interfaces and the default route. Nobody's addresses: those of documentation.

use std::fmt::Write;

use super::function::place;
use super::source::Host;
use super::storage::full;
use super::{HostError, Tree};

pub(super) fn put(host: &Host, tree: &mut Tree) -> Result<(), HostError> {
    let mut routes =
        String::from("Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n");
    tree.directory("sys/class/net")?;
    for (index, net) in (1u32..).zip(&host.nets) {
        let name = &net.name;
        let at = match &net.on {
            Some(on) => format!("{}/net/{name}", place(host, &full(on))?),
            None => format!("sys/devices/virtual/net/{name}"),
        };
        tree.link(format!("sys/class/net/{name}"), &at)?;
        tree.file(format!("{at}/ifindex"), format!("{index}\n"))?;
        tree.file(format!("{at}/operstate"), "up\n")?;
        if let Some(on) = &net.on {
            tree.link(format!("{at}/device"), place(host, &full(on))?)?;
        }
        match net.kind.as_deref() {
            Some("bridge") => tree.directory(format!("{at}/bridge"))?,
            Some("bond") => tree.directory(format!("{at}/bonding"))?,
            Some(kind) => return Err(HostError::Wrong(format!("{name}: {kind} is neither bridge nor bond"))),
            None => {}
        }
        if let Some(master) = &net.master {
            let above = format!("sys/devices/virtual/net/{master}");
            tree.link(format!("{at}/master"), &above)?;
            tree.link(format!("{at}/upper_{master}"), &above)?;
            tree.link(format!("{above}/lower_{name}"), &at)?;
            if host
                .nets
                .iter()
                .any(|net| net.name == *master && net.kind.as_deref() == Some("bridge"))
            {
                tree.link(format!("{above}/brif/{name}"), format!("{at}/brport"))?;
                tree.directory(format!("{at}/brport"))?;
            }
        }
        if net.default_route {
            let _ = writeln!(routes, "{name}\t00000000\t010200C0\t0003\t0\t0\t100\t00000000\t0\t0\t0");
            let _ = writeln!(routes, "{name}\t000200C0\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0");
        }
    }
    tree.file("proc/net/route", routes)?;
    tree.file("proc/net/ipv6_route", "")
}
