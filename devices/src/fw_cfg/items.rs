//! What fw_cfg holds: fixed keys, and files found through a directory.

use std::collections::BTreeMap;
use std::fmt;

use thiserror::Error;

/// Keys with a meaning of their own (Linux Documentation/firmware-guide/qemu; edk2 OvmfPkg/Include/IndustryStandard/QemuFwCfg.h).
pub mod key {
    /// The four bytes `QEMU`, by which the interface is recognised.
    pub const SIGNATURE: u16 = 0x00;
    /// Bit 0: the byte-wise interface, bit 1: DMA; u32.
    pub const FEATURES: u16 = 0x01;
    /// Number of vCPUs that answer INIT-SIPI; u16.
    pub const NB_CPUS: u16 = 0x05;
    /// Not zero: show the boot menu prompt; u16.
    pub const BOOT_MENU: u16 = 0x0e;
    /// Highest number of vCPUs; u16.
    pub const MAX_CPUS: u16 = 0x0f;
    /// The directory of files.
    pub const FILE_DIR: u16 = 0x19;
    /// The first file's.
    pub const FILE_FIRST: u16 = 0x20;
}

/// Bytes of a file name in the directory, its terminating NUL included.
const NAME_LEN: usize = 56;
/// Files have keys below 0x4000 (QemuFwCfg.h: above are flags); this many are plenty.
const FILES_MAX: usize = 0x1000;

/// Makes the contents of a set of files, in the order in which the set was declared.
pub type Generator = Box<dyn Fn() -> Vec<Vec<u8>> + Send + Sync>;

/// Why an item cannot be added.
#[derive(Debug, Error, PartialEq, Eq)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum FwCfgError {
    #[error("the fw_cfg file name {name:?} is empty, longer than 55 bytes, or contains a NUL")]
    Name { name: String },
    #[error("there are two fw_cfg files {name:?}")]
    Duplicate { name: String },
    #[error("the fw_cfg file {name:?} is longer than 4 GiB")]
    TooLong { name: String },
    #[error("more than 4096 fw_cfg files")]
    TooMany,
    #[error("the fw_cfg key {key:#06x} is taken")]
    KeyTaken { key: u16 },
}

/// What a file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileContent {
    /// Bytes that never change.
    Fixed(Vec<u8>),
    /// Bytes that the guest may overwrite by DMA, but not lengthen. A reset restores these.
    Writable(Vec<u8>),
}

/// Where an item's bytes are.
#[derive(Debug)]
enum Item {
    Fixed(Vec<u8>),
    Writable { now: Vec<u8>, initial: Vec<u8> },
    Lazy { set: usize, index: usize, size: usize },
}

impl Item {
    fn len(&self) -> usize {
        match self {
            Item::Fixed(bytes) => bytes.len(),
            Item::Writable { now, .. } => now.len(),
            Item::Lazy { size, .. } => *size,
        }
    }
}

/// Files whose contents are made together, when the first of them is read.
struct LazySet {
    sizes: Vec<usize>,
    generator: Generator,
    made: Option<Vec<Vec<u8>>>,
}

impl fmt::Debug for LazySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LazySet")
            .field("sizes", &self.sizes)
            .field("made", &self.made.is_some())
            .finish_non_exhaustive()
    }
}

impl LazySet {
    /// The contents, made now if this is the first time.
    fn contents(&mut self) -> &[Vec<u8>] {
        let (sizes, generator) = (&self.sizes, &self.generator);
        self.made.get_or_insert_with(|| {
            let made = generator();
            let fits = made.len() == sizes.len() && made.iter().zip(sizes).all(|(bytes, size)| bytes.len() <= *size);
            if fits {
                return made;
            }
            // The firmware has seen the sizes; half of a table is worse than none.
            let lengths: Vec<usize> = made.iter().map(Vec::len).collect();
            tracing::error!(
                ?lengths,
                ?sizes,
                "generated firmware files do not fit; the firmware gets none"
            );
            Vec::new()
        })
    }
}

/// Collects the items of a machine.
#[derive(Debug, Default)]
pub struct FwCfgItems {
    keyed: BTreeMap<u16, Item>,
    /// By name, which is the order of the directory.
    files: BTreeMap<String, Item>,
    sets: Vec<LazySet>,
}

impl FwCfgItems {
    /// The items every fw_cfg has: the signature and the features, DMA among them.
    pub fn new() -> Self {
        let mut items = Self::default();
        items.keyed.insert(key::SIGNATURE, Item::Fixed(b"QEMU".to_vec()));
        items
            .keyed
            .insert(key::FEATURES, Item::Fixed(3u32.to_le_bytes().to_vec()));
        items
    }

    /// Adds a number of two bytes, little-endian.
    ///
    /// # Errors
    /// The key is taken.
    pub fn add_u16(&mut self, key: u16, value: u16) -> Result<(), FwCfgError> {
        self.add_key(key, value.to_le_bytes().to_vec())
    }

    /// Adds a number of four bytes, little-endian.
    ///
    /// # Errors
    /// The key is taken.
    pub fn add_u32(&mut self, key: u16, value: u32) -> Result<(), FwCfgError> {
        self.add_key(key, value.to_le_bytes().to_vec())
    }

    /// Adds a number of eight bytes, little-endian.
    ///
    /// # Errors
    /// The key is taken.
    pub fn add_u64(&mut self, key: u16, value: u64) -> Result<(), FwCfgError> {
        self.add_key(key, value.to_le_bytes().to_vec())
    }

