//! Settings that are more than a number or a string: each is read the same way from the file and from a flag.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize, de};
use vfio::Bdf;

use crate::kvm::feature::WithoutFeature;

/// A value that a setting does not take.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{value}` is not a value for `{key}`: {remedy}")]
pub struct ValueError {
    key: &'static str,
    value: String,
    remedy: String,
}

impl ValueError {
    pub(super) fn new(key: &'static str, value: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            key,
            value: value.into(),
            remedy: remedy.into(),
        }
    }
}

/// Reads a type that is written as one string through its [`FromStr`].
macro_rules! deserialize_from_str {
    ($($type:ty),+) => {$(
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }
    )+};
}
deserialize_from_str!(MemorySize, FirmwareChoice, SerialTarget, Uuid, WithoutFeature);

/// An amount of memory, written with a suffix: `8G`, `1536M`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemorySize(u64);

impl MemorySize {
    /// The amount in bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// So many bytes.
    #[must_use]
    pub const fn from_bytes(bytes: u64) -> Self {
        Self(bytes)
    }
}

impl FromStr for MemorySize {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refused = |why: &str| ValueError::new("memory", text, why);
        let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
        let shift = match text[digits.len()..].trim_start() {
            "K" | "KiB" | "k" => 10,
            "M" | "MiB" | "m" => 20,
            "G" | "GiB" | "g" => 30,
            "T" | "TiB" | "t" => 40,
            "" => return Err(refused("add the unit, as in 8G or 1536M")),
            _ => return Err(refused("write a whole number and K, M, G or T, as in 8G or 1536M")),
        };
        let count: u64 = digits
            .parse()
            .map_err(|_| refused("write a whole number and a unit, as in 8G or 1536M"))?;
        count
            .checked_mul(1 << shift)
            .map(Self)
            .ok_or_else(|| refused("it is more than 64 bits hold"))
    }
}

impl fmt::Display for MemorySize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
        match units
            .iter()
            .find(|(shift, _)| self.0 != 0 && self.0.trailing_zeros() >= *shift)
        {
            Some((shift, unit)) => write!(f, "{} {unit}", self.0 >> shift),
            None => write!(f, "{} bytes", self.0),
        }
    }
}

/// Which OVMF image to use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FirmwareChoice {
    /// The one the distribution's firmware descriptors name first.
    Auto,
    /// This file.
    Path(PathBuf),
}

impl FromStr for FirmwareChoice {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "" => Err(ValueError::new(
                "firmware",
                text,
                "write `auto` or the path of an OVMF code image",
            )),
            path => Ok(Self::Path(path.into())),
        }
    }
}

/// Where the serial port leads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SerialTarget {
    /// The terminal tenon was started from.
    Stdio,
    /// Output into a file, no input.
    File(PathBuf),
    /// Nowhere: the port is there and what is written to it is lost.
    None,
}

impl FromStr for SerialTarget {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match (text, text.strip_prefix("file=")) {
            ("stdio", _) => Ok(Self::Stdio),
            ("none", _) => Ok(Self::None),
            (_, Some(path)) if !path.is_empty() => Ok(Self::File(path.into())),
            _ => Err(ValueError::new("serial", text, "write `stdio`, `file=PATH` or `none`")),
        }
    }
}

/// What the real-time clock shows at the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RtcBase {
    /// Universal time, which Linux expects.
    #[default]
    Utc,
    /// The host's local time, which Windows expects.
    Localtime,
}

impl FromStr for RtcBase {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "utc" => Ok(Self::Utc),
            "localtime" => Ok(Self::Localtime),
            _ => Err(ValueError::new("rtc", text, "write `utc` or `localtime`")),
        }
    }
}

/// Whether devices are taken from the host's drivers for a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum BindMode {
    /// They are on vfio-pci, or the run is refused.
    #[default]
    Off,
    /// Those that are named are taken, and given back afterwards.
    Named,
    /// With them their whole groups and cards, which the guest gets too.
    Auto,
}

