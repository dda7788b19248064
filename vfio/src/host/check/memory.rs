//! Memory for the guest: free, allowed to be locked, in large pages.

use super::{Facts, Finding, Requirement, Section};
use crate::host::MemoryLock;
use crate::host::limits::Size;

pub(super) const FREE: Requirement = Requirement {
    id: "memory",
    title: "Free memory",
    section: Section::Memory,
    look: free,
};

/// A value of `/proc/meminfo` as it stands there.
fn meminfo(facts: &Facts, name: &str) -> Option<u64> {
    let text = facts.tree.text("/proc/meminfo").ok()?;
    let rest = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    rest.split_whitespace().next()?.parse().ok()
}

fn kib(facts: &Facts, name: &str) -> Option<u64> {
    meminfo(facts, name)?.checked_mul(1024)
}

fn free(facts: &Facts) -> Vec<Finding> {
    let Some(available) = kib(facts, "MemAvailable").or_else(|| kib(facts, "MemFree")) else {
        return vec![facts.not_said("/proc/meminfo")];
    };
    let total = kib(facts, "MemTotal")
        .map(|total| format!(" of {}", Size(total)))
        .unwrap_or_default();
    vec![match facts.wanted.memory {
        Some(wanted) if wanted > available => Finding::fail(format!(
            "{} wanted, {} free{total}: a guest with devices holds all of its memory at once",
            Size(wanted),
            Size(available)
        ))
        .remedy("give the guest less (--memory), or end something else"),
        Some(wanted) => Finding::pass(format!("{} wanted, {} free{total}", Size(wanted), Size(available))),
        None => Finding::pass(format!("{} free{total}", Size(available))),
    }]
}

pub(super) const LOCK: Requirement = Requirement {
    id: "memlock",
    title: "Locked memory",
    section: Section::Memory,
    look: lock,
};

/// What is asked about where nobody says how large the guest is to be.
const USUAL: u64 = 8 << 30;

fn lock(facts: &Facts) -> Vec<Finding> {
    if !facts.tree.is_live() {
        return vec![Finding::unknown(
            "a capture does not tell of the limit of whoever runs the guest",
        )];
    }
    let limit = match MemoryLock::of_this_process() {
        Ok(limit) => limit,
        Err(error) => return vec![Finding::unknown(error.to_string())],
    };
    let wanted = facts.wanted.memory.unwrap_or(USUAL);
    vec![match (limit.check(wanted), limit.limit) {
        (Ok(()), None) => Finding::pass("without limit"),
        (Ok(()), Some(limit)) => Finding::pass(format!("up to {}", Size(limit))),
        (Err(_), limit) => Finding::fail(format!(
            "you may lock {}, and a guest of {} with devices needs all of its memory locked",
            Size(limit.unwrap_or(0)),
            Size(wanted)
        ))
        .remedy("as root, or `LimitMEMLOCK=infinity` in a unit, or a `memlock` line in /etc/security/limits.d")
        .symptom("memlock"),
    }]
}

pub(super) const HUGE: Requirement = Requirement {
    id: "hugepages",
    title: "Huge pages",
    section: Section::Memory,
    look: huge,
};

/// Guest memory is anonymous, so that transparent huge pages serve it; reserved ones are lost to it.
fn huge(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    let size = kib(facts, "Hugepagesize").unwrap_or(0);
    let reserved = meminfo(facts, "HugePages_Free").unwrap_or(0).saturating_mul(size);
    if reserved > 0 {
        found.push(
            Finding::warn(format!(
                "{} are reserved as huge pages and free, but tenon does not use those",
                Size(reserved)
            ))
            .remedy("`echo 0 > /proc/sys/vm/nr_hugepages` gives them back; transparent ones serve the guest")
            .symptom("hugepages"),
        );
    }
    let Ok(text) = facts.tree.text("/sys/kernel/mm/transparent_hugepage/enabled") else {
        return found;
    };
    found.push(match text.contains("[never]") {
        true => Finding::warn("transparent huge pages are off: guest memory is mapped in pieces of 4 KiB")
            .remedy("`echo madvise > /sys/kernel/mm/transparent_hugepage/enabled`")
            .symptom("hugepages"),
        false => Finding::pass("transparent, as the guest asks for them"),
    });
    found
}
