//! The group view: what goes to a guest together stands together.

use std::collections::BTreeMap;

use vfio::host::Bdf;
use vfio::host::survey::{Function, Reason, Reset, Survey, Use, Verdict, short, short_list};

use super::label;
use crate::cli::page::{Page, Tone, fit, fit_middle};

/// Columns that a driver's name gets.
const DRIVER: usize = 14;

/// Writes the functions by IOMMU group.
pub(super) fn write(page: &mut Page, survey: &Survey, shown: &[&Function]) {
    let mut groups: BTreeMap<Option<u32>, Vec<&Function>> = BTreeMap::new();
    for function in shown {
        groups.entry(function.facts.group).or_default().push(function);
    }
    // What is in no group comes last.
    let ungrouped = groups.remove(&None);
    for (group, members) in groups.into_iter().chain(ungrouped.map(|members| (None, members))) {
        if let ([bridge], Some(number)) = (members.as_slice(), group)
            && bridge.facts.is_bridge()
            && survey.group(number).len() == 1
        {
            only_bridge(page, number, bridge);
            continue;
        }
        let title = group.map_or_else(|| "No group".to_owned(), |number| format!("Group {number}"));
        let (tone, verdict) = match group {
            Some(number) => verdict(survey, number),
            None => (Tone::Bad, "no IOMMU is active for these".to_owned()),
        };
        heading(page, &title, tone, &verdict);
        for function in members {
            line(page, survey, function);
        }
    }
}

/// Hosts have many groups of one bridge, which are of little interest: a line does for one.
fn only_bridge(page: &mut Page, group: u32, bridge: &Function) {
    let place = short(bridge.bdf());
    let driver = bridge.facts.driver.as_deref().unwrap_or("-");
    let front = format!("Group {group:<3} {place}  bridge  ");
    let left = page.width.saturating_sub(front.len() + 2 + DRIVER);
    let name = fit_middle(&label::name(bridge), left);
    let text = format!("{front}{name}  {}", fit(driver, DRIVER).trim_end());
    let text = page.toned(Tone::Faint, &text);
    page.line(&text);
    remark(page, &bridge_notes(bridge), place.len());
}

fn heading(page: &mut Page, title: &str, tone: Tone, verdict: &str) {
    let title = page.toned(Tone::Strong, title);
    match verdict.split_once(": ") {
        Some((word, rest)) => {
            let first = format!("{title}  {}: ", page.toned(tone, word));
            page.wrapped(&first, "    ", rest);
        }
        None => page.line(&format!("{title}  {}", page.toned(tone, verdict))),
    }
}

/// What becomes of a group as a whole: all in it but the bridges fare alike.
fn verdict(survey: &Survey, group: u32) -> (Tone, String) {
    let members = survey.group(group);
    let functions: Vec<&&Function> = members.iter().filter(|member| !member.facts.is_bridge()).collect();
    let Some(first) = functions.first() else {
        return (Tone::Faint, "bridge".to_owned());
    };
    match &first.verdict {
        Verdict::Yes if first.facts.on_vfio() => (Tone::Good, "ready for a guest".to_owned()),
        Verdict::Yes => (Tone::Good, "assignable".to_owned()),
        Verdict::WithSiblings(_) => {
            let unit = survey.unit(&[first.bdf()]);
            let mut facts = unit.iter().filter_map(|bdf| survey.get(*bdf));
            let word = match facts.all(|function| function.facts.on_vfio()) {
                true => "ready for a guest",
                false => "assignable",
            };
            (Tone::Good, format!("{word} together: {}", short_list(&unit)))
        }
        Verdict::No(reason) => (Tone::Bad, format!("no: {}", refusal(&functions, reason))),
    }
}

/// Names the culprit, unless the group has but one function.
fn refusal(functions: &[&&Function], reason: &Reason) -> String {
    match (functions, reason) {
        ([only], _) => reason.brief(only.bdf()),
        // An address that none of them has, so that the culprit is named.
        _ => reason.brief(Bdf::from_devfn(u32::MAX, 0, 0)),
    }
}

fn line(page: &mut Page, survey: &Survey, function: &Function) {
    let place = short(function.bdf());
    let driver = function.facts.driver.as_deref().unwrap_or("-");
    let ids = if page.width >= 100 {
        format!("{}  ", label::ids(function))
    } else {
        String::new()
    };
    let left = page
        .width
        .saturating_sub(2 + place.len().max(7) + 2 + 9 + ids.len() + 2 + DRIVER);
    let text = format!(
        "  {place:<7}  {:<9}{ids}{}  {}",
        label::kind(function.facts.class),
        fit_middle(&label::name(function), left),
        fit(driver, DRIVER).trim_end(),
    );
    let text = if function.facts.is_bridge() {
        page.toned(Tone::Faint, &text)
    } else {
        text
    };
    page.line(&text);
    remark(page, &notes(survey, function), place.len());
}

/// Remarks below a line, where its kind stands.
fn remark(page: &mut Page, notes: &[String], place: usize) {
    let indent = " ".repeat(place.max(7) + 4);
    let mark = page.toned(Tone::Warning, "! ");
    for note in notes {
        page.wrapped(&format!("{indent}{mark}"), &format!("{indent}  "), note);
    }
}

/// What does not forbid to take it but should be known before.
pub(super) fn notes(survey: &Survey, function: &Function) -> Vec<String> {
    if function.facts.is_bridge() {
        return bridge_notes(function);
    }
    let mild = function
        .uses
        .iter()
        .filter(|what| !what.forbids() && !is_covered(function, what));
    let mut notes: Vec<String> = mild.map(ToString::to_string).collect();
    if function.facts.on_stub() {
        notes.push("on pci-stub; a guest needs it on vfio-pci (`tenon bind`)".to_owned());
    }
    if function.verdict.is_assignable() && survey.reset(function) == Reset::Impossible {
        notes.push("cannot be reset".to_owned());
    }
    if let (false, Some(name)) = (function.facts.is_set_aside(), &function.facts.driver_override) {
        notes.push(format!("only {name} may drive it (driver_override)"));
    }
    notes
}

fn bridge_notes(bridge: &Function) -> Vec<String> {
    match bridge.facts.is_set_aside() {
        true => vec!["set aside, which is no use for a bridge; it belongs to pcieport".to_owned()],
        false => Vec::new(),
    }
}

/// Screens of the only display are no news.
fn is_covered(function: &Function, what: &Use) -> bool {
    matches!(what, Use::Screens(_)) && function.uses.contains(&Use::OnlyDisplay)
}
