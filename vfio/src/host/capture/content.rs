//! What is kept of the content of a file.

use super::mask::Masks;
use super::rules::Keep;

/// The header of a PCI function's config space that is the same for all (PCI 3.0, 6.1).
const HEADER: usize = 64;

/// Groups that devices of a host are given to.
const DEVICE_GROUPS: &[&str] = &["kvm", "vfio", "libvirt", "qemu", "video", "render"];

/// What a capture holds of the content; `None` for nothing at all, not even the file.
pub(super) fn kept(keep: Keep, content: &[u8], masks: &mut Masks, ids: &[(u16, u16)]) -> Option<Vec<u8>> {
    let text = || String::from_utf8_lossy(content);
    Some(match keep {
        Keep::All => content.to_vec(),
        Keep::Name => Vec::new(),
        Keep::Header => content.get(..HEADER).unwrap_or(content).to_vec(),
        Keep::Masked => masks.text(&text()).into_bytes(),
        Keep::Mounts => masks.mounts(&text()).into_bytes(),
        Keep::Route => masks.route(&text()).into_bytes(),
        Keep::Route6 => masks.route6(&text()).into_bytes(),
        Keep::Modules => lines(&text(), module).into_bytes(),
        Keep::Iomem => lines(&text(), |line| (!line.contains("Kernel ")).then(|| line.to_owned())).into_bytes(),
        Keep::Lines(starts) => lines(&text(), |line| {
            starts
                .iter()
                .any(|start| line.starts_with(start))
                .then(|| line.to_owned())
        })
        .into_bytes(),
        Keep::BuiltinAliases => builtin_aliases(content),
        Keep::ModuleNames => lines(&text(), |line| {
            line.split_once(':').map(|(module, _)| format!("{module}:"))
        })
        .into_bytes(),
        Keep::Groups => lines(&text(), group).into_bytes(),
        Keep::FileSystem => file_system(&text())?.into_bytes(),
        Keep::PciNames => pci_names(content, ids),
    })
}

fn lines(text: &str, keep: impl Fn(&str) -> Option<String>) -> String {
    text.lines()
        .filter_map(keep)
        .fold(String::new(), |kept, line| kept + &line + "\n")
}

/// Without the address of the module, which tells where the kernel lies in memory.
fn module(line: &str) -> Option<String> {
    let fields: Vec<&str> = line.split(' ').take(5).collect();
    Some(format!("{} 0x0000000000000000", fields.join(" ")))
}

fn group(line: &str) -> Option<String> {
    let fields: Vec<&str> = line.split(':').collect();
    let [name, password, number, _] = fields.as_slice() else {
        return None;
    };
    DEVICE_GROUPS
        .contains(name)
        .then(|| format!("{name}:{password}:{number}:"))
}

/// Which pool a disk of ZFS is in stands nowhere else.
fn file_system(notes: &str) -> Option<String> {
    let kind = notes.lines().find(|line| *line == "E:ID_FS_TYPE=zfs_member")?;
    let pool = notes.lines().find(|line| line.starts_with("E:ID_FS_LABEL="));
    Some(format!("{kind}\n{}\n", pool.unwrap_or_default()))
}

fn builtin_aliases(content: &[u8]) -> Vec<u8> {
    let mut kept = Vec::new();
    for entry in content.split(|byte| *byte == 0) {
        if entry.windows(11).any(|window| window == b".alias=pci:") {
            kept.extend_from_slice(entry);
            kept.push(0);
        }
    }
    kept
}

/// Vendors with all their subsystem lines below the devices that are here, and the list of classes.
fn pci_names(content: &[u8], ids: &[(u16, u16)]) -> Vec<u8> {
    let text = String::from_utf8_lossy(content);
    let id = |line: &str| u16::from_str_radix(line.get(..4)?, 16).ok();
    let (mut vendor, mut device, mut classes) = (None, None, false);
    let kept = text
        .lines()
        .filter(|line| {
            if line.starts_with('#') || line.is_empty() {
                return false;
            }
            classes = classes || line.starts_with("C ");
            if classes {
                return true;
            }
            if let Some(rest) = line.strip_prefix("\t\t") {
                return !rest.is_empty() && device.is_some_and(|device| ids.contains(&device));
            }
            if let Some(rest) = line.strip_prefix('\t') {
                device = vendor.zip(id(rest));
                return device.is_some_and(|device| ids.contains(&device));
            }
            // Vendors all stay: subsystems are named by them.
            vendor = id(line);
            device = None;
            true
        })
        .fold(String::new(), |text, line| text + line + "\n");
    kept.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_each_file_so_much_is_kept() {
        let mut header = vec![7; 256];
        header[64] = 3;
        for (keep, content, expected) in [
            (Keep::Name, &b"secret"[..], Some(&b""[..])),
            (Keep::Header, &header, Some(&[7; 64])),
            (Keep::Modules, b"kvm 1 2 x, Live 0xffffffffc0a0 (OE)\n", Some(b"kvm 1 2 x, Live 0x0000000000000000\n")),
            (
                Keep::Iomem,
                b"00001000-0009ffff : System RAM\n  02000000-03001fff : Kernel code\n",
                Some(b"00001000-0009ffff : System RAM\n"),
            ),
            (
                Keep::Lines(&["VmLck:"]),
                b"Name:\tsecret\nVmLck:\t0 kB\n",
                Some(b"VmLck:\t0 kB\n"),
            ),
            (Keep::ModuleNames, b"a/vfio.ko: b/iommufd.ko\n", Some(b"a/vfio.ko:\n")),
            (Keep::Groups, b"wheel:x:10:john\nkvm:x:36:john,jane\n", Some(b"kvm:x:36:\n")),
            (
                Keep::FileSystem,
                b"E:ID_SERIAL=S64A\nE:ID_FS_TYPE=zfs_member\nE:ID_FS_LABEL=tank\n",
                Some(b"E:ID_FS_TYPE=zfs_member\nE:ID_FS_LABEL=tank\n"),
            ),
            (Keep::FileSystem, b"E:ID_SERIAL=S64A\nE:ID_FS_TYPE=ext4\n", None),
            (
                Keep::BuiltinAliases,
                b"ahci.alias=pci:v*\0ahci.author=Someone\0",
                Some(b"ahci.alias=pci:v*\0"),
            ),
            (
                Keep::PciNames,
                b"# all\n10de  NVIDIA\n\t1401  GM206\n\t\t3842 2966  SSC\n\t1402  Other\n\t\t3842 1111  No\n1002  AMD\nC 03  Display\n\t00  VGA\n",
                Some(b"10de  NVIDIA\n\t1401  GM206\n\t\t3842 2966  SSC\n1002  AMD\nC 03  Display\n\t00  VGA\n"),
            ),
        ] {
            let kept = kept(keep, content, &mut Masks::default(), &[(0x10de, 0x1401)]);
            assert_eq!(kept.as_deref(), expected, "{keep:?}");
        }
    }
}
