use super::{Error, GrubConfig, Kernel, Result, Roots, grub};
use fatfs::{FatType, FileSystem, FormatVolumeOptions, FsOptions};
use gpt::{disk::LogicalBlockSize, mbr::ProtectiveMBR, partition_types};
use std::{
    fs::{self, File},
    io::{self, Cursor, Read, Seek, SeekFrom, Write},
    path::Path,
};

/// The vendor GUID of the variables that the guest's `efivar-*` words touch. It is Linux's own for crash records,
/// whose variables efivarfs lets be rewritten without lifting a flag first.
pub const VARIABLE_GUID: &str = "cfc8fc79-be2e-4ddc-97f0-9f98bfe298a0";

const SECTOR: u64 = 512;
const MIB: u64 = 1 << 20;
/// First sector of the ESP, and its byte.
const ESP_LBA: u64 = 2048;
const ESP_START: u64 = ESP_LBA * SECTOR;
const CLUSTER: u32 = 8192;
/// A FAT16 volume has at least 4085 clusters; fewer would make it FAT12.
const ESP_LEAST: u64 = 34 * MIB;

/// What the firmware finds on the disk.
#[derive(Debug, Clone)]
pub enum Boot {
    /// GRUB as the default boot file, and its configuration.
    Grub(GrubConfig),
    /// No boot file: the firmware's shell runs `startup.nsh`, which starts the kernel's EFI stub with this command line.
    Shell(String),
}

/// The guest's disk: a GPT with one EFI system partition.
#[derive(Debug)]
pub struct GuestDisk<'a> {
    roots: &'a Roots,
    kernel: &'a Kernel,
    initramfs: &'a [u8],
    boot: Boot,
}

impl<'a> GuestDisk<'a> {
    /// A disk that boots `kernel` and `initramfs` through GRUB; change that with [`GuestDisk::boot`].
    #[must_use]
    pub fn new(roots: &'a Roots, kernel: &'a Kernel, initramfs: &'a [u8]) -> Self {
        Self {
            roots,
            kernel,
            initramfs,
            boot: Boot::Grub(GrubConfig::new("")),
        }
    }

    /// How it boots.
    #[must_use]
    pub fn boot(mut self, boot: Boot) -> Self {
        self.boot = boot;
        self
    }

    /// Writes the image, sparse.
    ///
    /// # Errors
    /// GRUB's package is not among the roots, or the image cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let mut files = self.boot_files()?;
        let kernel = self.kernel.image();
        files.push(("tenon/vmlinuz", fs::read(kernel).map_err(Error::io(kernel))?));
        files.push(("tenon/initrd.img", self.initramfs.to_vec()));
        let content: u64 = files.iter().map(|(_, bytes)| bytes.len() as u64).sum();
        let size = (content + content / 64 + 2 * MIB).max(ESP_LEAST).next_multiple_of(MIB);
        let esp = system_partition(size, &files).map_err(Error::io(path))?;
        let file = File::create(path).map_err(Error::io(path))?;
        // The backup table takes the last MiB.
        file.set_len(ESP_START + size + MIB).map_err(Error::io(path))?;
        partition(path, ESP_START + size + MIB, size)?;
        write_sparse(&file, &esp).map_err(Error::io(path))
    }

    fn boot_files(&self) -> Result<Vec<(&'static str, Vec<u8>)>> {
        let config = match &self.boot {
            Boot::Shell(cmdline) => {
                let script = format!("fs0:\r\n\\tenon\\vmlinuz initrd=\\tenon\\initrd.img {cmdline}\r\n");
                return Ok(vec![("startup.nsh", script.into_bytes())]);
            }
            Boot::Grub(config) => config.render()?,
        };
        Ok(vec![
            ("EFI/debian/grub.cfg", config),
            (
                "EFI/debian/fonts/ascii.pf2",
                self.roots.read(&["usr/share/grub/ascii.pf2"])?,
            ),
            (
                "EFI/BOOT/BOOTX64.EFI",
                self.roots.read(&["usr/lib/grub/x86_64-efi/monolithic/grubx64.efi"])?,
            ),
        ])
    }

    /// Gives an image made by [`GuestDisk::write`] another GRUB configuration, in place.
    ///
    /// # Errors
    /// The image is not such a disk, or cannot be written.
    pub fn reconfigure(path: &Path, config: &GrubConfig) -> Result<()> {
        let bytes = config.render()?;
        let at = Self::config_offset(path)?;
        let mut file = File::options().write(true).open(path).map_err(Error::io(path))?;
        file.seek(SeekFrom::Start(at))
            .and_then(|_| file.write_all(&bytes))
            .map_err(Error::io(path))
    }

    /// The byte of the image at which its `grub.cfg` ([`grub::CONFIG_SIZE`] bytes) starts, for who has only `dd`.
    ///
    /// # Errors
    /// The image has no GRUB configuration.
    pub fn config_offset(path: &Path) -> Result<u64> {
        let mut file = File::open(path).map_err(Error::io(path))?;
        // It is the first file, so it lies in the first clusters: behind two FATs of 16 bits an entry.
        let mut head = vec![0; 2 * MIB as usize];
        file.seek(SeekFrom::Start(ESP_START)).map_err(Error::io(path))?;
        let read = (&mut file).take(2 * MIB).read(&mut head).map_err(Error::io(path))?;
        let sectors = head[..read].chunks_exact(SECTOR as usize);
        let at = sectors
            .into_iter()
            .position(|sector| sector.starts_with(grub::HEADER.as_bytes()));
        at.map(|index| ESP_START + index as u64 * SECTOR).ok_or_else(|| {
            Error::format(
                path,
                &"not a disk of the lab's guest with GRUB: no grub.cfg of ours in it",
            )
        })
    }
}

