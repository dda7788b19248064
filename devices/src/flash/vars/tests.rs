use super::super::store::{VarsMode, VarsOptions};
use super::*;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use vmm_sys_util::tempdir::TempDir;

const SIZE: usize = 0x4000;

struct Rig {
    flash: Arc<VarsFlash>,
    path: PathBuf,
    _folder: TempDir,
}

fn rig(mode: VarsMode) -> Rig {
    let folder = TempDir::new().unwrap();
    let path = folder.as_path().join("vars.fd");
    let mut bytes = vec![0xff; SIZE];
    // The head of a variable store as shipped: 16 zero bytes, then the GUID.
    bytes.splice(..0x14, [[0; 16].as_slice(), &[0x8d, 0x2b, 0xf1, 0xff]].concat());
    fs::write(&path, bytes).unwrap();
    let store = VarsStore::open(&options(&path, mode)).unwrap();
    let flash = VarsFlash::new(0xffc0_0000, store).unwrap();
    Rig {
        flash,
        path,
        _folder: folder,
    }
}

fn options(path: &Path, mode: VarsMode) -> VarsOptions<'_> {
    VarsOptions {
        path,
        template: None,
        size: SIZE as u64,
        mode,
    }
}

impl Rig {
    fn write(&self, offset: u64, byte: u8) -> Effect {
        self.flash.write(offset, &[byte])
    }

    fn read(&self, offset: u64) -> u8 {
        let mut byte = [0];
        self.flash.read(offset, &mut byte);
        byte[0]
    }

    fn mapped(&self) -> bool {
        let mut regions = Vec::new();
        self.flash.regions(&mut regions);
        regions
            .iter()
            .any(|region| matches!(region.backing, Backing::Host { .. }))
    }

    fn file(&self) -> Vec<u8> {
        fs::read(&self.path).unwrap()
    }

    /// What OVMF does before it takes the range for flash; the last status it reads.
    fn detect(&self) -> u8 {
        assert_eq!(self.read(0x10), 0x8d);
        assert_eq!(self.write(0x10, 0x50), Effect::None);
        assert_eq!(self.read(0x10), 0x8d, "not RAM");
        assert_eq!(self.write(0x10, 0x70), Effect::Relayout);
        assert!(!self.mapped());
        assert_eq!(self.read(0x10), 0, "flash");
        assert_eq!(self.write(0x10, 0x10), Effect::None);
        assert_eq!(self.write(0x10, 0x8d), Effect::None);
        assert_eq!(self.write(0x10, 0x70), Effect::None);
        let status = self.read(0x10);
        assert_eq!(self.write(0x10, 0xff), Effect::Relayout);
        assert!(self.mapped());
        assert_eq!(self.read(0x10), 0x8d);
        status
    }
}

#[test]
fn ovmf_finds_a_flash_and_the_file_stays_as_it_was() {
    let rig = rig(VarsMode::Persistent);
    assert_eq!(rig.detect(), 0x80);
    assert!(!rig.flash.dirty());
}

#[test]
fn a_write_protected_store_says_so() {
    let rig = rig(VarsMode::WriteProtected);
    assert_eq!(rig.detect() & 0x10, 0x10);
    let _ = rig.write(0x1000, 0x20);
    let _ = rig.write(0x1000, 0xd0);
    let _ = rig.write(0, 0x70);
    assert_eq!(rig.read(0) & 0x20, 0x20);
}

#[test]
fn a_program_run_keeps_the_mapping_and_each_byte_is_in_the_file_at_once() {
    let rig = rig(VarsMode::Persistent);
    for (index, byte) in [0x10, 0x70, 0xff, 0xd0, 0x20, 0x50].into_iter().enumerate() {
        let offset = 0x1ffd + index as u64;
        assert_eq!(rig.write(offset, 0x10), Effect::None);
        assert_eq!(rig.write(offset, byte), Effect::None);
        assert_eq!(rig.file().get(offset as usize), Some(&byte));
        assert_eq!(rig.read(offset), byte);
    }
    assert_eq!(rig.write(0x2002, 0xff), Effect::None);
    assert!(rig.flash.dirty());
    rig.flash.flush().unwrap();
    assert!(!rig.flash.dirty());
}

#[test]
fn an_erase_clears_its_block_alone_and_shows_the_array() {
    let rig = rig(VarsMode::Persistent);
    for offset in [0x1fff, 0x2000, 0x2fff, 0x3000] {
        let _ = rig.write(offset, 0x10);
        let _ = rig.write(offset, 0);
    }
    assert_eq!(rig.write(0x2000, 0x20), Effect::None);
    assert_eq!(rig.write(0x2000, 0xd0), Effect::None);
    assert_eq!(
        [0x1fff, 0x2000, 0x2fff, 0x3000].map(|offset| rig.read(offset)),
        [0, 0xff, 0xff, 0]
    );
    let file = rig.file();
    assert_eq!(
        [0x1fff, 0x2000, 0x2fff, 0x3000].map(|offset: usize| file[offset]),
        [0, 0xff, 0xff, 0]
    );
    let _ = rig.write(0, 0x70);
    assert_eq!(rig.write(0x2000, 0x20), Effect::None);
    assert_eq!(rig.write(0x2000, 0xd0), Effect::Relayout, "back to the array by itself");
}

#[test]
fn a_reset_returns_to_the_array() {
    let rig = rig(VarsMode::Persistent);
    let _ = rig.write(0, 0x70);
    let _ = rig.write(0, 0x10);
    rig.flash.reset();
    assert!(rig.mapped());
    assert_eq!(rig.write(0, 0x70), Effect::Relayout, "a command, not data");
}

#[test]
fn a_snapshot_leaves_the_file_alone() {
    let rig = rig(VarsMode::Snapshot);
    assert_eq!(rig.detect(), 0x80);
    let _ = rig.write(0x1000, 0x10);
    let _ = rig.write(0x1000, 0);
    assert_eq!(rig.read(0x1000), 0);
    assert_eq!(rig.file()[0x1000], 0xff);
    rig.flash.flush().unwrap();
}

#[test]
fn a_failing_file_fails_the_operation() {
    let rig = rig(VarsMode::Snapshot);
    // A handle that cannot be written to, as a full or broken disk.
    let file = File::open(&rig.path).unwrap();
    let store = VarsStore::with_file(&rig.path, file, &options(&rig.path, VarsMode::Persistent)).unwrap();
    let flash = VarsFlash::new(0xffc0_0000, store).unwrap();
    let mut status = [0];
    for (command, argument, bit) in [(0x10, 0, 0x10), (0x20, 0xd0, 0x20)] {
        for byte in [0x50, command, argument, 0x70] {
            let _ = flash.write(0x1000, &[byte]);
        }
        flash.read(0, &mut status);
        assert_eq!(status, [0x80 | bit]);
    }
    let _ = flash.write(0, &[0xff]);
    flash.read(0x1000, &mut status);
    assert_eq!(status, [0xff], "the guest sees what the file holds");
}

#[test]
fn accesses_of_any_shape_are_survived() {
    let rig = rig(VarsMode::Persistent);
    let mut wide = [0; 16];
    for offset in [0, SIZE as u64 - 1, SIZE as u64, u64::MAX] {
        rig.flash.read(offset, &mut wide);
        for byte in [0x10, 0x20, 0xd0, 0x70] {
            let _ = rig.flash.write(offset, &[byte; 16]);
        }
        let _ = rig.flash.write(offset, &[]);
    }
    assert_eq!(rig.file().len(), SIZE);
}
