//! The flash that holds the firmware's code.

use std::io;
use std::sync::Arc;

use super::cfi::BLOCK_SIZE;
use crate::{Backing, BusDevice, Effect, HostMapping, Region, Space};

/// Read-only flash: a mapping in which the firmware executes in place. Writes are swallowed.
#[derive(Debug)]
pub struct CodeFlash {
    base: u64,
    image: Arc<HostMapping>,
}

impl CodeFlash {
    /// The bytes of `image` at guest-physical `base`: a private copy, or the image file itself mapped shared and read-only, which
    /// costs no memory of our own.
    ///
    /// # Errors
    /// `InvalidInput` if base or size is not a multiple of 4 KiB, or the image is empty or leaves the address space.
    pub fn new(base: u64, image: Arc<HostMapping>) -> io::Result<Arc<Self>> {
        check_place(base, image.len() as u64)?;
        Ok(Arc::new(Self { base, image }))
    }

    /// Appends the flash's one region, which never changes.
    pub fn regions(self: &Arc<Self>, regions: &mut Vec<Region>) {
        regions.push(Region {
            space: Space::Memory,
            base: self.base,
            size: self.image.len() as u64,
            backing: Backing::Host {
                mapping: Arc::clone(&self.image),
                offset: 0,
                writes: Some(Arc::<Self>::clone(self)),
            },
        });
    }
}

impl BusDevice for CodeFlash {
    fn read(&self, offset: u64, data: &mut [u8]) {
        self.image.read(offset, data);
    }

    fn write(&self, _offset: u64, _data: &[u8]) -> Effect {
        Effect::None
    }
}

/// Whether a flash of `size` bytes can be mapped at `base`.
pub(super) fn check_place(base: u64, size: u64) -> io::Result<()> {
    let fits = size > 0
        && base.is_multiple_of(BLOCK_SIZE)
        && size.is_multiple_of(BLOCK_SIZE)
        && base.checked_add(size).is_some();
    if fits {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidInput,
        format!("a flash of {size:#x} bytes at {base:#x} is not made of whole 4 KiB pages"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_image_and_swallows_writes() {
        let image = Arc::new(HostMapping::anonymous(0x2000).unwrap());
        image.write(0x1ff0, &[0xea]);
        let flash = CodeFlash::new(0xffff_e000, image).unwrap();
        let mut regions = Vec::new();
        flash.regions(&mut regions);
        let [region] = regions.as_slice() else {
            panic!("one region")
        };
        assert_eq!((region.base, region.size), (0xffff_e000, 0x2000));
        let Backing::Host {
            writes: Some(device), ..
        } = &region.backing
        else {
            panic!("mapped read-only")
        };
        assert_eq!(device.write(0x1ff0, &[0]), Effect::None);
        let mut byte = [0];
        device.read(0x1ff0, &mut byte);
        assert_eq!(byte, [0xea]);
    }

    #[test]
    fn refuses_what_cannot_be_mapped() {
        let image = |len| Arc::new(HostMapping::anonymous(len).unwrap());
        assert!(CodeFlash::new(0xffff_f800, image(0x1000)).is_err());
        assert!(CodeFlash::new(0xffff_f000, image(0x800)).is_err());
        assert!(CodeFlash::new(0xffff_ffff_ffff_f000, image(0x2000)).is_err());
    }
}
