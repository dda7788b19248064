//! A capture tells the survey and the checks what the host itself would.
#![expect(clippy::unwrap_used, reason = "all of this is a test")]

use std::sync::Arc;

use tests::hosts::{archive, names};
use vfio::host::capture::{About, take};
use vfio::host::check::{Facts, Wanted, check};
use vfio::host::{Capture, HostTree, Survey};

fn captured(tree: &HostTree) -> HostTree {
    let taken = take(tree, About::new(), &[]).unwrap();
    HostTree::of(Arc::new(taken.files))
}

/// Line by line, so that a difference shows.
fn said(tree: &HostTree) -> Vec<String> {
    let survey = format!("{:#?}", Survey::of(tree).unwrap());
    let facts = Facts::of(tree.clone(), Wanted::default()).unwrap();
    let checks = format!("{:#?}", check(&facts));
    [survey.as_str(), &checks]
        .iter()
        .flat_map(|text| text.lines())
        .map(str::to_owned)
        .collect()
}

#[test]
fn a_capture_of_each_host_says_the_same() {
    for name in names().unwrap() {
        let host = Capture::open(&archive(&name)).unwrap().into_tree();
        let (before, after) = (said(&host), said(&captured(&host)));
        assert!(before.len() > 500, "{name}: {} lines", before.len());
        for (before, after) in before.iter().zip(&after) {
            assert_eq!(before, after, "{name}");
        }
        assert_eq!(before.len(), after.len(), "{name}");
    }
}

/// Names of people and file systems may be masked; what the functions are and whether they can go may not differ.
#[test]
fn a_capture_of_this_host_says_the_same() {
    let live = HostTree::live();
    let Ok(before) = Survey::of(&live) else {
        println!("skipped: a_capture_of_this_host_says_the_same: this host has no PCI");
        return;
    };
    let after = Survey::of(&captured(&live)).unwrap();
    assert_eq!(before.functions.len(), after.functions.len());
    for (before, after) in before.functions.iter().zip(&after.functions) {
        assert_eq!(format!("{:?}", before.facts), format!("{:?}", after.facts));
        assert_eq!((&before.names, &before.modules), (&after.names, &after.modules));
        assert_eq!(
            before.uses.len(),
            after.uses.len(),
            "{:?} {:?}",
            before.uses,
            after.uses
        );
    }
}
