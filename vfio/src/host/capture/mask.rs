//! What is personal in the files of a host is replaced before it goes into a capture: addresses, names of the host and
//! its users, UUIDs and labels of file systems, serial numbers. The same value becomes the same placeholder in every
//! file, so that what belongs together can still be told. Placeholders are values that stand for nobody
//! (documentation addresses, locally administered MACs), and are left alone when a capture is captured again.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::sync::LazyLock;

use regex::{Captures, Regex};

/// Host names and users that come with a distribution: they tell of nobody, and replacing them would change words that
/// mean something else.
const NOBODYS: &[&str] = &[
    "admin",
    "alma",
    "arch",
    "archiso",
    "archlinux",
    "cachyos",
    "centos",
    "debian",
    "desktop",
    "fedora",
    "guest",
    "home",
    "host",
    "kali",
    "kvm",
    "lab",
    "laptop",
    "linux",
    "live",
    "localhost",
    "localhost-live",
    "manjaro",
    "mint",
    "nixos",
    "nobody",
    "opensuse",
    "pc",
    "pop-os",
    "proxmox",
    "pve",
    "qemu",
    "root",
    "server",
    "tenon",
    "test",
    "ubuntu",
    "user",
    "vm",
    "vfio",
    "pci",
    "intel",
    "amd",
    "nvidia",
    "disk",
    "net",
    "sys",
    "kernel",
];

/// The name space of UEFI's own variables (UEFI 2.10, 3.3): SecureBoot is looked for under it.
const EFI_GLOBAL: &str = "8be4df61-93ca-11d2-aa0d-00e098032b8c";

/// Kernel messages of these say who plugs in what and who logs in, and nothing of the devices that can be assigned.
const OTHERS_LINES: &[&str] = &[
    "audit:",
    "audit(",
    "input:",
    "hid-",
    "Bluetooth:",
    "systemd",
    " IN=",
    "UFW ",
    "NFS:",
    "CIFS:",
    "apparmor=",
];

/// The kinds of value that are replaced, each counted on its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Mac,
    Uuid,
    Short,
    Ipv4,
    Ipv6,
    Host,
    User,
    Label,
    Serial,
    Address,
}

/// What was replaced so far, and by what.
#[derive(Debug, Clone, Default)]
pub struct Masks {
    known: Vec<(String, Kind)>,
    seen: BTreeMap<(Kind, String), usize>,
    counts: BTreeMap<Kind, usize>,
}

/// Each alternative has the group that is replaced. Words and case are those of ASCII, for which the tables of Unicode
/// need not be built in.
static PATTERNS: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(concat!(
        r"(?x)",
        // Names of network interfaces that are made of their MAC.
        r"  (?-u:\b) (?: enx | wlx | wwx ) (?<bare>[0-9a-f]{12}) (?-u:\b)",
        r"| (?-u:\b) (?<mac> [0-9A-Fa-f]{2} (?: [:-][0-9A-Fa-f]{2} ){5,19} ) (?-u:\b)",
        r"| (?-u:\b) (?<uuid> [0-9A-Fa-f]{8} (?: -[0-9A-Fa-f]{4} ){3} -[0-9A-Fa-f]{12} ) (?-u:\b)",
        r"| (?-u:\b) (?<machine> [0-9A-Fa-f]{32} ) (?-u:\b)",
        r"| (?-u:\b) LVM- (?<lvm> [A-Za-z0-9]{32,64} ) (?-u:\b)",
        r"| (?-u:\b) (?<pv> [A-Za-z0-9]{6} (?: -[A-Za-z0-9]{4} ){5} -[A-Za-z0-9]{6} ) (?-u:\b)",
        r#"| (?-u:\b) (?: PART )? UUID= "? (?<short> [0-9A-Za-z-]+ )"#,
        r#"| (?-u:\b) (?: PART )? LABEL= "? (?<label> [^\x20\t\n\r",]+ )"#,
        r"| /by-(?: id | label | partlabel | uuid | partuuid )/ (?<by>[^\x20\t\n\r,:]+ )",
        r"| (?-u:\b) device\ label\  (?<btrfs> [^\x20\t\n\r]+ )",
        r"| /home/ (?<home> [^/\x20\t\n\r:,;'\x22]+ )",
        r"| /media/ (?<media> [^/\x20\t\n\r:,;'\x22]+ )",
        r"| (?-u:\b) (?i-u: serial\ ?number | serial\ ?no\.? | serial\# | s/n | asset\ ?tag ) [\x20\t]* [:=] [\x20\t]* (?<serial> [^\x20\t\n\r,]{4,} )",
        r"| (?-u:\b) (?: serial | sn ) = (?<short_serial> [^\x20\t\n\r,]{4,} )",
        r"| (?-u:\b) (?: iqn | nqn | eui | naa ) \. (?<target> [^\x20\t\n\r,]+ )",
        r"| (?-u:\b) wwn-0x (?<wwn> [0-9a-f]+ ) (?-u:\b)",
        r"| (?<mail> [A-Za-z0-9_.+-]+ @ [A-Za-z0-9-][A-Za-z0-9.-]* )",
        r"| (?: ^ | [^0-9.v-] ) (?<ipv4> [0-9]{1,3} (?: \.[0-9]{1,3} ){3} ) (?-u:\b)",
        r"| (?-u:\b) (?: hostname | username | user | domain | addr | clientaddr | password ) = (?<value> [^\x20\t\n\r,]+ )",
    ))
    .ok()
});

