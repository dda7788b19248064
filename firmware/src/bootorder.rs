//! The `bootorder` file: OpenFirmware paths of the devices to boot, most wanted first.
//!
//! OVMF removes automatic boot options for devices the list leaves out: it names every disk, or is not given at all.

use std::fmt::Write;

/// fw_cfg file.
pub const FILE: &str = "bootorder";

/// OVMF reads this many nodes of a path (edk2 `OvmfPkg/Library/QemuBootOrderLib`), root and disk included.
pub const MAX_BRIDGES: usize = 3;

/// A function's place among its siblings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotFunction {
    /// Device number, 0 to 31.
    pub slot: u8,
    /// Function number, 0 to 7.
    pub function: u8,
}

/// A function's place in the machine: the bridges that lead to it from the root bus, and itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PciPath {
    /// From the root bus downwards; empty for a function on the root bus. At most [`MAX_BRIDGES`].
    pub bridges: Vec<SlotFunction>,
    /// The function on the last bus.
    pub function: SlotFunction,
}

/// Something to boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BootDevice {
    /// A virtio-blk disk.
    VirtioBlk(PciPath),
    /// An assigned NVMe drive, network adapter or other function: whatever UEFI finds on it.
    Assigned {
        /// Where.
        path: PciPath,
        /// PCI vendor id.
        vendor: u16,
        /// PCI device id.
        device: u16,
    },
}

impl BootDevice {
    /// Its OpenFirmware path. Numbers are hexadecimal without prefix; function 0 is left out.
    #[must_use]
    pub fn open_firmware_path(&self) -> String {
        let (path, name, tail) = match self {
            Self::VirtioBlk(path) => (path, "scsi".to_owned(), "/disk@0,0"),
            Self::Assigned { path, vendor, device } => (path, format!("pci{vendor:x},{device:x}"), ""),
        };
        let mut text = "/pci@i0cf8".to_owned();
        for bridge in &path.bridges {
            node(&mut text, "pci-bridge", *bridge);
        }
        node(&mut text, &name, path.function);
        text + tail
    }
}

fn node(text: &mut String, name: &str, at: SlotFunction) {
    // Writing to a string does not fail.
    let _ = write!(text, "/{name}@{:x}", at.slot);
    if at.function != 0 {
        let _ = write!(text, ",{:x}", at.function);
    }
}

/// The file's contents: one path a line, NUL at the very end. `halt` stops OVMF after the list.
#[must_use]
pub fn contents(devices: &[BootDevice], halt: bool) -> Vec<u8> {
    let mut lines: Vec<_> = devices.iter().map(BootDevice::open_firmware_path).collect();
    if halt {
        lines.push("HALT".to_owned());
    }
    let mut bytes = lines.join("\n").into_bytes();
    bytes.push(0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(slot: u8, function: u8) -> SlotFunction {
        SlotFunction { slot, function }
    }

    #[test]
    fn paths_are_those_ovmf_translates() {
        let path = |bridges: &[SlotFunction], function| PciPath {
            bridges: bridges.to_vec(),
            function,
        };
        let cases = [
            (
                BootDevice::VirtioBlk(path(&[at(2, 0)], at(0, 0))),
                "/pci@i0cf8/pci-bridge@2/scsi@0/disk@0,0",
            ),
            (
                BootDevice::VirtioBlk(path(&[], at(0x1d, 3))),
                "/pci@i0cf8/scsi@1d,3/disk@0,0",
            ),
            (
                BootDevice::Assigned {
                    path: path(&[at(0x10, 1)], at(0, 0)),
                    vendor: 0x144d,
                    device: 0xa808,
                },
                "/pci@i0cf8/pci-bridge@10,1/pci144d,a808@0",
            ),
        ];
        for (device, expected) in &cases {
            assert_eq!(device.open_firmware_path(), *expected);
        }
        let bytes = contents(&[cases[1].0.clone(), cases[0].0.clone()], true);
        let expected = b"/pci@i0cf8/scsi@1d,3/disk@0,0\n/pci@i0cf8/pci-bridge@2/scsi@0/disk@0,0\nHALT\0";
        assert_eq!(bytes, expected);
    }
}