impl FromStr for BindMode {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "off" => Ok(Self::Off),
            "named" => Ok(Self::Named),
            "auto" => Ok(Self::Auto),
            _ => Err(ValueError::new(
                "bind",
                text,
                "write `named`, `auto` or `off`; on the command line a CONFIG goes before --bind",
            )),
        }
    }
}

/// A UUID, its 16 bytes in the order they are written (RFC 9562 §4).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Uuid([u8; 16]);

impl Uuid {
    /// The bytes in written order. SMBIOS stores the first three groups little-endian (SMBIOS 3.7 §7.2.1).
    #[must_use]
    pub const fn bytes(&self) -> [u8; 16] {
        self.0
    }
}

impl FromStr for Uuid {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse_uuid(text).map(Self).ok_or_else(|| {
            ValueError::new(
                "uuid",
                text,
                "write it as `uuidgen` does: 6e1a3f5c-93c5-4a53-9d4c-0c4d2f6b8a10",
            )
        })
    }
}

fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    let mut groups = text.split('-');
    let mut digits = String::with_capacity(32);
    for length in [8, 4, 4, 4, 12] {
        let group = groups.next().filter(|group| group.len() == length)?;
        group
            .bytes()
            .all(|b| b.is_ascii_hexdigit())
            .then(|| digits.push_str(group))?;
    }
    let value = u128::from_str_radix(&digits, 16).ok()?;
    groups.next().is_none().then(|| value.to_be_bytes())
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex = format!("{:032x}", u128::from_be_bytes(self.0));
        write!(
            f,
            "{}-{}-{}-{}-{}",
            &hex[..8],
            &hex[8..12],
            &hex[12..16],
            &hex[16..20],
            &hex[20..]
        )
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Uuid {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A disk image.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Disk {
    /// The raw image: a file or a block device.
    pub path: PathBuf,
    /// Whether the guest may only read it.
    #[serde(default)]
    pub readonly: bool,
    /// Its place in the firmware's boot order; the lowest is tried first.
    pub bootindex: Option<u32>,
}

impl FromStr for Disk {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refused = |why: &str| ValueError::new("disk", text, why);
        let (mut path, mut readonly, mut bootindex) = (None, false, None);
        for part in split_commas(text) {
            match part.split_once('=') {
                Some(("path", value)) if !value.is_empty() => path = Some(PathBuf::from(value)),
                Some(("readonly", "on")) => readonly = true,
                Some(("readonly", "off")) => readonly = false,
                Some(("bootindex", value)) => {
                    let index = value
                        .parse()
                        .map_err(|_| refused("`bootindex` is a whole number from 0"))?;
                    bootindex = Some(index);
                }
                None if part == "readonly" => readonly = true,
                _ => {
                    return Err(refused(
                        "write path=FILE[,readonly][,bootindex=N]; a comma in FILE is written twice",
                    ));
                }
            }
        }
        let path = path.ok_or_else(|| refused("it has no path; write path=FILE[,readonly][,bootindex=N]"))?;
        Ok(Self {
            path,
            readonly,
            bootindex,
        })
    }
}

/// Splits at single commas; two of them stand for one.
fn split_commas(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let doubled = c == ',' && chars.next_if_eq(&',').is_some();
        match parts.last_mut() {
            Some(part) if c != ',' || doubled => part.push(c),
            _ => parts.push(String::new()),
        }
    }
    parts
}

/// A host PCI function given to the guest.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Device {
    /// Where it is on the host.
    #[serde(deserialize_with = "bdf_from_str", serialize_with = "bdf_to_str")]
    pub address: Bdf,
    /// A file to show as its expansion ROM instead of its own.
    pub romfile: Option<PathBuf>,
}

impl FromStr for Device {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts = split_commas(text);
        let (address, options) = parts.split_first().ok_or_else(|| refused_device(text))?;
        let address = address
            .parse()
            .map_err(|error: vfio::host::BdfParseError| ValueError::new("device", text, error.to_string()))?;
        let mut romfile = None;
        for option in options {
            match option.split_once('=') {
                Some(("romfile", path)) if !path.is_empty() => romfile = Some(path.into()),
                _ => return Err(refused_device(text)),
            }
        }
        Ok(Self { address, romfile })
    }
}