impl Masks {
    /// Masks that also replace these names of the host and of its users.
    pub fn new(hosts: &[String], users: &[String]) -> Self {
        let mut known: Vec<(String, Kind)> = Vec::new();
        for (names, kind) in [(hosts, Kind::Host), (users, Kind::User)] {
            for name in names {
                let name = name.trim();
                let nobodys = NOBODYS.contains(&name.to_ascii_lowercase().as_str());
                if name.len() >= 2 && !nobodys && !name.bytes().all(|byte| byte.is_ascii_digit()) {
                    known.push((name.to_owned(), kind));
                }
            }
        }
        // The full name before the part of it that is also a name.
        known.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
        Self {
            known,
            ..Self::default()
        }
    }

    /// How many different values were replaced.
    pub fn count(&self) -> usize {
        self.seen.len()
    }

    /// Text in which anything may stand: a command line, a log, a configuration file.
    pub fn text(&mut self, text: &str) -> String {
        let masked = match PATTERNS.as_ref() {
            Some(patterns) => patterns
                .replace_all(text, |found: &Captures<'_>| self.pattern(found))
                .into_owned(),
            // The pattern is tested; a text is not given away all the same.
            None => return String::new(),
        };
        let masked = self.words(masked);
        self.addresses6(&masked)
    }

    /// The kernel's log: as [`Self::text`], without the lines of users' sessions and peripherals.
    pub fn log(&mut self, log: &str) -> String {
        let kept: String = log
            .lines()
            .filter(|line| !OTHERS_LINES.iter().any(|word| line.contains(word)))
            .fold(String::new(), |text, line| text + line + "\n");
        self.text(&kept)
    }

    /// `/proc/self/mountinfo` and `/proc/mounts`. Of options only those of the mount itself are kept, for others name
    /// servers and users.
    pub fn mounts(&mut self, table: &str) -> String {
        let lines: Vec<String> = table.lines().map(|line| self.mount(line)).collect();
        lines.iter().fold(String::new(), |text, line| text + line + "\n")
    }

    /// `/proc/net/route`: addresses in hexadecimal.
    pub fn route(&mut self, table: &str) -> String {
        table.lines().fold(String::new(), |text, line| {
            let fields: Vec<String> = line
                .split('\t')
                .enumerate()
                .map(|(index, field)| match (index, u32::from_str_radix(field.trim(), 16)) {
                    (1 | 2, Ok(address)) if field.trim().len() == 8 && address != 0 => {
                        let masked = self.ipv4(Ipv4Addr::from(address.swap_bytes()));
                        format!("{:08X}", u32::from(masked).swap_bytes())
                    }
                    (0, _) => self.text(field),
                    _ => field.to_owned(),
                })
                .collect();
            text + &fields.join("\t") + "\n"
        })
    }

    /// `/proc/net/ipv6_route`: destination, source and next hop in hexadecimal.
    pub fn route6(&mut self, table: &str) -> String {
        table.lines().fold(String::new(), |text, line| {
            let fields: Vec<String> = line
                .split_whitespace()
                .enumerate()
                .map(|(index, field)| match (index, u128::from_str_radix(field, 16)) {
                    (0 | 2 | 4, Ok(address)) if field.len() == 32 => {
                        format!("{:032x}", u128::from(self.ipv6(Ipv6Addr::from(address))))
                    }
                    (9, _) => self.text(field),
                    _ => field.to_owned(),
                })
                .collect();
            text + &fields.join(" ") + "\n"
        })
    }

    fn mount(&mut self, line: &str) -> String {
        let mut fields: Vec<String> = line.split(' ').map(str::to_owned).collect();
        // In mountinfo a lone `-` stands before type, source and options; in mounts they are fields 3, 1 and 4.
        let (source, kind, options) = match fields.iter().position(|field| field == "-") {
            Some(dash) => (dash + 2, dash + 1, dash + 3),
            None => (0, 2, 3),
        };
        let remote = fields.get(kind).is_some_and(|kind| {
            [
                "nfs",
                "nfs4",
                "cifs",
                "smb3",
                "9p",
                "ceph",
                "fuse.sshfs",
                "glusterfs",
                "afs",
            ]
            .contains(&kind.as_str())
        });
        if let Some(source) = fields.get_mut(source).filter(|_| remote) {
            *source = self.placeholder(Kind::Address, source);
        }
        if let Some(options) = fields.get_mut(options) {
            let kept: Vec<&str> = options.split(',').filter(|option| harmless(option)).collect();
            *options = kept.join(",");
        }
        self.text(&fields.join(" "))
    }

    fn pattern(&mut self, found: &Captures<'_>) -> String {
        let whole = found.get(0).map_or("", |all| all.as_str());
        let group = found.iter().skip(1).flatten().next();
        let (Some(group), Some(name)) = (group, name_of(found)) else {
            return whole.to_owned();
        };
        let value = group.as_str();
        let masked = match name {
            "bare" => self.placeholder(Kind::Mac, value).replace(':', ""),
            "mac" => self.placeholder(Kind::Mac, &value.to_ascii_lowercase().replace(['-', ':'], "")),
            "uuid" if value.eq_ignore_ascii_case(EFI_GLOBAL) => value.to_owned(),
            "uuid" => self.placeholder(Kind::Uuid, &value.to_ascii_lowercase()),
            "machine" | "lvm" | "pv" => self.placeholder(Kind::Uuid, value),
            "short" => match value.len() {
                36 => self.placeholder(Kind::Uuid, &value.to_ascii_lowercase()),
                _ => self.placeholder(Kind::Short, &value.to_ascii_lowercase()),
            },
            "label" | "by" | "btrfs" => self.placeholder(Kind::Label, value),
            "home" | "media" => self.placeholder(Kind::User, value),
            // USB controllers have their PCI address for a serial number.
            "serial" | "short_serial" if crate::host::Bdf::from_str(value).is_ok() => value.to_owned(),
            "serial" | "short_serial" | "wwn" => self.placeholder(Kind::Serial, value),
            "ipv4" => Ipv4Addr::from_str(value).map_or(value.to_owned(), |address| self.ipv4(address).to_string()),
            _ => self.placeholder(Kind::Address, value),
        };
        let (start, end) = found
            .get(0)
            .map_or((0, 0), |all| (group.start() - all.start(), group.end() - all.start()));
        let before = whole.get(..start).unwrap_or_default();
        let after = whole.get(end..).unwrap_or_default();
        format!("{before}{masked}{after}")
    }

    /// Replaces IPv6 addresses. Whole words alone: much that holds colons is none (`foo::bar`, PCI addresses, times).
    fn addresses6(&mut self, text: &str) -> String {
        let part_of_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, ':' | '.' | '_');
        let mut masked = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(start) = rest.find(part_of_word) {
            let (before, from) = rest.split_at(start);
            let (word, after) = from.split_at(from.find(|c| !part_of_word(c)).unwrap_or(from.len()));
            masked += before;
            match Ipv6Addr::from_str(word) {
                Ok(address) => masked += &self.ipv6(address).to_string(),
                Err(_) => masked += word,
            }
            rest = after;
        }
        masked + rest
    }

