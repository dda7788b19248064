//! How a function can be brought back to a known state between two users.

use std::collections::BTreeSet;

use super::{Function, Survey};
use crate::host::Bdf;

/// What is reset, by whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reset {
    /// The function alone, by one of these, the first that works.
    Alone(Vec<String>),
    /// The whole bus of the function, which vfio may do once all these on it belong to the guest.
    WithBus(Vec<Bdf>),
    /// There is no way while others are on its bus, or none at all.
    Impossible,
    /// The kernel is too old to say.
    Unknown,
}

impl Survey {
    /// How a function would be reset.
    pub fn reset(&self, function: &Function) -> Reset {
        match &function.facts.reset_methods {
            Some(methods) if !methods.is_empty() => Reset::Alone(methods.clone()),
            methods => match self.together_on_bus(function) {
                Some(together) => Reset::WithBus(together),
                None if methods.is_some() => Reset::Impossible,
                None => Reset::Unknown,
            },
        }
    }

    /// The functions below the bridge of this one, if all of them go to a guest with it. A root bus is never reset.
    fn together_on_bus(&self, function: &Function) -> Option<Vec<Bdf>> {
        let bridge = function.parent()?;
        // Buses are numbered from the root down: who is below what is below comes later.
        let mut below: BTreeSet<Bdf> = BTreeSet::new();
        for other in &self.functions {
            if other
                .parent()
                .is_some_and(|parent| parent == bridge || below.contains(&parent))
            {
                below.insert(other.bdf());
            }
        }
        let is_bridge = |bdf: &Bdf| self.get(*bdf).is_some_and(|other| other.facts.is_bridge());
        let below: Vec<Bdf> = below.into_iter().filter(|bdf| !is_bridge(bdf)).collect();
        let unit = self.unit(&[function.bdf()]);
        below.iter().all(|bdf| unit.contains(bdf)).then_some(below)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::survey::tests::made_up;

    #[test]
    fn a_bus_is_reset_when_all_on_it_go_together() {
        let mut survey = made_up(&[
            ("00:01.0", 0x060400, 0x8086, Some("pcieport"), Some(1)),
            ("00:1b.0", 0x040300, 0x8086, None, Some(2)),
            ("01:00.0", 0x030000, 0x10de, None, Some(1)),
            ("01:00.1", 0x040300, 0x10de, None, Some(1)),
            ("09:00.3", 0x0c0330, 0x1022, None, Some(3)),
            ("09:00.4", 0x040300, 0x1022, None, Some(4)),
        ]);
        let bdf = |text: &str| text.parse::<Bdf>().unwrap();
        for function in &mut survey.functions {
            function.facts.reset_methods = Some(Vec::new());
            if function.facts.bdf.bus > 0 {
                function.facts.parent = Some(bdf("00:01.0"));
            }
        }
        survey.functions[4].facts.reset_methods = Some(vec!["flr".to_owned()]);
        survey.functions[4].facts.parent = Some(bdf("00:08.1"));
        survey.functions[5].facts.parent = Some(bdf("00:08.1"));
        let reset = |survey: &Survey, text: &str| survey.reset(survey.get(bdf(text)).unwrap());
        assert_eq!(
            reset(&survey, "01:00.1"),
            Reset::WithBus(vec![bdf("01:00.0"), bdf("01:00.1")])
        );
        assert_eq!(reset(&survey, "00:1b.0"), Reset::Impossible);
        assert_eq!(reset(&survey, "09:00.4"), Reset::Impossible);
        assert_eq!(reset(&survey, "09:00.3"), Reset::Alone(vec!["flr".to_owned()]));
        survey.functions[1].facts.reset_methods = None;
        assert_eq!(reset(&survey, "00:1b.0"), Reset::Unknown);
    }
}
