//! The group view: what goes to a guest together stands together.

use std::collections::BTreeMap;

use vfio::host::Bdf;
use vfio::host::survey::{Function, Reason, Survey, Use, Verdict, short, short_list};

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
        let title = group.map_or_else(|| "No group".to_owned(), |number| format!("Group {number}"));
        let (tone, verdict) = match group {
            Some(number) => verdict(survey, number),
            None => (Tone::Bad, "no IOMMU is active for these".to_owned()),
        };
        heading(page, &title, tone, &verdict);
        for function in members {
            line(page, function);
        }
    }
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
        Verdict::Yes => (Tone::Good, "assignable".to_owned()),
        Verdict::WithSiblings(_) => {
            let unit = survey.unit(&[first.bdf()]);
            (Tone::Good, format!("assignable together: {}", short_list(&unit)))
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

fn line(page: &mut Page, function: &Function) {
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
    for note in notes(function) {
        let indent = " ".repeat(place.len().max(7) + 4);
        let mark = page.toned(Tone::Warning, "! ");
        page.wrapped(&format!("{indent}{mark}"), &format!("{indent}  "), &note);
    }
}

/// What does not forbid to take it but should be known before.
pub(super) fn notes(function: &Function) -> Vec<String> {
    let mut notes: Vec<String> = Vec::new();
    let taken = function.facts.is_set_aside();
    if !matches!(function.verdict, Verdict::No(Reason::Bridge)) {
        let mild = function
            .uses
            .iter()
            .filter(|what| !what.forbids() && !is_covered(function, what));
        notes.extend(mild.map(ToString::to_string));
        if function.facts.on_stub() {
            notes.push("on pci-stub; a guest needs it on vfio-pci (`tenon bind`)".to_owned());
        }
        if function.facts.reset_methods.as_ref().is_some_and(Vec::is_empty) && function.verdict.is_assignable() {
            notes.push("Linux knows no way to reset it".to_owned());
        }
    } else if function.facts.on_stub() {
        notes.push("on pci-stub, which is no use for a bridge; it belongs to pcieport".to_owned());
    }
    if let (false, Some(name)) = (taken, &function.facts.driver_override) {
        notes.push(format!("only {name} may drive it (driver_override)"));
    }
    notes
}

/// Screens of the only display are no news.
fn is_covered(function: &Function, what: &Use) -> bool {
    matches!(what, Use::Screens(_)) && function.uses.contains(&Use::OnlyDisplay)
}