    /// Replaces the names of the host and of users where they stand as words.
    fn words(&mut self, mut text: String) -> String {
        for (name, kind) in self.known.clone() {
            if !text.contains(&name) {
                continue;
            }
            let mut masked = String::with_capacity(text.len());
            let mut rest = text.as_str();
            while let Some(at) = rest.find(&name) {
                let (before, found) = rest.split_at(at);
                let after = found.get(name.len()..).unwrap_or_default();
                let joined = |beside: Option<char>| beside.is_some_and(char::is_alphanumeric);
                let before_it = before.chars().next_back().or_else(|| masked.chars().next_back());
                masked += before;
                if joined(before_it) || joined(after.chars().next()) {
                    masked += &name;
                } else {
                    masked += &self.placeholder(kind, &name);
                }
                rest = after;
            }
            masked += rest;
            text = masked;
        }
        text
    }

    fn ipv4(&mut self, address: Ipv4Addr) -> Ipv4Addr {
        let nobodys = address.is_unspecified()
            || address.is_loopback()
            || address.is_broadcast()
            || address.is_documentation()
            || address.octets().starts_with(&[255]);
        if nobodys {
            return address;
        }
        let number = u32::try_from(self.number(Kind::Ipv4, &address.to_string())).unwrap_or(u32::MAX);
        // 198.18.0.0/15, for tests of network devices, once the 254 of documentation are used up.
        match number {
            1..=254 => Ipv4Addr::from(0xc000_0200 | number),
            _ => Ipv4Addr::from(0xc612_0000 | number & 0x1_ffff),
        }
    }

