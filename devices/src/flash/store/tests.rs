use super::*;
use vmm_sys_util::tempdir::TempDir;

const SIZE: u64 = 0x2000;

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.as_path().join(name)
    }

    fn file(&self, name: &str, len: usize) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, vec![0xa5; len]).unwrap();
        path
    }
}

fn options<'a>(path: &'a Path, template: Option<&'a Path>) -> VarsOptions<'a> {
    VarsOptions {
        path,
        template,
        size: SIZE,
        mode: VarsMode::Persistent,
    }
}

#[test]
fn a_missing_store_is_made_from_the_template_and_kept() {
    let folder = Folder::new();
    let template = folder.file("template.fd", 0x2000);
    let path = folder.path("vars.fd");
    let mut store = VarsStore::open(&options(&path, Some(&template))).unwrap();
    assert_eq!(store.load().unwrap(), vec![0xa5; 0x2000]);
    assert!(store.write(3, &[1]));
    drop(store);
    let store = VarsStore::open(&options(&path, Some(&template))).unwrap();
    assert_eq!(store.load().unwrap().get(2..4), Some([0xa5, 1].as_slice()));
    assert_eq!(fs::read(&template).unwrap(), vec![0xa5; 0x2000]);
    assert_eq!(
        fs::read_dir(folder.0.as_path()).unwrap().count(),
        2,
        "no temporary file is left"
    );
}

#[test]
fn checking_creates_nothing() {
    let folder = Folder::new();
    let template = folder.file("template.fd", 0x2000);
    let path = folder.path("vars.fd");
    VarsStore::check(&options(&path, Some(&template))).unwrap();
    assert!(!path.exists());
    assert!(matches!(
        VarsStore::check(&options(&path, None)),
        Err(VarsError::NoTemplate { .. })
    ));
}

#[test]
fn the_wrong_size_is_refused_with_both_sizes() {
    let folder = Folder::new();
    let short = folder.file("short.fd", 0x1000);
    let error = VarsStore::open(&options(&short, None)).unwrap_err().to_string();
    assert!(
        error.contains("4096") && error.contains("8192") && error.contains("short.fd"),
        "{error}"
    );
    let path = folder.path("vars.fd");
    assert!(matches!(
        VarsStore::open(&options(&path, Some(&short))),
        Err(VarsError::Size { .. })
    ));
    assert!(!path.exists());
}

#[test]
fn two_machines_never_share_a_store() {
    let folder = Folder::new();
    let path = folder.file("vars.fd", 0x2000);
    let first = VarsStore::open(&options(&path, None)).unwrap();
    assert!(matches!(
        VarsStore::open(&options(&path, None)),
        Err(VarsError::InUse { .. })
    ));
    let snapshot = VarsOptions {
        mode: VarsMode::Snapshot,
        ..options(&path, None)
    };
    assert!(matches!(VarsStore::open(&snapshot), Err(VarsError::InUse { .. })));
    drop(first);
    let _one = VarsStore::open(&snapshot).unwrap();
    let _two = VarsStore::open(&snapshot).unwrap();
}

#[test]
fn the_template_itself_and_what_is_no_file_are_refused() {
    let folder = Folder::new();
    let template = folder.file("template.fd", 0x2000);
    assert!(matches!(
        VarsStore::open(&options(&template, Some(&template))),
        Err(VarsError::IsTemplate { .. })
    ));
    let null = Path::new("/dev/null");
    assert!(matches!(
        VarsStore::open(&options(null, None)),
        Err(VarsError::NotAFile { .. })
    ));
}

#[test]
fn a_store_made_meanwhile_is_not_replaced() {
    let folder = Folder::new();
    let mine = folder.file("mine", 1);
    let theirs = folder.file("theirs", 2);
    publish(&mine, &theirs).unwrap();
    assert_eq!(fs::metadata(&theirs).unwrap().len(), 2);
}

#[test]
fn the_disk_is_asked_soon_after_a_write() {
    let folder = Folder::new();
    let path = folder.file("vars.fd", 0x2000);
    let mut store = VarsStore::open(&options(&path, None)).unwrap();
    assert!(!store.dirty());
    assert!(store.write(0, &[1]));
    assert!(store.dirty());
    store.sync().unwrap().now().unwrap();
    assert!(!store.dirty());
    assert!(store.write(0, &[2]));
    for _ in 0..100 {
        thread::sleep(Duration::from_millis(50));
        if !store.dirty() {
            return;
        }
    }
    panic!("the thread never asked");
}
