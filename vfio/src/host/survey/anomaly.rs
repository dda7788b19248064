//! States of a host in which functions were set aside for a guest by mistake.

use super::{Function, Survey};
use crate::host::Bdf;

/// Something about the functions set aside (on vfio-pci or pci-stub) that does not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Anomaly {
    /// Some functions of a unit are set aside and others are not. On kernels before 5.19 the guest starts, and the
    /// reset at its end pulls the device from under the driver that still has the rest of it: the host crashes.
    HalfTaken {
        /// All that goes together.
        unit: Vec<Bdf>,
        /// What is set aside.
        taken: Vec<Bdf>,
        /// What a driver of the host still has, or what has none and is open to the next that comes.
        missing: Vec<Bdf>,
    },
    /// A function that the host can use itself is set aside while another unit lacks one: the wrong address or ID was
    /// written down.
    TakenInstead {
        /// The function.
        function: Bdf,
        /// What was most likely meant.
        missing: Vec<Bdf>,
    },
    /// Functions on pci-stub: kept from the host, but a guest gets them only from vfio-pci.
    OnStub(Vec<Bdf>),
    /// No display is left to the host.
    NoDisplayLeft(Vec<Bdf>),
}

impl Survey {
    pub(super) fn find_anomalies(&self) -> Vec<Anomaly> {
        let mut found = Vec::new();
        let mut missing_anywhere = Vec::new();
        let mut seen: Vec<Bdf> = Vec::new();
        for function in self.set_aside() {
            if seen.contains(&function.bdf()) {
                continue;
            }
            let unit = self.unit(&[function.bdf()]);
            seen.extend(&unit);
            let (taken, missing): (Vec<Bdf>, Vec<Bdf>) = unit
                .iter()
                .partition(|bdf| self.get(**bdf).is_some_and(|function| function.facts.is_set_aside()));
            if !missing.is_empty() {
                missing_anywhere.extend(&missing);
                found.push(Anomaly::HalfTaken { unit, taken, missing });
            }
        }
        if !missing_anywhere.is_empty() {
            found.extend(self.taken_instead().map(|function| Anomaly::TakenInstead {
                function,
                missing: missing_anywhere.clone(),
            }));
        }
        let displays: Vec<&Function> = self
            .functions
            .iter()
            .filter(|function| function.facts.is_display())
            .collect();
        if !displays.is_empty() && displays.iter().all(|display| display.facts.is_set_aside()) {
            found.push(Anomaly::NoDisplayLeft(
                displays.iter().map(|display| display.bdf()).collect(),
            ));
        }
        let on_stub: Vec<Bdf> = self
            .functions
            .iter()
            .filter(|function| function.facts.on_stub() && !function.facts.is_bridge())
            .map(Function::bdf)
            .collect();
        if !on_stub.is_empty() {
            found.push(Anomaly::OnStub(on_stub));
        }
        found
    }

    fn set_aside(&self) -> impl Iterator<Item = &Function> {
        self.functions
            .iter()
            .filter(|function| function.facts.is_set_aside() && !function.facts.is_bridge())
    }

    /// Bridges, and graphics built into the processor while a graphics card is set aside as well: of two displays the
    /// one on a root bus is the host's own.
    fn taken_instead(&self) -> impl Iterator<Item = Bdf> {
        let on_root_bus = |function: &Function| function.parent().is_none() && function.facts.bdf.bus == 0;
        let card_taken = self
            .set_aside()
            .any(|function| function.facts.is_display() && !on_root_bus(function));
        self.functions
            .iter()
            .filter(move |function| {
                let own_display = card_taken && function.facts.is_display() && on_root_bus(function);
                function.facts.is_set_aside() && (function.facts.is_bridge() || own_display)
            })
            .map(Function::bdf)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::survey::tests::made_up;

    fn bdfs(text: &str) -> Vec<Bdf> {
        text.split_whitespace().map(|bdf| bdf.parse().unwrap()).collect()
    }

    #[test]
    fn half_a_card_and_the_wrong_display_are_found() {
        let survey = made_up(&[
            ("00:01.0", 0x060400, 0x8086, Some("pcieport"), Some(1)),
            ("00:02.0", 0x030000, 0x8086, Some("pci-stub"), Some(2)),
            ("00:1b.0", 0x040300, 0x8086, Some("pci-stub"), Some(6)),
            ("01:00.0", 0x030000, 0x10de, Some("pci-stub"), Some(1)),
            ("01:00.1", 0x040300, 0x10de, Some("snd_hda_intel"), Some(1)),
        ]);
        assert_eq!(
            survey.anomalies,
            [
                Anomaly::HalfTaken {
                    unit: bdfs("01:00.0 01:00.1"),
                    taken: bdfs("01:00.0"),
                    missing: bdfs("01:00.1"),
                },
                Anomaly::TakenInstead {
                    function: bdfs("00:02.0")[0],
                    missing: bdfs("01:00.1"),
                },
                Anomaly::NoDisplayLeft(bdfs("00:02.0 01:00.0")),
                Anomaly::OnStub(bdfs("00:02.0 00:1b.0 01:00.0")),
            ]
        );
    }

    #[test]
    fn a_host_in_order_has_none() {
        let survey = made_up(&[
            ("00:02.0", 0x030000, 0x8086, Some("i915"), Some(2)),
            ("01:00.0", 0x030000, 0x10de, Some("vfio-pci"), Some(1)),
            ("01:00.1", 0x040300, 0x10de, Some("vfio-pci"), Some(1)),
            ("02:00.0", 0x010802, 0x144d, Some("nvme"), Some(3)),
        ]);
        assert_eq!(survey.anomalies, []);
    }
}
