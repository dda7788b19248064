//! What a function is called on a line of a table.

use vfio::host::survey::Function;

/// Its class in a word of at most eight letters.
pub(super) fn kind(class: u32) -> &'static str {
    match (class >> 16, class >> 8 & 0xff) {
        (0x01, 0x00) => "SCSI",
        (0x01, 0x01) => "IDE",
        (0x01, 0x04) => "RAID",
        (0x01, 0x06) => "SATA",
        (0x01, 0x07) => "SAS",
        (0x01, 0x08) => "NVMe",
        (0x01, _) => "storage",
        (0x02, 0x00) => "Ethernet",
        (0x02, _) => "network",
        (0x03, 0x00) => "VGA",
        (0x03, 0x02) => "3D",
        (0x03, _) => "display",
        (0x04, 0x00) => "video",
        (0x04, _) => "audio",
        (0x05, _) => "memory",
        (0x06, _) => "bridge",
        (0x07, 0x00) => "serial",
        (0x07, _) => "comm",
        (0x08, _) => "system",
        (0x09, _) => "input",
        (0x0b, _) => "CPU",
        (0x0c, 0x00) => "FireWire",
        (0x0c, 0x03) => "USB",
        (0x0c, 0x05) => "SMBus",
        (0x0c, _) => "bus",
        (0x0d, _) => "wireless",
        (0x10, _) => "crypto",
        (0x11, _) => "signal",
        (0x12, _) => "accel",
        _ => "other",
    }
}

/// Vendor and device as people say them: `NVIDIA GM206 [GeForce GTX 960]`.
pub(super) fn name(function: &Function) -> String {
    let ids = ids(function);
    let vendor = function.names.vendor.as_deref().map(short_vendor);
    match (vendor, function.names.device.as_deref()) {
        (Some(vendor), Some(device)) => format!("{vendor} {device}"),
        (Some(vendor), None) => format!("{vendor} device {ids}"),
        (None, _) => format!("device {ids}"),
    }
}

/// `10de:1401`.
pub(super) fn ids(function: &Function) -> String {
    format!("{:04x}:{:04x}", function.facts.vendor, function.facts.device)
}

/// Words at the end of a company's name that tell nothing.
const FORMS: [&str; 15] = [
    "Co",
    "Co.",
    "Company",
    "Corp",
    "Corp.",
    "Corporation",
    "Electronics",
    "Inc",
    "Inc.",
    "Incorporation",
    "Limited",
    "Ltd",
    "Ltd.",
    "Semiconductor",
    "Technology",
];

/// `Intel` for `Intel Corporation`, `AMD` for `Advanced Micro Devices, Inc. [AMD/ATI]`.
fn short_vendor(name: &str) -> &str {
    if let Some((_, rest)) = name.split_once('[')
        && let Some((short, _)) = rest.split_once(']')
    {
        return short.split('/').next().unwrap_or(short);
    }
    let mut short = name.split(',').next().unwrap_or(name).trim();
    short = short.strip_suffix(" and subsidiaries").unwrap_or(short);
    while let Some((front, last)) = short.rsplit_once(' ') {
        if !FORMS.contains(&last) {
            break;
        }
        short = front;
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vendors_lose_their_legal_forms() {
        for (name, short) in [
            ("Intel Corporation", "Intel"),
            ("Advanced Micro Devices, Inc. [AMD/ATI]", "AMD"),
            ("Advanced Micro Devices, Inc. [AMD]", "AMD"),
            ("Samsung Electronics Co Ltd", "Samsung"),
            ("Realtek Semiconductor Co., Ltd.", "Realtek"),
            ("ASMedia Technology Inc.", "ASMedia"),
            ("Broadcom Inc. and subsidiaries", "Broadcom"),
            ("Inc.", "Inc."),
            ("", ""),
        ] {
            assert_eq!(short_vendor(name), short);
        }
        assert_eq!(
            (kind(0x030000), kind(0x0c0330), kind(0xff0000)),
            ("VGA", "USB", "other")
        );
    }
}