fn refused_device(text: &str) -> ValueError {
    ValueError::new(
        "device",
        text,
        "write its address as lspci -D shows it, 0000:01:00.0[,romfile=FILE]",
    )
}

fn bdf_from_str<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Bdf, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
}

fn bdf_to_str<S: serde::Serializer>(bdf: &Bdf, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(bdf)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_has_a_unit() {
        for (text, bytes) in [
            ("8G", 8 << 30),
            ("1536M", 1536 << 20),
            ("2 GiB", 2 << 30),
            ("131072K", 128 << 20),
        ] {
            assert_eq!(text.parse::<MemorySize>().unwrap().bytes(), bytes, "{text}");
        }
        for text in ["", "8", "G", "1.5G", "-1G", "8GB!", "99999999999T", "8é"] {
            let error = text.parse::<MemorySize>().unwrap_err().to_string();
            assert!(error.contains("`memory`"), "{error}");
        }
        assert_eq!(MemorySize::from_bytes(1536 << 20).to_string(), "1536 MiB");
        assert_eq!(MemorySize::from_bytes(8 << 30).to_string(), "8 GiB");
        assert_eq!(MemorySize::from_bytes(0).to_string(), "0 bytes");
    }

    #[test]
    fn disks_are_read_from_flags() {
        let disk: Disk = "path=/a,,b.img,readonly,bootindex=2".parse().unwrap();
        assert_eq!(
            disk,
            Disk {
                path: "/a,b.img".into(),
                readonly: true,
                bootindex: Some(2)
            }
        );
        assert!(!"path=a,readonly=off".parse::<Disk>().unwrap().readonly);
        for text in [
            "a.img",
            "path=",
            "readonly",
            "path=a,bootindex=x",
            "path=a,cache=none",
            "",
        ] {
            let error = text.parse::<Disk>().unwrap_err().to_string();
            assert!(error.contains("`disk`"), "{error}");
        }
    }

    #[test]
    fn devices_are_read_from_flags() {
        let device: Device = "01:00.1,romfile=gpu.rom".parse().unwrap();
        assert_eq!(
            (device.address.to_string().as_str(), device.romfile),
            ("0000:01:00.1", Some("gpu.rom".into()))
        );
        for text in ["", "nvidia", "0000:01:00.9", "01:00.0,rom=x"] {
            let error = text.parse::<Device>().unwrap_err().to_string();
            assert!(error.contains("0000:01:00.0"), "{error}");
        }
    }

    #[test]
    fn serial_firmware_and_clock() {
        assert_eq!("file=/tmp/a".parse(), Ok(SerialTarget::File("/tmp/a".into())));
        assert_eq!("none".parse(), Ok(SerialTarget::None));
        assert!("file=".parse::<SerialTarget>().is_err() && "tcp".parse::<SerialTarget>().is_err());
        assert_eq!("auto".parse(), Ok(FirmwareChoice::Auto));
        assert!("".parse::<FirmwareChoice>().is_err() && "local".parse::<RtcBase>().is_err());
    }

    #[test]
    fn uuids_keep_their_order() {
        let text = "6e1a3f5c-93c5-4a53-9d4c-0c4d2f6b8a10";
        let uuid: Uuid = text.parse().unwrap();
        assert_eq!(uuid.bytes()[..4], [0x6e, 0x1a, 0x3f, 0x5c]);
        assert_eq!(uuid.to_string(), text);
        for wrong in [
            "",
            "6e1a3f5c",
            "6e1a3f5c-93c5-4a53-9d4c-0c4d2f6b8a1+",
            "6e1a3f5c-93c5-4a53-9d4c-0c4d2f6b8a10-1",
        ] {
            assert!(wrong.parse::<Uuid>().is_err(), "{wrong}");
        }
    }
}