    /// Adds bytes under a fixed key.
    ///
    /// # Errors
    /// The key is taken, or belongs to the directory or to files.
    pub fn add_key(&mut self, key: u16, bytes: Vec<u8>) -> Result<(), FwCfgError> {
        let reserved = key == key::FILE_DIR || (key::FILE_FIRST..key::FILE_FIRST + FILES_MAX as u16).contains(&key);
        if reserved || self.keyed.contains_key(&key) {
            return Err(FwCfgError::KeyTaken { key });
        }
        self.keyed.insert(key, Item::Fixed(bytes));
        Ok(())
    }

    /// Adds a file.
    ///
    /// # Errors
    /// The name does not fit the directory or is there already, or the content is too long.
    pub fn add_file(&mut self, name: &str, content: FileContent) -> Result<(), FwCfgError> {
        let item = match content {
            FileContent::Fixed(bytes) => Item::Fixed(bytes),
            FileContent::Writable(initial) => Item::Writable {
                now: initial.clone(),
                initial,
            },
        };
        self.insert(name, item)
    }

    /// Adds files that `generator` makes together when the guest first reads one of them. They stay as they are until a reset.
    ///
    /// Each is as long as declared here, padded with zeros: the firmware reads sizes before contents. The generator runs on the vCPU
    /// that reads, and must not come back to fw_cfg.
    ///
    /// # Errors
    /// As for [`FwCfgItems::add_file`].
    pub fn add_lazy(&mut self, files: &[(&str, usize)], generator: Generator) -> Result<(), FwCfgError> {
        let set = self.sets.len();
        for (index, (name, size)) in files.iter().enumerate() {
            let size = *size;
            self.insert(name, Item::Lazy { set, index, size })?;
        }
        self.sets.push(LazySet {
            sizes: files.iter().map(|(_, size)| *size).collect(),
            generator,
            made: None,
        });
        Ok(())
    }

    fn insert(&mut self, name: &str, item: Item) -> Result<(), FwCfgError> {
        let owned = || name.to_owned();
        if name.is_empty() || name.len() >= NAME_LEN || name.contains('\0') {
            return Err(FwCfgError::Name { name: owned() });
        }
        if self.files.contains_key(name) {
            return Err(FwCfgError::Duplicate { name: owned() });
        }
        if u32::try_from(item.len()).is_err() {
            return Err(FwCfgError::TooLong { name: owned() });
        }
        if self.files.len() >= FILES_MAX {
            return Err(FwCfgError::TooMany);
        }
        self.files.insert(owned(), item);
        Ok(())
    }

    /// Numbers the files and writes their directory.
    pub(super) fn finish(self) -> Store {
        let Self {
            keyed: mut items,
            files,
            sets,
        } = self;
        let mut names = BTreeMap::new();
        // QemuFwCfg.h: a big-endian count, then 64 bytes a file.
        let mut directory = (files.len() as u32).to_be_bytes().to_vec();
        for (key, (name, item)) in (key::FILE_FIRST..).zip(files) {
            directory.extend((item.len() as u32).to_be_bytes());
            directory.extend(key.to_be_bytes());
            directory.extend([0; 2]);
            directory.extend(name.bytes().chain(std::iter::repeat(0)).take(NAME_LEN));
            items.insert(key, item);
            names.insert(name, key);
        }
        items.insert(key::FILE_DIR, Item::Fixed(directory));
        Store { items, names, sets }
    }
}

/// The items of a running machine.
#[derive(Debug)]
pub(super) struct Store {
    items: BTreeMap<u16, Item>,
    names: BTreeMap<String, u16>,
    sets: Vec<LazySet>,
}

impl Store {
    /// Bytes under `key`; none where nothing is.
    pub fn len(&self, key: u16) -> usize {
        self.items.get(&key).map_or(0, Item::len)
    }

    /// Copies the bytes of `key` from `offset`, zeros beyond their end.
    pub fn read(&mut self, key: u16, offset: usize, data: &mut [u8]) {
        let bytes = match self.items.get(&key) {
            Some(Item::Fixed(bytes) | Item::Writable { now: bytes, .. }) => bytes.as_slice(),
            Some(Item::Lazy { set, index, .. }) => {
                let contents = self.sets.get_mut(*set).map(LazySet::contents).unwrap_or_default();
                contents.get(*index).map(Vec::as_slice).unwrap_or_default()
            }
            None => &[],
        };
        let rest = bytes.get(offset..).unwrap_or_default();
        let (from_item, beyond) = data.split_at_mut(data.len().min(rest.len()));
        for (to, from) in from_item.iter_mut().zip(rest) {
            *to = *from;
        }
        beyond.fill(0);
    }

    /// Copies `data` into the writable item `key`; false if it does not fit there whole.
    pub fn write(&mut self, key: u16, offset: usize, data: &[u8]) -> bool {
        let Some(Item::Writable { now, .. }) = self.items.get_mut(&key) else {
            return false;
        };
        let end = offset.checked_add(data.len());
        match end.and_then(|end| now.get_mut(offset..end)) {
            Some(place) => {
                place.copy_from_slice(data);
                true
            }
            None => false,
        }
    }

    /// A file's present bytes.
    pub fn file(&mut self, name: &str) -> Option<Vec<u8>> {
        let key = *self.names.get(name)?;
        let mut bytes = vec![0; self.len(key)];
        self.read(key, 0, &mut bytes);
        Some(bytes)
    }

    /// Forgets what the guest wrote and what was generated.
    pub fn reset(&mut self) {
        for item in self.items.values_mut() {
            if let Item::Writable { now, initial } = item {
                now.clone_from(initial);
            }
        }
        for set in &mut self.sets {
            set.made = None;
        }
    }
}
