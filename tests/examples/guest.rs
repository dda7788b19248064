//! Builds the lab's guest by hand: `guest disk ROOTS OUT CMDLINE`, `guest direct ROOTS FOLDER`.
//! ROOTS are folders of unpacked Debian packages, separated by colons.

use std::{env, error::Error, fs, path::Path};
use tests::guest::{Boot, GrubConfig, GuestDisk, Initramfs, Kernel, Roots, extract_vmlinux};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["disk", roots, out, cmdline] => disk(roots, Path::new(out), Boot::Grub(GrubConfig::new(cmdline))),
        ["graphical-disk", roots, out, cmdline] => {
            disk(roots, Path::new(out), Boot::Grub(GrubConfig::new(cmdline).graphical()))
        }
        ["shell-disk", roots, out, cmdline] => disk(roots, Path::new(out), Boot::Shell(cmdline.into())),
        ["cmdline", disk, cmdline] => Ok(GuestDisk::reconfigure(Path::new(disk), &GrubConfig::new(cmdline))?),
        ["direct", roots, folder] => direct(roots, Path::new(folder)),
        _ => Err("usage: see the top of examples/guest.rs".into()),
    }
}

fn disk(roots: &str, out: &Path, boot: Boot) -> Result<(), Box<dyn Error>> {
    let roots = Roots::new(roots.split(':'));
    let kernel = Kernel::find(&roots)?;
    let initramfs = Initramfs::new(&roots, &kernel).build()?;
    println!(
        "Linux {}, initramfs of {} KiB",
        kernel.release(),
        initramfs.len() / 1024
    );
    Ok(GuestDisk::new(&roots, &kernel, &initramfs).boot(boot).write(out)?)
}

fn direct(roots: &str, folder: &Path) -> Result<(), Box<dyn Error>> {
    let roots = Roots::new(roots.split(':'));
    let kernel = Kernel::find(&roots)?;
    fs::write(folder.join("initrd.img"), Initramfs::new(&roots, &kernel).build()?)?;
    fs::write(folder.join("vmlinux"), extract_vmlinux(kernel.image())?)?;
    fs::copy(kernel.image(), folder.join("bzImage"))?;
    Ok(())
}
