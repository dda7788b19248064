//! The expansion ROM: firmware runs the image in it to light up an adapter.

pub mod image;

use std::io;
use std::sync::{Arc, OnceLock};

use devices::{Backing, BusDevice, Effect, HostMapping, Region, Space};
use vfio_bindings::bindings::vfio::VFIO_PCI_ROM_REGION_INDEX;

use crate::bar::PAGE;
use crate::host::Bdf;
use crate::io::DeviceIo;
use image::{LARGEST, RomError};

/// Where the guest's expansion ROM comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum RomSource {
    /// The device's own.
    #[default]
    Device,
    /// These bytes, for a device whose own is unreadable or altered.
    File(Vec<u8>),
    /// No ROM BAR.
    None,
}

/// A ROM BAR.
#[derive(Debug)]
pub(crate) struct Rom {
    /// Bytes decoded: a power of two, at least a page, so that the guest reads it without exits.
    pub size: u64,
    file: Option<Vec<u8>>,
    content: OnceLock<Option<Arc<HostMapping>>>,
    writes: Arc<dyn BusDevice>,
}

/// Writes to ROM go nowhere.
#[derive(Debug)]
struct ReadOnly;

impl BusDevice for ReadOnly {
    fn read(&self, _offset: u64, data: &mut [u8]) {
        data.fill(0xff);
    }

    fn write(&self, _offset: u64, _data: &[u8]) -> Effect {
        Effect::None
    }
}

impl Rom {
    /// The ROM BAR of a function, if it has one.
    pub(crate) fn new(io: &dyn DeviceIo, source: RomSource) -> Option<Self> {
        let (bytes, file) = match source {
            RomSource::Device => (io.region(VFIO_PCI_ROM_REGION_INDEX).size, None),
            RomSource::File(image) => (image.len() as u64, Some(image)),
            RomSource::None => return None,
        };
        let size = bytes.checked_next_power_of_two()?.max(PAGE);
        (bytes > 0 && size <= LARGEST).then(|| Self {
            size,
            file,
            content: OnceLock::new(),
            writes: Arc::new(ReadOnly),
        })
    }

    /// Reads the ROM if that has not been done. Memory decode must be on: the kernel refuses reads of ROM without it.
    /// `id` is the device's vendor and device ID: images for a sibling of it are made its own.
    pub(crate) fn load(&self, io: &dyn DeviceIo, bdf: Bdf, id: (u16, u16)) {
        self.content.get_or_init(|| match self.read(io) {
            Ok(mut bytes) => {
                let changed = image::adapt(&mut bytes, id.0, id.1);
                if changed > 0 {
                    tracing::info!("{bdf}: {changed} images of its ROM are for another device of its maker; the guest finds its own ID in them");
                }
                self.store(bdf, &bytes)
            }
            Err(error) => {
                tracing::warn!(
                    "{bdf}: its ROM cannot be read ({error}), so the guest finds none; if the adapter stays dark in the \
                     firmware, give its ROM as a file"
                );
                self.store(bdf, &[])
            }
        });
    }

    fn read(&self, io: &dyn DeviceIo) -> io::Result<Vec<u8>> {
        if let Some(file) = &self.file {
            return Ok(file.clone());
        }
        let len = io.region(VFIO_PCI_ROM_REGION_INDEX).size.min(self.size);
        let mut image = vec![0xff; usize::try_from(len).map_err(io::Error::other)?];
        io.read(VFIO_PCI_ROM_REGION_INDEX, 0, &mut image)?;
        // A boot VGA device's copy at 0xC0000 that POST has altered, or a device asleep, does not begin as a ROM does. What
        // is wrong further on is left to the firmware, which knows more kinds than are written down.
        match image::images(&image) {
            Err(error @ (RomError::Empty | RomError::NoSignature { .. })) => {
                Err(io::Error::new(io::ErrorKind::InvalidData, error))
            }
            _ => Ok(image),
        }
    }

    fn store(&self, bdf: Bdf, image: &[u8]) -> Option<Arc<HostMapping>> {
        let mapping = usize::try_from(self.size)
            .ok()
            .and_then(|size| HostMapping::anonymous(size).ok());
        let Some(mapping) = mapping else {
            tracing::warn!("{bdf}: no memory for its ROM, so the guest finds none");
            return None;
        };
        mapping.write(0, image);
        let blank = vec![0xff; mapping.len().saturating_sub(image.len())];
        mapping.write(image.len() as u64, &blank);
        Some(Arc::new(mapping))
    }

    /// The ROM at `base`, once loaded.
    pub(crate) fn region(&self, base: u64) -> Option<Region> {
        let mapping = self.content.get()?.clone()?;
        let backing = Backing::Host {
            mapping,
            offset: 0,
            writes: Some(self.writes.clone()),
        };
        Some(Region {
            space: Space::Memory,
            base,
            size: self.size,
            backing,
        })
    }

    /// The address if ROM can be decoded there: see [`crate::bar::AssignedBar::valid`].
    pub(crate) fn valid(&self, base: u64) -> Option<u64> {
        let last = (1u64 << 32) - self.size;
        (base != 0 && base < last).then_some(base)
    }
}
