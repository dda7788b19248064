//! What must go to a guest together.

use std::collections::BTreeSet;

use super::Survey;
use crate::host::{Bdf, HostFunction};

impl Survey {
    /// All that goes to a guest with these functions, themselves included, in order of address: the other members of
    /// their IOMMU groups, which the kernel gives to one owner only, and the other functions of a graphics card (its
    /// audio, its USB-C controller), which are reset with it; and what those bring along in turn. Without bridges,
    /// which stay with the host, and without addresses at which there is nothing.
    pub fn unit(&self, wanted: &[Bdf]) -> Vec<Bdf> {
        let mut unit = BTreeSet::new();
        let mut ahead: Vec<Bdf> = wanted.to_vec();
        while let Some(bdf) = ahead.pop() {
            let Some(function) = self.get(bdf).map(|function| &function.facts) else {
                continue;
            };
            if function.is_bridge() || !unit.insert(bdf) {
                continue;
            }
            ahead.extend(
                function
                    .group
                    .and_then(|group| self.groups.get(&group))
                    .into_iter()
                    .flat_map(|group| &group.members),
            );
            ahead.extend(self.card(function));
        }
        unit.into_iter().collect()
    }

    /// The functions of the graphics card that this one is part of. Only those of the display's own vendor: a
    /// processor with graphics in it has its USB controllers and its security processor in the same slot, and they are
    /// no part of it. Other slots hold functions that have nothing to do with each other unless their group says so.
    fn card(&self, function: &HostFunction) -> Vec<Bdf> {
        let slot = || {
            self.facts()
                .filter(|other| other.bdf.same_slot(&function.bdf) && other.physical.is_none())
        };
        let is_card =
            function.physical.is_none() && slot().any(|other| other.is_display() && other.vendor == function.vendor);
        if !is_card {
            return Vec::new();
        }
        slot()
            .filter(|other| other.vendor == function.vendor)
            .map(|other| other.bdf)
            .collect()
    }
}

#[cfg(test)]
mod tests {
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
}