fn partition(path: &Path, size: u64, esp: u64) -> Result<()> {
    let wrong = |why: &dyn std::fmt::Display| Error::Gpt {
        path: path.into(),
        why: why.to_string(),
    };
    let mut file = File::options()
        .read(true)
        .write(true)
        .open(path)
        .map_err(Error::io(path))?;
    let sectors = u32::try_from(size / SECTOR - 1).unwrap_or(u32::MAX);
    ProtectiveMBR::with_lb_size(sectors)
        .overwrite_lba0(&mut file)
        .map_err(|error| wrong(&error))?;
    let config = gpt::GptConfig::new()
        .writable(true)
        .logical_block_size(LogicalBlockSize::Lb512);
    let mut table = config.create_from_device(file, None).map_err(|error| wrong(&error))?;
    table
        .add_partition_at("tenon-esp", 1, ESP_LBA, esp / SECTOR, partition_types::EFI, 0)
        .map_err(|error| wrong(&error))?;
    table.write().map(drop).map_err(|error| wrong(&error))
}

/// A FAT16 volume of `size` bytes with the files in it, in their order.
fn system_partition(size: u64, files: &[(&str, Vec<u8>)]) -> io::Result<Vec<u8>> {
    let mut volume = Cursor::new(vec![0; usize::try_from(size).map_err(io::Error::other)?]);
    let options = FormatVolumeOptions::new()
        .fat_type(FatType::Fat16)
        .bytes_per_cluster(CLUSTER)
        .volume_label(*b"TENON ESP  ")
        .volume_id(0x7e20_0001);
    fatfs::format_volume(&mut volume, options)?;
    {
        let system = FileSystem::new(&mut volume, FsOptions::new())?;
        for (path, bytes) in files {
            let mut folder = system.root_dir();
            let mut parts = path.split('/').peekable();
            while let Some(part) = parts.next() {
                if parts.peek().is_some() {
                    folder = folder.create_dir(part)?;
                } else {
                    folder.create_file(part)?.write_all(bytes)?;
                }
            }
        }
        system.unmount()?;
    }
    Ok(volume.into_inner())
}

/// Writes the partition but for its zeros.
fn write_sparse(mut file: &File, esp: &[u8]) -> io::Result<()> {
    const BLOCK: usize = 65536;
    for (index, block) in esp.chunks(BLOCK).enumerate() {
        if block.iter().any(|&byte| byte != 0) {
            file.seek(SeekFrom::Start(ESP_START + (index * BLOCK) as u64))?;
            file.write_all(block)?;
        }
    }
    file.sync_all()
}
