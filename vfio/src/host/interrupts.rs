//! How a function can interrupt, as its config space tells. Linux shows all of it to root alone; others see the header.

use std::path::Path;

use super::{HostFunction, HostTree, Sysfs};

/// Capabilities of PCI Local Bus 3.0 §6.8.
const MSI: u8 = 0x05;
const MSI_X: u8 = 0x11;

/// How a function can interrupt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Interrupts {
    /// The pin of INTx, 1 for A; `None` without.
    pub pin: Option<u8>,
    /// Vectors of MSI; `None` without MSI, or where [`Self::complete`] is not.
    pub msi: Option<u16>,
    /// Vectors of MSI-X; `None` without MSI-X, or where [`Self::complete`] is not.
    pub msix: Option<u16>,
    /// Whether the capabilities could be read.
    pub complete: bool,
}

impl Interrupts {
    /// Reads a function's config space; `None` where it cannot be, or where that would wake a function without power.
    pub fn of(tree: &HostTree, function: &HostFunction) -> Option<Self> {
        if function.power_state.as_deref() == Some("D3cold") {
            return None;
        }
        let path = Sysfs::function_path(function.bdf);
        Self::parse(&tree.bytes(Path::new(&path).join("config")).ok()?)
    }

    fn parse(config: &[u8]) -> Option<Self> {
        let byte = |place: usize| config.get(place).copied();
        let word = |place: usize| Some(u16::from_le_bytes([byte(place)?, byte(place + 1)?]));
        // All ones is what comes back from a function that does not answer.
        if word(0)? == u16::MAX {
            return None;
        }
        let mut found = Self {
            pin: byte(0x3d).filter(|pin| (1..=4).contains(pin)),
            complete: config.len() >= 256,
            ..Self::default()
        };
        let has_list = word(0x06)? & 0x10 != 0;
        let mut next = byte(0x34).filter(|_| has_list && found.complete).unwrap_or(0);
        // Each capability takes four bytes at least; a list that goes on longer is a circle.
        for _ in 0..48 {
            let here = usize::from(next & 0xfc);
            if here < 0x40 {
                break;
            }
            match byte(here)? {
                MSI => found.msi = Some(1 << (word(here + 2)? >> 1 & 7).min(5)),
                MSI_X => found.msix = Some((word(here + 2)? & 0x7ff) + 1),
                _ => (),
            }
            next = byte(here + 1)?;
        }
        Some(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Vec<u8> {
        let mut config = vec![0; 256];
        config[..2].copy_from_slice(&[0xde, 0x10]);
        config[0x06] = 0x10;
        config[0x34] = 0x60;
        config[0x3d] = 1;
        config[0x60..0x64].copy_from_slice(&[MSI, 0x68, 0x86, 0]);
        config[0x68..0x6c].copy_from_slice(&[MSI_X, 0, 5, 0x80]);
        config
    }

    #[test]
    fn capabilities_are_found() {
        let found = Interrupts::parse(&config()).unwrap();
        let expected = Interrupts {
            pin: Some(1),
            msi: Some(8),
            msix: Some(6),
            complete: true,
        };
        assert_eq!(found, expected);
        let header = Interrupts::parse(&config()[..64]).unwrap();
        assert_eq!((header.pin, header.msi, header.complete), (Some(1), None, false));
    }

    #[test]
    fn circles_and_silence_have_an_end() {
        let mut circle = config();
        circle[0x69] = 0x60;
        assert_eq!(Interrupts::parse(&circle).unwrap().msix, Some(6));
        assert_eq!(Interrupts::parse(&[0xff; 256]), None);
        assert_eq!(Interrupts::parse(&[]), None);
        let mut beyond = config();
        beyond[0x69] = 0xff;
        assert_eq!(Interrupts::parse(&beyond).map(|found| found.complete), Some(true));
    }
}
