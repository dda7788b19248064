//! The disk, from packages that hold next to nothing.

use super::{Boot, GrubConfig, GuestDisk, Kernel, Roots, grub::CONFIG_SIZE};
use fatfs::{FileSystem, FsOptions};
use std::{
    fs,
    io::{Cursor, Read},
    path::{Path, PathBuf},
};

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("tenon-guest-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        let files = [
            ("boot/vmlinuz-6.1.0-9-amd64", "older kernel"),
            ("boot/vmlinuz-6.1.0-50-amd64", "a kernel"),
            ("lib/modules/6.1.0-9-amd64/kernel/none.ko", ""),
            ("lib/modules/6.1.0-50-amd64/kernel/none.ko", ""),
            ("usr/share/grub/ascii.pf2", "a font"),
            ("usr/lib/grub/x86_64-efi/monolithic/grubx64.efi", "a boot loader"),
        ];
        for (file, content) in files {
            let file = path.join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, content).unwrap();
        }
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A file of the image's only partition, found through its partition table.
fn file(image: &Path, name: &str) -> Vec<u8> {
    let table = gpt::GptConfig::new().open(image).unwrap();
    let partition = table
        .partitions()
        .values()
        .find(|partition| partition.is_used())
        .unwrap();
    assert_eq!(partition.part_type_guid, gpt::partition_types::EFI);
    let (first, last) = (partition.first_lba as usize, partition.last_lba as usize);
    let mut bytes = fs::read(image).unwrap();
    let volume = FileSystem::new(Cursor::new(&mut bytes[first * 512..(last + 1) * 512]), FsOptions::new()).unwrap();
    assert_eq!(volume.fat_type(), fatfs::FatType::Fat16);
    let mut content = Vec::new();
    volume
        .root_dir()
        .open_file(name)
        .unwrap()
        .read_to_end(&mut content)
        .unwrap();
    content
}

#[test]
fn a_disk_is_laid_out_and_reconfigured() {
    let folder = Folder::new("disk");
    let roots = Roots::new([&folder.0]);
    let kernel = Kernel::find(&roots).unwrap();
    let image = folder.0.join("disk.img");
    let initramfs = vec![7; 3 << 20];
    GuestDisk::new(&roots, &kernel, &initramfs)
        .boot(Boot::Grub(GrubConfig::new("first words")))
        .write(&image)
        .unwrap();
    assert_eq!(file(&image, "EFI/BOOT/BOOTX64.EFI"), b"a boot loader");
    assert_eq!(file(&image, "tenon/vmlinuz"), b"a kernel");
    assert_eq!(file(&image, "tenon/initrd.img"), initramfs);
    assert!(
        String::from_utf8(file(&image, "EFI/debian/grub.cfg"))
            .unwrap()
            .contains("vmlinuz first words\n")
    );

    let before = fs::read(&image).unwrap();
    let other = GrubConfig::new("other words").menu_seconds(1);
    GuestDisk::reconfigure(&image, &other).unwrap();
    assert_eq!(file(&image, "EFI/debian/grub.cfg"), other.render().unwrap());
    let after = fs::read(&image).unwrap();
    let at = GuestDisk::config_offset(&image).unwrap() as usize;
    assert_eq!(before[..at], after[..at]);
    assert_eq!(before[at + CONFIG_SIZE..], after[at + CONFIG_SIZE..]);
}

#[test]
fn a_disk_for_the_shell_has_no_boot_file() {
    let folder = Folder::new("shell");
    let roots = Roots::new([&folder.0]);
    let kernel = Kernel::find(&roots).unwrap();
    assert_eq!(kernel.release(), "6.1.0-50-amd64", "the newest, by number");
    let image = folder.0.join("disk.img");
    GuestDisk::new(&roots, &kernel, b"initramfs")
        .boot(Boot::Shell("words".into()))
        .write(&image)
        .unwrap();
    let script = String::from_utf8(file(&image, "startup.nsh")).unwrap();
    assert!(script.contains("initrd=\\tenon\\initrd.img words\r\n"), "{script}");
    let error = GuestDisk::reconfigure(&image, &GrubConfig::new("")).unwrap_err();
    assert!(error.to_string().contains("no grub.cfg"), "{error}");
}

#[test]
fn what_is_missing_is_named() {
    let folder = Folder::new("missing");
    fs::remove_dir_all(folder.0.join("usr/lib/grub")).unwrap();
    let roots = Roots::new([&folder.0]);
    let kernel = Kernel::find(&roots).unwrap();
    let error = GuestDisk::new(&roots, &kernel, &[])
        .write(&folder.0.join("disk.img"))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("grubx64.efi") && error.contains(&*folder.0.to_string_lossy()),
        "{error}"
    );
    let error = Kernel::find(&Roots::new(["/nowhere"])).unwrap_err().to_string();
    assert!(error.contains("boot/vmlinuz-*"), "{error}");
}
