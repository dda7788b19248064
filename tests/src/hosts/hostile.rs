//! Captures as somebody hostile would make them, and everything that is done with a capture. Shared by the test that
//! tries some thousand of them and by the fuzz target (tests/fuzz).

use std::path::PathBuf;
use std::sync::Arc;

use vfio::host::bind::{BindPlan, PlanOptions};
use vfio::host::capture::{Memory, Visit};
use vfio::host::check::{Facts, Wanted, check};
use vfio::host::{Bdf, Capture, HostTree, Survey};

/// What stands at a path.
#[derive(Debug, Clone)]
pub enum Node {
    /// A file of this content.
    File(Vec<u8>),
    /// A directory.
    Directory,
    /// A link to there.
    Link(PathBuf),
}

/// The files of a host, to be tampered with.
#[derive(Debug, Clone)]
pub struct Victim {
    nodes: Vec<(PathBuf, Node)>,
}

/// Numbers to tamper by: of a seed, or of a fuzzer's bytes.
pub trait Numbers {
    /// The next one; `None` once there are no more.
    fn next(&mut self) -> Option<u64>;
}

/// A sequence that a seed determines (xorshift64*).
#[derive(Debug, Clone)]
pub struct Seeded(u64);

impl Seeded {
    /// The sequence of this seed.
    pub fn new(seed: u64) -> Self {
        // Zero would stay zero.
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }
}

impl Numbers for Seeded {
    fn next(&mut self) -> Option<u64> {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        Some(self.0.wrapping_mul(0x2545_f491_4f6c_dd1d))
    }
}

/// The bytes of a fuzzer, four to a number.
#[derive(Debug, Clone)]
pub struct Given<'a>(pub &'a [u8]);

impl Numbers for Given<'_> {
    fn next(&mut self) -> Option<u64> {
        let (bytes, rest) = self.0.split_first_chunk::<4>()?;
        self.0 = rest;
        // Spread over all bits, which are used from both ends.
        Some(u64::from(u32::from_le_bytes(*bytes)).wrapping_mul(0x0001_0000_0001_0001))
    }
}

/// Contents that a number, a list or a line should not have.
const GARBAGE: &[&[u8]] = &[
    b"",
    b"\n",
    b"\0\0\0\0",
    b"\xff\xfe\xfd",
    b"0x",
    b"-1\n",
    b"18446744073709551616\n",
    b"0xffffffffffffffff 0xffffffffffffffff 0xffffffffffffffff\n",
    b"0xffffffffffffffff 0x0000000000000000 0x0000000000040200\n",
    b"99999999999999999999999999999999 GT/s\n",
    b"0000:00:00.0\n",
    b"ffffffff:ff:1f.7\n",
    b"%s%n${PATH}`id`\x1b[2J\n",
    b"4294967295-0,,,-\n",
    b": : : : : : : : : : - - - -\n",
    b"pci:v*d*sv*sd*bc*sc*i*\n",
    "\u{202e}\u{0}\u{fffd}".as_bytes(),
];

/// Where links should not lead.
const NOWHERE: &[&str] = &[
    "",
    ".",
    "..",
    "/",
    "/sys",
    "/sys/bus/pci/devices",
    "../../../../../../../../../../../etc/passwd",
    "/sys/kernel/iommu_groups/4294967296",
    "/sys/class/block/../block/../block/dm-0",
    "nowhere",
];

impl Victim {
    /// The files of a capture.
    ///
    /// # Panics
    /// It is no capture.
    pub fn of(archive: &[u8]) -> Self {
        let capture = Capture::read(archive).unwrap_or_else(|error| panic!("no capture: {error}"));
        let mut nodes = Vec::new();
        let visited = capture.files().each(|path, visit| {
            let node = match visit {
                Visit::File(content) => Node::File(content.to_vec()),
                Visit::Directory => Node::Directory,
                Visit::Link(target) => Node::Link(target.to_owned()),
            };
            nodes.push((path.to_owned(), node));
            Ok(())
        });
        assert!(visited.is_ok());
        Self { nodes }
    }

