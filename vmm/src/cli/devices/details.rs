//! All about one function.

use vfio::host::limits::Size;
use vfio::host::survey::{Function, Reason, Reset, Survey, Verdict, short, short_list};
use vfio::host::{HostTree, Interrupts, Link, Resource};

use super::groups::notes;
use super::label;
use crate::cli::page::{Page, Tone, clean};

/// Columns before what is said of something.
const LABEL: usize = 13;

/// The place of the expansion ROM among the resources.
const ROM: usize = 6;

/// Writes all that is known of a function.
pub(super) fn write(page: &mut Page, tree: &HostTree, survey: &Survey, function: &Function) {
    let facts = &function.facts;
    let class = function.names.class.as_deref().unwrap_or("Unknown class");
    let title = format!("{}  {} [{:04x}]", facts.bdf, clean(class), facts.class >> 8);
    let title = page.toned(Tone::Strong, &title);
    page.line(&title);
    let revision = facts
        .revision
        .map(|revision| format!(" rev {revision:02x}"))
        .unwrap_or_default();
    let vendor = function.names.vendor.as_deref().unwrap_or("Unknown vendor");
    let device = function.names.device.as_deref().unwrap_or("unknown device");
    item(
        page,
        "device",
        &format!("{vendor} {device} [{}]{revision}", label::ids(function)),
    );
    if let Some(text) = subsystem(function) {
        item(page, "subsystem", &text);
    }
    verdict(page, survey, function);
    for note in notes(survey, function) {
        let consequence = function.uses.iter().find(|what| what.to_string() == note);
        let consequence = consequence
            .map(|what| format!(". {}", what.consequence()))
            .unwrap_or_default();
        item(page, "note", &format!("{note}{consequence}"));
    }
    drivers(page, function);
    place(page, survey, function);
    hardware(page, tree, survey, function);
}

fn subsystem(function: &Function) -> Option<String> {
    let (vendor, device) = function.facts.subsystem?;
    let maker = function.names.subsystem_vendor.as_deref().unwrap_or_default();
    let name = function.names.subsystem.as_deref().unwrap_or_default();
    // Some names begin with their vendor's.
    let name = if name.starts_with(maker) {
        name.to_owned()
    } else {
        format!("{maker} {name}")
    };
    let name = if name.is_empty() { maker } else { name.trim() };
    Some(format!("{name} [{vendor:04x}:{device:04x}]").trim().to_owned())
}

fn item(page: &mut Page, label: &str, text: &str) {
    let first = format!("  {:<width$}", label, width = LABEL - 2);
    page.wrapped(&page.toned(Tone::Faint, &first), &" ".repeat(LABEL), text);
}

fn verdict(page: &mut Page, survey: &Survey, function: &Function) {
    let bdf = function.bdf();
    match &function.verdict {
        Verdict::Yes => item(page, "assignable", "yes"),
        Verdict::WithSiblings(siblings) => {
            let siblings: Vec<String> = siblings
                .iter()
                .filter_map(|bdf| survey.get(*bdf))
                .map(|sibling| format!("{} ({})", short(sibling.bdf()), label::kind(sibling.facts.class)))
                .collect();
            item(
                page,
                "assignable",
                &format!("with its siblings: {}", siblings.join(", ")),
            );
        }
        Verdict::No(reason) => {
            item(page, "assignable", &format!("no: {}", reason.brief(bdf)));
            item(page, "why", &reason.explanation(bdf));
            if let Some(remedy) = reason.remedy() {
                item(page, "remedy", &remedy);
            }
            let others = function.uses.iter().filter(|what| what.forbids());
            for what in others.filter(|what| !matches!(reason, Reason::InUse { what: told, .. } if told == *what)) {
                item(page, "also", &what.to_string());
            }
        }
    }
}

fn drivers(page: &mut Page, function: &Function) {
    let facts = &function.facts;
    item(page, "driver", facts.driver.as_deref().unwrap_or("none"));
    if let Some(name) = &facts.driver_override {
        item(page, "override", name);
    }
    if !function.modules.is_empty() {
        item(page, "modules", &function.modules.join(", "));
    }
}

