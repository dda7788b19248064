//! Each failure as it was met: the log, what it is taken for, whose it is, and what is advised.

mod devices;
mod machine;
mod quiet;

use super::*;

/// A log that shows one failure.
struct Case {
    id: &'static str,
    log: &'static str,
    bdf: Option<&'static str>,
    group: Option<u32>,
    /// A part of the advice, with the device or group in it where there is one.
    advice: &'static str,
}

fn check(cases: &[Case]) {
    for case in cases {
        let scan = Scanner::read(case.log.as_bytes()).unwrap();
        let ids: Vec<&str> = scan.sightings.iter().map(|seen| seen.symptom.id).collect();
        let Some(seen) = scan.sightings.iter().find(|seen| {
            let bdf = seen.bdf.map(|bdf| bdf.to_string());
            (seen.symptom.id, bdf.as_deref(), seen.group) == (case.id, case.bdf, case.group)
        }) else {
            panic!(
                "{} with {:?} and group {:?} is not seen in:\n{}\nseen: {:#?}",
                case.id, case.bdf, case.group, case.log, scan.sightings
            );
        };
        assert!(
            ids.iter().all(|id| *id == case.id || id == &"group-not-viable"),
            "{} is taken for {ids:?} as well:\n{}",
            case.id,
            case.log
        );
        let remedy = seen.remedy();
        assert!(remedy.contains(case.advice), "{}: {remedy}", case.id);
        assert!(!remedy.contains('{'), "{}: {remedy}", case.id);
    }
}

#[test]
fn every_sign_is_an_expression_and_every_name_is_one() {
    let mut ids = Vec::new();
    for symptom in all() {
        for sign in symptom.signs.iter().copied().chain(symptom.context) {
            assert!(scan::compile(sign).is_some(), "{}: {sign}", symptom.id);
        }
        let plain = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '-';
        assert!(symptom.id.chars().all(plain), "{}", symptom.id);
        for text in [symptom.title, symptom.cause, symptom.remedy, symptom.source] {
            assert!(!text.is_empty() && !text.contains("  "), "{}: {text}", symptom.id);
        }
        ids.push(symptom.id);
    }
    let count = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), count, "a name is used twice");
    assert!(count >= 38, "{count} failures are known");
    assert!(find("group-not-viable").is_some() && find("nothing").is_none());
}

#[test]
fn every_sign_has_a_log_that_shows_it() {
    let shown: Vec<&str> = devices::CASES
        .iter()
        .chain(machine::CASES)
        .map(|case| case.id)
        .collect();
    for symptom in all().filter(|symptom| !symptom.signs.is_empty()) {
        assert!(shown.contains(&symptom.id), "no log for {}", symptom.id);
    }
}

#[test]
fn devices_fail_as_they_did_for_others() {
    check(devices::CASES);
}

#[test]
fn machines_fail_as_they_did_for_others() {
    check(machine::CASES);
}

#[test]
fn an_explanation_says_it_all() {
    let text = find("stuck-in-d3").unwrap().to_string();
    for part in [
        "stuck-in-d3: the device does not wake up",
        "Cause:  ",
        "Remedy: ",
        "/devices/BDF/d3cold_allowed",
        "Source: ",
    ] {
        assert!(text.contains(part), "{text}");
    }
}