    /// Does one thing to it; `false` when the numbers are used up.
    pub fn tamper(&mut self, numbers: &mut impl Numbers) -> bool {
        let (Some(what), Some(which), Some(how)) = (numbers.next(), numbers.next(), numbers.next()) else {
            return false;
        };
        let count = self.nodes.len();
        if count == 0 {
            return false;
        }
        let index = below(which, count);
        let other = below(how >> 16, count);
        let other_path = self.nodes[other].0.clone();
        match what % 10 {
            0 => drop(self.nodes.remove(index)),
            1 | 2 => self.nodes[index].1 = Node::File(GARBAGE[below(how, GARBAGE.len())].to_vec()),
            3 => self.nodes[index].1 = Node::Link(NOWHERE[below(how, NOWHERE.len())].into()),
            4 => self.nodes[index].1 = Node::Link(PathBuf::from("/").join(other_path)),
            5 => self.nodes[index].1 = Node::Directory,
            6 => {
                let taken = self.nodes[other].1.clone();
                self.nodes[other].1 = std::mem::replace(&mut self.nodes[index].1, taken);
            }
            7 => flip(&mut self.nodes[index].1, how),
            8 => cut_or_repeat(&mut self.nodes[index].1, how),
            _ => {
                let more = self.nodes[index].0.with_file_name(NAMES[below(how, NAMES.len())]);
                self.nodes.push((more, self.nodes[other].1.clone()));
            }
        }
        true
    }

    /// The host that it shows now.
    pub fn tree(&self) -> HostTree {
        let mut files = Memory::new();
        for (path, node) in &self.nodes {
            // What no longer fits, a file below a link for one, no archive would give either.
            let _ = match node {
                Node::File(content) => files.file(path, content.as_slice()),
                Node::Directory => files.directory(path),
                Node::Link(target) => files.link(path, target),
            };
        }
        HostTree::of(Arc::new(files))
    }
}

/// Names that stand for something where they stand.
const NAMES: &[&str] = &[
    "0000:00:00.0",
    "ffffffff:ff:1f.7",
    "0000:01:00.1",
    "4294967295",
    "dm-0",
    "slaves",
    "driver",
    "iommu_group",
    "driver_override",
    "card0-",
    "lower_",
];

fn below(number: u64, count: usize) -> usize {
    usize::try_from(number % count as u64).unwrap_or(0)
}

fn flip(node: &mut Node, how: u64) {
    if let Node::File(content) = node
        && !content.is_empty()
    {
        let at = below(how >> 8, content.len());
        content[at] ^= 1 << (how & 7);
    }
}

fn cut_or_repeat(node: &mut Node, how: u64) {
    if let Node::File(content) = node {
        match how & 1 {
            0 => content.truncate(below(how >> 1, content.len() + 1)),
            _ => *content = content.repeat(1 + below(how >> 1, 16)),
        }
    }
}

/// Everything that is done with a capture that cannot change a host.
pub fn look(tree: &HostTree) {
    let Ok(survey) = Survey::of(tree) else { return };
    let all: Vec<Bdf> = survey.functions.iter().map(|function| function.facts.bdf).collect();
    for bdf in all.iter().take(16) {
        let unit = survey.unit(&[*bdf]);
        match BindPlan::new(tree, &survey, &unit, PlanOptions::default()) {
            Ok(plan) => drop(format!("{plan:?}")),
            Err(error) => drop(error.to_string()),
        }
    }
    let wanted = Wanted {
        devices: all.into_iter().rev().take(2).collect(),
        memory: Some(1 << 40),
        ..Wanted::default()
    };
    if let Ok(facts) = Facts::of(tree.clone(), wanted) {
        let _ = format!("{:?}", check(&facts));
    }
}

/// Reads what may be a capture; `None` where it is refused.
pub fn read(archive: &[u8]) -> Option<Capture> {
    Capture::read(archive).ok()
}

/// Reads a capture that may be anything, and looks at the host it shows.
pub fn read_and_look(archive: &[u8], packed: bool) {
    let read = if packed {
        Capture::read(archive)
    } else {
        Capture::from_tar(archive)
    };
    if let Ok(capture) = read {
        look(&capture.into_tree());
    }
}