fn place(page: &mut Page, survey: &Survey, function: &Function) {
    let facts = &function.facts;
    match facts.group {
        Some(number) => {
            let members: Vec<_> = survey.group(number).iter().map(|member| member.bdf()).collect();
            item(page, "group", &format!("{number}: {}", short_list(&members)));
            for region in survey.groups.get(&number).into_iter().flat_map(|group| group.direct()) {
                item(
                    page,
                    "reserved",
                    &format!("{:#x}-{:#x} mapped one to one", region.start, region.end),
                );
            }
        }
        None => item(page, "group", "none"),
    }
    if let Some(parent) = facts.parent {
        item(page, "behind", &short(parent));
    }
    if let Some(physical) = facts.physical {
        item(page, "virtual of", &short(physical));
    }
    if let Some(sriov) = facts.sriov {
        item(
            page,
            "SR-IOV",
            &format!("{} of {} virtual functions enabled", sriov.enabled, sriov.total),
        );
    }
    if let Some(node) = facts.numa_node {
        item(page, "NUMA node", &node.to_string());
    }
}

fn hardware(page: &mut Page, tree: &HostTree, survey: &Survey, function: &Function) {
    let facts = &function.facts;
    for (number, resource) in facts
        .resources
        .iter()
        .enumerate()
        .filter(|(_, resource)| resource.size > 0)
    {
        match number {
            ROM => item(page, "ROM", &Size(resource.size).to_string()),
            _ => item(page, &format!("BAR {number}"), &bar(resource)),
        }
    }
    if let Some(boot_vga) = facts.boot_vga {
        item(page, "boot VGA", if boot_vga { "yes" } else { "no" });
    }
    if let Some(link) = &facts.link {
        item(page, "link", &train(link));
    }
    if !facts.is_bridge() {
        item(page, "reset", &reset(survey, function));
        item(page, "interrupts", &interrupts(tree, function));
    }
    if let Some(state) = &facts.power_state {
        let cold = match facts.d3cold_allowed {
            Some(true) => ", may lose power when idle (D3cold)",
            _ => "",
        };
        item(page, "power", &format!("{state}{cold}"));
    }
}

fn reset(survey: &Survey, function: &Function) -> String {
    match survey.reset(function) {
        Reset::Alone(methods) => methods.join(", else "),
        Reset::WithBus(all) => format!("with its bus, once all on it are the guest's: {}", short_list(&all)),
        Reset::Impossible => "Linux knows no way: a guest gets it as its last user left it".to_owned(),
        Reset::Unknown => "this kernel does not say (5.15 and later do)".to_owned(),
    }
}

fn bar(resource: &Resource) -> String {
    let size = Size(resource.size);
    if resource.is_io() {
        return format!("{size} of ports");
    }
    let wide = if resource.is_64bit() { "64-bit" } else { "32-bit" };
    let prefetch = if resource.is_prefetchable() {
        ", prefetchable"
    } else {
        ""
    };
    let missing = if resource.start == 0 {
        ", no address assigned"
    } else {
        ""
    };
    format!("{size}, {wide}{prefetch}{missing}")
}

fn train(link: &Link) -> String {
    let speed = |text: &str| text.trim_end_matches(" PCIe").to_owned();
    let now = format!("{} x{}", speed(&link.speed), link.width);
    let most = format!("{} x{}", speed(&link.max_speed), link.max_width);
    match (now == most, link.width < link.max_width) {
        (true, _) => now,
        (false, true) => format!("{now} (could be {most})"),
        // The speed of an idle link is lowered to save power.
        (false, false) => format!("{now} (up to {most} when busy)"),
    }
}

fn interrupts(tree: &HostTree, function: &Function) -> String {
    let Some(found) = Interrupts::of(tree, &function.facts) else {
        return "unknown".to_owned();
    };
    let mut kinds = Vec::new();
    kinds.extend(found.msix.map(|count| format!("MSI-X ({count})")));
    kinds.extend(found.msi.map(|count| format!("MSI ({count})")));
    kinds.extend(found.pin.map(|pin| format!("INT{}", char::from(b'A' + (pin - 1) % 4))));
    if !found.complete {
        kinds.push("more is told to root".to_owned());
    }
    if kinds.is_empty() {
        "none".to_owned()
    } else {
        kinds.join(", ")
    }
}
