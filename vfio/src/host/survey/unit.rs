//! What must go to a guest together.

use std::collections::{BTreeMap, BTreeSet};

use super::Survey;
use crate::host::{Bdf, HostFunction};

/// The units of a host: each function but the bridges is in one.
#[derive(Debug, Clone, Default)]
pub(super) struct Units {
    /// Members in order of address.
    members: Vec<Vec<Bdf>>,
    of: BTreeMap<Bdf, usize>,
}

impl Units {
    /// The units of these functions, which are in order of address.
    pub(super) fn of(functions: &[&HostFunction]) -> Self {
        let mut join = Join::new(functions.len());
        let mut groups: BTreeMap<u32, usize> = BTreeMap::new();
        for (place, function) in functions
            .iter()
            .enumerate()
            .filter(|(_, function)| !function.is_bridge())
        {
            if let Some(group) = function.group {
                let first = *groups.entry(group).or_insert(place);
                join.join(first, place);
            }
        }
        for card in cards(functions) {
            for (one, next) in card.iter().zip(card.iter().skip(1)) {
                join.join(*one, *next);
            }
        }
        let mut units = Self::default();
        let mut numbers: BTreeMap<usize, usize> = BTreeMap::new();
        for (place, function) in functions
            .iter()
            .enumerate()
            .filter(|(_, function)| !function.is_bridge())
        {
            let number = *numbers.entry(join.root(place)).or_insert(units.members.len());
            match units.members.get_mut(number) {
                Some(members) => members.push(function.bdf),
                None => units.members.push(vec![function.bdf]),
            }
            units.of.insert(function.bdf, number);
        }
        units
    }

    /// All units.
    pub(super) fn all(&self) -> &[Vec<Bdf>] {
        &self.members
    }

    /// The unit of a function; nothing for bridges.
    pub(super) fn with(&self, bdf: Bdf) -> &[Bdf] {
        let number = self.of.get(&bdf);
        number
            .and_then(|number| self.members.get(*number))
            .map(Vec::as_slice)
            .unwrap_or_default()
    }
}

/// The functions of each graphics card, by their places. Only those of the display's own vendor: a processor with
/// graphics in it has its USB controllers and its security processor in the same slot, and they are no part of it.
/// Other slots hold functions that have nothing to do with each other unless their group says so.
fn cards(functions: &[&HostFunction]) -> Vec<Vec<usize>> {
    let mut slots: BTreeMap<(u32, u8, u8, u16), Vec<usize>> = BTreeMap::new();
    let mut lit = BTreeSet::new();
    let physical = functions
        .iter()
        .enumerate()
        .filter(|(_, function)| function.physical.is_none());
    for (place, function) in physical.filter(|(_, function)| !function.is_bridge()) {
        let Bdf {
            domain, bus, device, ..
        } = function.bdf;
        let key = (domain, bus, device, function.vendor);
        slots.entry(key).or_default().push(place);
        if function.is_display() {
            lit.insert(key);
        }
    }
    slots.retain(|key, _| lit.contains(key));
    slots.into_values().collect()
}

/// Which of so many belong together: each points at another of its set, the last at itself.
struct Join {
    next: Vec<usize>,
}

impl Join {
    fn new(count: usize) -> Self {
        Self {
            next: (0..count).collect(),
        }
    }

    fn root(&mut self, mut place: usize) -> usize {
        while let Some(next) = self.next.get(place).copied().filter(|next| *next != place) {
            // Halves the way for the next who asks.
            let after = self.next.get(next).copied().unwrap_or(next);
            if let Some(slot) = self.next.get_mut(place) {
                *slot = after;
            }
            place = next;
        }
        place
    }

    fn join(&mut self, one: usize, other: usize) {
        let (one, other) = (self.root(one), self.root(other));
        if let Some(slot) = self.next.get_mut(one.max(other)) {
            *slot = one.min(other);
        }
    }
}

impl Survey {
    /// All that goes to a guest with these functions, themselves included, in order of address: the other members of
    /// their IOMMU groups, which the kernel gives to one owner only, and the other functions of a graphics card (its
    /// audio, its USB-C controller), which are reset with it; and what those bring along in turn. Without bridges,
    /// which stay with the host, and without addresses at which there is nothing.
    pub fn unit(&self, wanted: &[Bdf]) -> Vec<Bdf> {
        let mut unit: Vec<Bdf> = wanted.iter().flat_map(|bdf| self.units.with(*bdf)).copied().collect();
        unit.sort_unstable();
        unit.dedup();
        unit
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::survey::tests::made_up;

    #[test]
    fn a_unit_is_closed_over_groups_and_cards() {
        // A card split over two groups, one of which a sound chip is in too.
        let survey = made_up(&[
            ("00:01.0", 0x060400, 0x8086, Some("pcieport"), Some(1)),
            ("00:1f.0", 0x060100, 0x8086, None, Some(3)),
            ("00:1f.3", 0x040300, 0x8086, None, Some(3)),
            ("00:1f.4", 0x0c0500, 0x8086, None, Some(3)),
            ("01:00.0", 0x030000, 0x10de, None, Some(1)),
            ("01:00.1", 0x040300, 0x10de, None, Some(2)),
            ("02:00.0", 0x040100, 0x1102, None, Some(2)),
            ("06:00.0", 0x030000, 0x1002, None, Some(10)),
            ("06:00.1", 0x040300, 0x1002, None, Some(11)),
            ("06:00.3", 0x0c0330, 0x1022, None, Some(12)),
            ("07:00.0", 0x020000, 0x8086, None, Some(13)),
            ("07:00.1", 0x020000, 0x8086, None, Some(14)),
        ]);
        for (wanted, expected) in [
            ("01:00.0", "01:00.0 01:00.1 02:00.0"),
            ("02:00.0", "01:00.0 01:00.1 02:00.0"),
            ("00:1f.3", "00:1f.3 00:1f.4"),
            ("06:00.1", "06:00.0 06:00.1"),
            ("06:00.3", "06:00.3"),
            ("07:00.1", "07:00.1"),
            ("00:01.0", ""),
            ("0f:00.0", ""),
        ] {
            let unit: Vec<String> = survey
                .unit(&[wanted.parse().unwrap()])
                .iter()
                .map(|bdf| bdf.to_string().trim_start_matches("0000:").to_owned())
                .collect();
            assert_eq!(unit.join(" "), expected, "{wanted}");
        }
    }

    /// As a forged capture has it: quadratic work would take minutes.
    #[test]
    fn a_group_of_thousands_is_one_unit() {
        let facts: Vec<HostFunction> = (0..4096u32)
            .map(|number| HostFunction {
                group: Some(1),
                class: 0x03_0000,
                ..HostFunction::from(Bdf::from_devfn(number >> 8, 0, u8::try_from(number & 0xff).unwrap()))
            })
            .collect();
        let units = Units::of(&facts.iter().collect::<Vec<_>>());
        assert_eq!(units.all().len(), 1);
        assert_eq!(units.with(facts[4095].bdf).len(), 4096);
    }
}
