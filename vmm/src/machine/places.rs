//! Where assigned functions go: each host slot becomes a guest slot behind a root port of its own.
//!
//! Functions of one slot stay together, because drivers look for them there (a GPU's HDMI audio is function 1 of its slot), and are
//! never put on the root bus: a PCIe endpoint there would have to pretend to be integrated, and some display drivers refuse that.

use std::collections::BTreeMap;

use super::error::Error;
use super::layout::{FIRST_PORT, PORTS};

/// What decides a function's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// The host slot: domain, bus, device.
    pub slot: (u32, u8, u8),
    /// Function number on the host.
    pub function: u8,
    /// Whether it is a display controller.
    pub display: bool,
}

/// A function's place in the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Device number of the root port on bus 0.
    pub port: u8,
    /// Function number behind it.
    pub function: u8,
    /// Whether the guest slot has further functions.
    pub multifunction: bool,
}

/// A place for each of `candidates`, in their order.
///
/// # Errors
/// More host slots than root ports.
pub fn places(candidates: &[Candidate]) -> Result<Vec<Place>, Error> {
    let mut slots: BTreeMap<(u32, u8, u8), Vec<Candidate>> = BTreeMap::new();
    for candidate in candidates {
        slots.entry(candidate.slot).or_default().push(*candidate);
    }
    if slots.len() > usize::from(PORTS) {
        return Err(Error::TooMany {
            what: "slots of assigned devices",
            count: slots.len(),
            room: PORTS,
        });
    }
    let ports: BTreeMap<_, u8> = slots.keys().copied().zip(FIRST_PORT..).collect();
    let place = |candidate: &Candidate| {
        let peers = slots.get(&candidate.slot).map_or(&[][..], Vec::as_slice);
        Place {
            port: ports.get(&candidate.slot).copied().unwrap_or(FIRST_PORT),
            function: function_number(candidate, peers),
            multifunction: peers.len() > 1,
        }
    };
    Ok(candidates.iter().map(place).collect())
}

/// Functions keep their numbers, except that function 0 must exist (without it the guest sees an empty slot) and is the display's:
/// whoever has to be function 0 changes numbers with whoever is.
fn function_number(candidate: &Candidate, peers: &[Candidate]) -> u8 {
    let first = peers
        .iter()
        .filter(|peer| peer.display)
        .map(|peer| peer.function)
        .min()
        .or_else(|| peers.iter().map(|peer| peer.function).min())
        .unwrap_or(0);
    match candidate.function {
        number if number == first => 0,
        0 => first,
        number => number,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(bus: u8, function: u8, display: bool) -> Candidate {
        Candidate {
            slot: (0, bus, 0),
            function,
            display,
        }
    }

    #[test]
    fn a_gpu_keeps_its_audio_beside_it() {
        let found = places(&[candidate(1, 0, true), candidate(1, 1, false), candidate(4, 0, false)]).unwrap();
        assert_eq!(
            found[0],
            Place {
                port: 1,
                function: 0,
                multifunction: true
            }
        );
        assert_eq!(
            found[1],
            Place {
                port: 1,
                function: 1,
                multifunction: true
            }
        );
        assert_eq!(
            found[2],
            Place {
                port: 2,
                function: 0,
                multifunction: false
            }
        );
    }

    #[test]
    fn there_is_always_a_function_0_and_it_is_the_display() {
        let found = places(&[candidate(1, 3, false), candidate(1, 4, false)]).unwrap();
        assert_eq!((found[0].function, found[1].function), (0, 4));
        let found = places(&[candidate(1, 0, false), candidate(1, 2, true)]).unwrap();
        assert_eq!((found[0].function, found[1].function), (2, 0));
    }

    #[test]
    fn too_many_slots_are_refused() {
        let many: Vec<_> = (0..16).map(|bus| candidate(bus, 0, false)).collect();
        assert!(places(&many).is_err());
        assert!(places(&many[..15]).is_ok());
    }
}
