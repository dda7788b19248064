//! Which files of a host a capture holds, and how much of each.

/// What is kept of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keep {
    /// All of it: the kernel's own words, in which nothing personal stands.
    All,
    /// All of it, masked.
    Masked,
    /// That it is there.
    Name,
    /// The standard header of config space. What follows may hold a serial number.
    Header,
    /// `mountinfo`, `mounts`.
    Mounts,
    /// `/proc/net/route`.
    Route,
    /// `/proc/net/ipv6_route`.
    Route6,
    /// Names and use counts of modules, without where they lie in memory.
    Modules,
    /// What lies where, without the kernel itself.
    Iomem,
    /// Of the lines, those that begin with one of these.
    Lines(&'static [&'static str]),
    /// Of the entries that end in NUL, those with a PCI alias.
    BuiltinAliases,
    /// The modules that there are, without what they need.
    ModuleNames,
    /// Groups that own a device of a host, without their members.
    Groups,
    /// Of udev's notes on a disk, what file system is on it.
    FileSystem,
    /// The part of the PCI ID database that is about the functions of this host.
    PciNames,
}

use Keep::{All, Masked, Name};

/// A path, in which `*` stands for any part of a name, and what to keep of the files there. A directory or a link is kept
/// as such.
pub(super) type Rule = (&'static str, Keep);

/// Files of a PCI function. What is read from the device itself comes last: it would wake one that sleeps.
pub(super) const FUNCTION: &[Rule] = &[
    ("vendor", All),
    ("device", All),
    ("class", All),
    ("revision", All),
    ("subsystem_vendor", All),
    ("subsystem_device", All),
    ("modalias", All),
    ("resource", All),
    ("resource*_resize", All),
    ("irq", All),
    ("enable", All),
    ("boot_vga", All),
    ("driver", Name),
    ("driver/module", Name),
    ("driver_override", Masked),
    ("iommu_group", Name),
    ("iommu", Name),
    ("physfn", Name),
    ("virtfn*", Name),
    ("sriov_numvfs", All),
    ("sriov_totalvfs", All),
    ("power_state", All),
    ("power/runtime_status", All),
    ("power/control", All),
    ("d3cold_allowed", All),
    ("reset", Name),
    ("reset_method", All),
    ("rom", Name),
    ("numa_node", All),
    ("msi_bus", All),
    ("msi_irqs/*", Name),
    ("drm/*/device", Name),
    ("drm/card*/card*/status", All),
    ("drm/card*/card*/enabled", All),
    ("vfio-dev/*/dev", All),
    ("label", Masked),
    ("acpi_index", All),
    ("current_link_speed", All),
    ("current_link_width", All),
    ("max_link_speed", All),
    ("max_link_width", All),
    ("config", Keep::Header),
];

/// Files of the host, but for those of the functions and of the kernel's modules.
pub(super) const HOST: &[Rule] = &[
    ("sys/bus/pci/drivers/*", Name),
    ("sys/bus/pci/drivers/*/module", Name),
    ("sys/bus/pci/slots/*/address", All),
    ("sys/kernel/iommu_groups/*/devices/*", Name),
    ("sys/kernel/iommu_groups/*/reserved_regions", All),
    ("sys/kernel/iommu_groups/*/type", All),
    ("sys/class/iommu/*", Name),
    ("sys/class/iommu/*/intel-iommu/*", All),
    ("sys/class/iommu/*/amd-iommu/*", All),
    ("sys/class/vfio/*", Name),
    ("sys/class/vfio-dev/*", Name),
    // Displays and consoles.
    ("sys/class/drm/*", Name),
    ("sys/class/drm/*/device", Name),
    ("sys/class/drm/*/status", All),
    ("sys/class/graphics/*", Name),
    ("sys/class/graphics/*/name", All),
    ("sys/class/graphics/*/device", Name),
    ("sys/class/vtconsole/*/name", All),
    ("sys/class/vtconsole/*/bind", All),
    ("sys/class/tty/console/active", All),
    ("sys/class/sound/*", Name),
    ("sys/bus/serio/drivers/atkbd/*", Name),
    ("sys/bus/usb/devices/*/idVendor", All),
    ("sys/bus/usb/devices/*/idProduct", All),
    ("sys/bus/usb/devices/*/busnum", All),
    ("sys/bus/usb/devices/*/devnum", All),
    ("sys/bus/usb/devices/*/speed", All),
    ("sys/bus/usb/devices/*/bDeviceClass", All),
    ("sys/bus/usb/devices/*/bInterfaceClass", All),
    ("sys/bus/usb/devices/*/bInterfaceSubClass", All),
    ("sys/bus/usb/devices/*/bInterfaceProtocol", All),
    // Disks.
    ("sys/dev/block/*", Name),
    ("sys/class/block/*/dev", All),
    ("sys/class/block/*/size", All),
    ("sys/class/block/*/ro", All),
    ("sys/class/block/*/removable", All),
    ("sys/class/block/*/partition", All),
    ("sys/class/block/*/device", Name),
    ("sys/class/block/*/slaves/*", Name),
    ("sys/class/block/*/holders/*", Name),
    ("sys/class/block/*/dm/name", Masked),
    ("sys/class/block/*/dm/uuid", Masked),
    ("sys/class/block/*/md/level", All),
    ("sys/class/block/*/md/array_state", All),
    ("sys/class/block/*/loop/backing_file", Masked),
    ("sys/class/nvme/*/state", All),
    ("sys/class/nvme/*/transport", All),
    ("sys/class/nvme/*/address", Masked),
    ("sys/class/nvme/*/device", Name),
    ("sys/class/nvme-subsystem/*/nvme*", Name),
    ("sys/fs/btrfs/*/devices/*", Name),
    ("run/udev/data/b*", Keep::FileSystem),
    ("proc/self/mountinfo", Keep::Mounts),
    ("proc/self/mounts", Keep::Mounts),
    ("proc/mounts", Keep::Mounts),
    ("proc/swaps", Masked),
    ("proc/mdstat", Masked),
    // Networks.
    ("sys/class/net/*/device", Name),
    ("sys/class/net/*/master", Name),
    ("sys/class/net/*/lower_*", Name),
    ("sys/class/net/*/upper_*", Name),
    ("sys/class/net/*/brif/*", Name),
    ("sys/class/net/*/bridge", Name),
    ("sys/class/net/*/wireless", Name),
    ("sys/class/net/*/bonding/slaves", Masked),
    ("sys/class/net/*/operstate", All),
    ("sys/class/net/*/type", All),
    ("sys/class/net/*/ifindex", All),
    ("sys/class/net/*/iflink", All),
    ("proc/net/route", Keep::Route),
    ("proc/net/ipv6_route", Keep::Route6),
    ("proc/net/vlan/*", Masked),
    // Machine.
    ("sys/devices/system/cpu/online", All),
    ("sys/devices/system/cpu/present", All),
    ("sys/devices/system/cpu/possible", All),
    ("sys/devices/system/cpu/isolated", All),
    ("sys/devices/system/cpu/nohz_full", All),
    ("sys/devices/system/cpu/smt/*", All),
    ("sys/devices/system/cpu/cpu*/topology/core_id", All),
    ("sys/devices/system/cpu/cpu*/topology/physical_package_id", All),
    ("sys/devices/system/cpu/cpu*/topology/thread_siblings_list", All),
    ("sys/devices/system/node/node*/cpulist", All),
    ("sys/devices/system/node/node*/hugepages/*/nr_hugepages", All),
    ("sys/devices/system/node/node*/hugepages/*/free_hugepages", All),
    ("sys/devices/system/clocksource/clocksource0/current_clocksource", All),
    ("sys/kernel/mm/hugepages/*/nr_hugepages", All),
    ("sys/kernel/mm/hugepages/*/free_hugepages", All),
    ("sys/kernel/mm/hugepages/*/resv_hugepages", All),
    ("sys/kernel/mm/hugepages/*/surplus_hugepages", All),
    ("sys/kernel/mm/hugepages/*/nr_overcommit_hugepages", All),
    ("sys/kernel/mm/transparent_hugepage/enabled", All),
    ("sys/kernel/security/lockdown", All),
    ("sys/hypervisor/type", All),
    ("sys/firmware/efi/fw_platform_size", All),
    ("sys/firmware/efi/efivars/SecureBoot-*", All),
    ("sys/firmware/acpi/tables/*", Name),
    ("sys/class/dmi/id/sys_vendor", Masked),
    ("sys/class/dmi/id/product_name", Masked),
    ("sys/class/dmi/id/product_version", Masked),
    ("sys/class/dmi/id/board_vendor", Masked),
    ("sys/class/dmi/id/board_name", Masked),
    ("sys/class/dmi/id/bios_vendor", Masked),
    ("sys/class/dmi/id/bios_version", Masked),
    ("sys/class/dmi/id/bios_date", All),
    ("sys/class/dmi/id/chassis_type", All),
    ("proc/cpuinfo", All),
    ("proc/meminfo", All),
    ("proc/iomem", Keep::Iomem),
    ("proc/interrupts", Masked),
    ("proc/self/limits", All),
    ("proc/self/status", Keep::Lines(&["VmLck:", "CapEff:"])),
    // Kernel.
    ("proc/cmdline", Masked),
    ("proc/version", Masked),
    ("proc/modules", Keep::Modules),
    ("proc/sys/kernel/osrelease", Masked),
    ("proc/sys/kernel/tainted", All),
    ("proc/sys/vm/nr_hugepages", All),
    ("proc/sys/vm/overcommit_memory", All),
    ("sys/module/*/refcnt", All),
    ("sys/module/*", Name),
    ("sys/module/kvm*/parameters/*", All),
    ("sys/module/vfio*/parameters/*", All),
    ("sys/module/iommufd/parameters/*", All),
    ("sys/module/pci_stub/parameters/*", All),
    ("dev/kvm", Name),
    ("dev/iommu", Name),
    ("dev/vfio/*", Name),
    ("dev/vfio/devices/*", Name),
    // Distribution and boot.
    ("etc/os-release", All),
    ("usr/lib/os-release", All),
    ("etc/group", Keep::Groups),
    ("etc/default/grub", Masked),
    ("etc/default/grub.d/*", Masked),
    ("etc/sysconfig/bootloader", Masked),
    ("etc/kernel/cmdline", Masked),
    ("etc/cmdline.d/*", Masked),
    ("etc/kernel/proxmox-boot-uuids", Name),
    ("etc/pve", Name),
    ("usr/bin/pveversion", Name),
    ("usr/bin/dracut", Name),
    ("etc/grub2.cfg", Name),
    ("etc/grub2-efi.cfg", Name),
    ("etc/dracut.conf", Masked),
    ("etc/dracut.conf.d", Name),
    ("etc/dracut.conf.d/*", Masked),
    ("etc/mkinitcpio.conf", Masked),
    ("etc/mkinitcpio.conf.d/*", Masked),
    ("etc/mkinitcpio.d/*", Masked),
    ("etc/initramfs-tools/initramfs.conf", Masked),
    ("etc/initramfs-tools/modules", Masked),
    ("etc/modprobe.d/*", Masked),
    ("etc/modules-load.d/*", Masked),
    ("run/ostree-booted", Name),
    ("boot/loader/entries/*", Masked),
    ("boot/efi/loader/entries/*", Masked),
    ("boot/grub/grub.cfg", Name),
    ("boot/grub2/grub.cfg", Name),
    // Firmware of guests.
    ("usr/share/qemu/firmware/*", All),
    ("etc/qemu/firmware/*", All),
    ("usr/share/OVMF/*", Name),
    ("usr/share/ovmf/*", Name),
    ("usr/share/edk2/*/*", Name),
    ("usr/share/edk2-ovmf/*/*", Name),
    ("usr/share/qemu/*.fd", Name),
    ("usr/share/hwdata/pci.ids", Keep::PciNames),
    ("usr/share/misc/pci.ids", Keep::PciNames),
];

/// Files of the modules of the running kernel.
pub(super) const MODULES: &[Rule] = &[
    ("modules.alias", Keep::Lines(&["alias pci:"])),
    ("modules.builtin.modinfo", Keep::BuiltinAliases),
    ("modules.builtin", All),
    ("modules.dep", Keep::ModuleNames),
    ("modules.softdep", Masked),
];

/// Whether a name is what a part of a rule's path stands for.
pub(super) fn fits(pattern: &str, name: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else {
        return pattern == name;
    };
    let Some(mut left) = name.strip_prefix(first) else {
        return false;
    };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        match left.split_once(part) {
            Some((_, after)) => left = after,
            None => return false,
        }
    }
    left.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stand_for_any_part_of_a_name() {
        for (pattern, name, expected) in [
            ("vendor", "vendor", true),
            ("vendor", "vendors", false),
            ("*", "anything", true),
            ("card*", "card0-HDMI-A-1", true),
            ("card*", "renderD128", false),
            ("resource*_resize", "resource1_resize", true),
            ("resource*_resize", "resource1", false),
            ("*.fd", "OVMF_CODE.fd", true),
            ("a*b*c", "a1b2c", true),
            ("a*b*c", "acb", false),
            ("ab*ba", "aba", false),
        ] {
            assert_eq!(fits(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn no_rule_takes_what_is_personal() {
        let all = [FUNCTION, HOST, MODULES].concat();
        for word in [
            "serial",
            "uuid",
            "/address",
            "hostname",
            "machine-id",
            "passwd",
            "wwid",
            "unique_id",
            "asset",
        ] {
            let taken: Vec<_> = all
                .iter()
                .filter(|(path, keep)| path.contains(word) && !matches!(keep, Masked | Name))
                .filter(|(path, _)| *path != "sys/bus/pci/slots/*/address")
                .collect();
            assert!(taken.is_empty(), "{word}: {taken:?}");
        }
    }
}
