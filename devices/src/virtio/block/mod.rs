//! A disk: virtio-blk (virtio 1.2 §5.2) over a raw image or a block device of the host.

mod image;
mod io;
mod request;
mod statistics;
#[cfg(test)]
mod tests;
mod vectored;

use std::path::PathBuf;
use std::sync::Arc;

use super::spec::{self, BLK_ID_BYTES, SECTOR};
use super::{Activation, Outcome, VirtioDevice, Worker, read_image};
pub use image::{Geometry, Image, ImageError};
pub use statistics::{DiskCounters, Statistics};

/// Entries of the queue: one request of each direction for every depth a guest uses.
const QUEUE_SIZES: [u16; 1] = [256];
/// Data buffers of a request: the queue's entries less header and status.
const SEG_MAX: u32 = 254;
/// Bytes of the config up to `write_zeroes_may_unmap` and its padding (§5.2.4).
const CONFIG_SIZE: usize = 60;
/// PCI class: mass storage, other (PCI Code and ID Assignment 1.11 §1.2).
const PCI_CLASS: u32 = 0x01_80_00;

/// What the user says about a disk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DiskOptions {
    /// A raw image file or a block device.
    pub path: PathBuf,
    /// The guest may not write. Several machines may share a disk that none writes.
    pub readonly: bool,
    /// What the guest sees as serial, at most 20 bytes of printable ASCII; the disk's name when absent.
    pub serial: Option<String>,
}

/// Why a disk cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The image.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The serial does not fit.
    #[error("disk serial {serial:?} is not 1 to {BLK_ID_BYTES} printable ASCII characters")]
    Serial {
        /// What was asked for.
        serial: String,
    },
    /// The thread could not be started.
    #[error("I/O thread of {}", path.display())]
    Thread {
        /// The disk.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// A disk.
#[derive(Debug)]
pub struct Block {
    features: u64,
    config: [u8; CONFIG_SIZE],
    image: Arc<Image>,
    statistics: Arc<Statistics>,
    worker: Worker<Activation>,
}

impl Block {
    /// Opens and locks the disk and starts its I/O thread, which is called `name` ("disk0").
    ///
    /// # Errors
    /// The image cannot be opened, is in use or has no usable size; the serial does not fit; no thread is left.
    pub fn open(name: &str, options: &DiskOptions) -> Result<Self, DiskError> {
        let serial = serial_bytes(options.serial.as_deref().unwrap_or(name))?;
        let image = Arc::new(Image::open(&options.path, options.readonly)?);
        let statistics = Arc::new(Statistics::default());
        let mut disk = request::Disk::new(Arc::clone(&image), serial, Arc::clone(&statistics));
        let worker = Worker::spawn(name, move |job: &mut Activation, stop| -> Outcome {
            io::work(&mut disk, job, stop)
        })
        .map_err(|source| DiskError::Thread {
            path: options.path.clone(),
            source,
        })?;
        Ok(Self {
            features: features(image.readonly()),
            config: config(&image),
            image,
            statistics,
            worker,
        })
    }

    /// What the disk did so far.
    pub fn statistics(&self) -> &Arc<Statistics> {
        &self.statistics
    }

    /// The image.
    pub fn image(&self) -> &Image {
        &self.image
    }
}

impl VirtioDevice for Block {
    fn device_type(&self) -> u16 {
        spec::DEVICE_BLOCK
    }

    fn pci_class(&self) -> u32 {
        PCI_CLASS
    }

    fn features(&self) -> u64 {
        self.features
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn config_size(&self) -> u32 {
        CONFIG_SIZE as u32
    }

    fn config_read(&self, offset: u64, data: &mut [u8]) {
        read_image(&self.config, offset, data);
    }

    fn activate(&self, activation: Activation) -> std::io::Result<()> {
        self.worker.submit(activation)
    }

    fn set_running(&self, running: bool) {
        self.worker.set_running(running);
    }

    fn reset(&self) {
        self.worker.clear();
    }
}

fn features(readonly: bool) -> u64 {
    let access = if readonly {
        spec::BLK_F_RO
    } else {
        spec::BLK_F_DISCARD | spec::BLK_F_WRITE_ZEROES
    };
    spec::BLK_F_SEG_MAX | spec::BLK_F_BLK_SIZE | spec::BLK_F_FLUSH | spec::BLK_F_TOPOLOGY | access
}

/// `struct virtio_blk_config` (§5.2.4).
fn config(image: &Image) -> [u8; CONFIG_SIZE] {
    let geometry = image.geometry();
    let per_physical = geometry.physical / geometry.logical;
    let alignment = geometry.physical / SECTOR as u32;
    let mut config = [0; CONFIG_SIZE];
    let mut put = |offset: usize, bytes: &[u8]| {
        for (target, byte) in config.iter_mut().skip(offset).zip(bytes) {
            *target = *byte;
        }
    };
    put(0, &image.sectors().to_le_bytes());
    put(12, &SEG_MAX.to_le_bytes());
    put(20, &geometry.logical.to_le_bytes());
    // Topology: physical blocks as a power of two of logical ones, and the smallest efficient I/O in logical blocks.
    put(24, &[per_physical.trailing_zeros() as u8, 0]);
    put(26, &(per_physical as u16).to_le_bytes());
    if !image.readonly() {
        put(36, &request::MAX_DISCARD_SECTORS.to_le_bytes());
        put(40, &request::MAX_RANGES.to_le_bytes());
        put(44, &alignment.to_le_bytes());
        put(48, &request::MAX_ZERO_SECTORS.to_le_bytes());
        put(52, &request::MAX_RANGES.to_le_bytes());
        put(56, &[1]);
    }
    config
}

fn serial_bytes(serial: &str) -> Result<[u8; BLK_ID_BYTES], DiskError> {
    let fits = (1..=BLK_ID_BYTES).contains(&serial.len());
    if !fits || !serial.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(DiskError::Serial {
            serial: serial.to_owned(),
        });
    }
    let mut bytes = [0; BLK_ID_BYTES];
    for (target, byte) in bytes.iter_mut().zip(serial.bytes()) {
        *target = byte;
    }
    Ok(bytes)
}