    fn ipv6(&mut self, address: Ipv6Addr) -> Ipv6Addr {
        let documentation = address.segments().starts_with(&[0x2001, 0xdb8]);
        if address.is_unspecified() || address.is_loopback() || documentation {
            return address;
        }
        let number = self.number(Kind::Ipv6, &address.to_string());
        Ipv6Addr::from(0x2001_0db8_u128 << 96 | number as u128)
    }

    fn number(&mut self, kind: Kind, value: &str) -> usize {
        let count = self.counts.entry(kind).or_default();
        *self.seen.entry((kind, value.to_owned())).or_insert_with(|| {
            *count += 1;
            *count
        })
    }

    fn placeholder(&mut self, kind: Kind, value: &str) -> String {
        if stands_for_nobody(kind, value) {
            return match kind {
                Kind::Mac => colons(value),
                _ => value.to_owned(),
            };
        }
        let number = self.number(kind, value);
        match kind {
            Kind::Mac => colons(&format!("02{number:010x}")),
            Kind::Uuid => format!("00000000-0000-4000-8000-{number:012x}"),
            Kind::Short => format!("0000-{number:04X}"),
            Kind::Host => format!("host{number}"),
            Kind::User => format!("user{number}"),
            Kind::Label => format!("label{number}"),
            Kind::Serial => format!("SERIAL{number}"),
            Kind::Ipv4 | Kind::Ipv6 | Kind::Address => format!("address{number}"),
        }
    }
}

fn name_of(found: &Captures<'_>) -> Option<&'static str> {
    const NAMES: &[&str] = &[
        "bare",
        "mac",
        "uuid",
        "machine",
        "lvm",
        "pv",
        "short",
        "label",
        "by",
        "btrfs",
        "home",
        "media",
        "serial",
        "short_serial",
        "target",
        "wwn",
        "mail",
        "ipv4",
        "value",
    ];
    NAMES.iter().copied().find(|name| found.name(name).is_some())
}

/// Whether a value is a placeholder already.
fn stands_for_nobody(kind: Kind, value: &str) -> bool {
    let numbered = |before: &str| {
        value
            .strip_prefix(before)
            .is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
    };
    match kind {
        Kind::Mac => value.starts_with("0200000000") || value.bytes().all(|byte| matches!(byte, b'0' | b'f')),
        Kind::Uuid => value.starts_with("00000000-0000-4000-8000-"),
        Kind::Short => value.starts_with("0000-"),
        Kind::Host => numbered("host"),
        Kind::User => numbered("user"),
        Kind::Label => numbered("label"),
        Kind::Serial => numbered("SERIAL"),
        Kind::Ipv4 | Kind::Ipv6 | Kind::Address => numbered("address"),
    }
}

fn colons(digits: &str) -> String {
    let pairs: Vec<&str> = (0..digits.len() / 2)
        .filter_map(|pair| digits.get(2 * pair..2 * pair + 2))
        .collect();
    pairs.join(":")
}

/// Whether an option of a mount says nothing but how it is mounted.
fn harmless(option: &str) -> bool {
    const PLAIN: &[&str] = &[
        "rw",
        "ro",
        "relatime",
        "noatime",
        "nodiratime",
        "nosuid",
        "nodev",
        "noexec",
        "compress",
        "discard",
        "degraded",
    ];
    PLAIN.contains(&option) || option.starts_with("subvolid=") || option.starts_with("subvol=")
}

#[cfg(test)]
#[path = "mask_tests.rs"]
mod tests;
