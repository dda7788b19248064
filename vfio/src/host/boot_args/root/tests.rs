use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use vmm_sys_util::tempdir::TempDir;

use super::*;

/// A root beside which there is something to be left alone.
struct Fenced {
    dir: TempDir,
}

impl Fenced {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        std::fs::create_dir_all(dir.as_path().join("root/etc/default")).unwrap();
        std::fs::create_dir(dir.as_path().join("outside")).unwrap();
        std::fs::write(dir.as_path().join("outside/grub"), "outside").unwrap();
        Self { dir }
    }

    fn root(&self) -> Root {
        Root::open(&self.dir.as_path().join("root")).unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.as_path().join("root").join(name)
    }

    fn outside(&self) -> Vec<(String, String)> {
        let mut all: Vec<(String, String)> = std::fs::read_dir(self.dir.as_path().join("outside"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .map(|path| {
                let text = std::fs::read_to_string(&path).unwrap();
                (path.file_name().unwrap().to_str().unwrap().to_owned(), text)
            })
            .collect();
        all.sort();
        all
    }
}

fn edits(path: &str, before: Option<&str>, after: Option<&str>) -> Edits {
    let bytes = |text: &str| text.as_bytes().to_vec();
    Edits {
        files: vec![Edit {
            path: path.into(),
            before: before.map(bytes),
            after: after.map(bytes),
            mode: 0o644,
        }],
        ..Edits::default()
    }
}

#[test]
fn no_link_leads_out() {
    let absolute = TempDir::new().unwrap();
    for target in [
        "../../../outside/grub",
        "../../../../../../../../outside/grub",
        "/proc/self/root/outside/grub",
        absolute.as_path().join("grub").to_str().unwrap(),
        "/outside/grub",
    ] {
        let fenced = Fenced::new();
        std::fs::write(absolute.as_path().join("grub"), "outside").unwrap();
        symlink(target, fenced.path("etc/default/grub")).unwrap();
        // What it means inside the root may well be written.
        let _ = fenced.root().carry_out(&edits("/etc/default/grub", None, Some("ours")));
        let _ = fenced
            .root()
            .carry_out(&edits("/etc/default/grub", Some("outside"), Some("ours")));
        assert_eq!(
            fenced.outside(),
            [("grub".to_owned(), "outside".to_owned())],
            "{target}"
        );
        assert_eq!(std::fs::read_dir(absolute.as_path()).unwrap().count(), 1, "{target}");
        assert_eq!(
            std::fs::read(absolute.as_path().join("grub")).unwrap(),
            b"outside",
            "{target}"
        );
    }
}

#[test]
fn no_folder_leads_out() {
    for target in ["../../outside", "/../outside", "../../../../outside"] {
        let fenced = Fenced::new();
        symlink(target, fenced.path("etc/modprobe.d")).unwrap();
        let result = fenced
            .root()
            .carry_out(&edits("/etc/modprobe.d/tenon-vfio.conf", None, Some("ours")));
        assert!(fenced.outside().len() == 1, "{target}: {result:?}");
        let fenced = Fenced::new();
        std::fs::remove_dir(fenced.path("etc/default")).unwrap();
        symlink(target, fenced.path("etc/default")).unwrap();
        let result = fenced
            .root()
            .carry_out(&edits("/etc/default/grub", Some("outside"), None));
        assert_eq!(fenced.outside().len(), 1, "{target}: {result:?}");
    }
    let fenced = Fenced::new();
    for path in [
        "/../outside/grub",
        "/etc/../../outside/grub",
        "../outside/grub",
        "/..",
        "/",
    ] {
        let _ = fenced.root().carry_out(&edits(path, None, Some("ours")));
        let _ = fenced.root().carry_out(&edits(path, Some("outside"), None));
        assert_eq!(fenced.outside(), [("grub".to_owned(), "outside".to_owned())], "{path}");
    }
}

#[test]
fn links_inside_are_followed_and_stay() {
    let fenced = Fenced::new();
    std::fs::create_dir_all(fenced.path("usr/share")).unwrap();
    std::fs::write(fenced.path("usr/share/real"), "a").unwrap();
    symlink("/usr/share/link", fenced.path("etc/default/grub")).unwrap();
    symlink("../../usr/share/real", fenced.path("usr/share/link")).unwrap();
    fenced
        .root()
        .carry_out(&edits("/etc/default/grub", Some("a"), Some("b")))
        .unwrap();
    assert_eq!(std::fs::read(fenced.path("usr/share/real")).unwrap(), b"b");
    assert!(fenced.path("etc/default/grub").is_symlink() && fenced.path("usr/share/link").is_symlink());
}

#[test]
fn circles_pipes_and_folders_are_refused() {
    let fenced = Fenced::new();
    symlink("loop", fenced.path("loop")).unwrap();
    symlink("b/x", fenced.path("a")).unwrap();
    symlink("a", fenced.path("b")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        fenced.path("pipe"),
        rustix::fs::FileType::Fifo,
        Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    for path in ["/loop", "/a/file", "/pipe", "/etc"] {
        let error = fenced
            .root()
            .carry_out(&edits(path, None, Some("x")))
            .unwrap_err()
            .to_string();
        assert!(error.contains(path) && error.contains("nothing was changed"), "{error}");
    }
}

#[test]
fn hard_links_outside_keep_their_content() {
    let fenced = Fenced::new();
    std::fs::hard_link(
        fenced.dir.as_path().join("outside/grub"),
        fenced.path("etc/default/grub"),
    )
    .unwrap();
    fenced
        .root()
        .carry_out(&edits("/etc/default/grub", Some("outside"), Some("ours")))
        .unwrap();
    assert_eq!(fenced.outside()[0].1, "outside");
    assert_eq!(std::fs::read(fenced.path("etc/default/grub")).unwrap(), b"ours");
}

#[test]
fn mode_owner_and_attributes_stay() {
    let fenced = Fenced::new();
    let path = fenced.path("etc/default/grub");
    std::fs::write(&path, "a").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    let marked = fs::setxattr(&path, "user.tenon", b"label", fs::XattrFlags::empty()).is_ok();
    let owned = std::os::unix::fs::chown(&path, Some(1234), Some(4321)).is_ok();
    let before = std::fs::metadata(&path).unwrap();
    fenced
        .root()
        .carry_out(&edits("/etc/default/grub", Some("a"), Some("b")))
        .unwrap();
    let after = std::fs::metadata(&path).unwrap();
    assert_eq!(
        (before.mode(), before.uid(), before.gid()),
        (after.mode(), after.uid(), after.gid())
    );
    assert_ne!(before.ino(), after.ino());
    let mut value = [0u8; 16];
    match marked {
        true => assert_eq!(fs::getxattr(&path, "user.tenon", &mut value).unwrap(), 5),
        false => println!("skipped: attributes: the file system of the temporary directory has none"),
    }
    if !owned {
        println!("skipped: owner: only root gives files away");
    }
}

#[test]
fn what_fails_in_the_middle_is_undone() {
    let fenced = Fenced::new();
    std::fs::write(fenced.path("etc/default/grub"), "a").unwrap();
    std::fs::write(fenced.path("other"), "changed meanwhile").unwrap();
    let mut all = edits("/etc/default/grub", Some("a"), Some("b"));
    all.folders = vec!["/new/folder".into(), "/new".into()];
    all.files.extend(edits("/new/folder/file", None, Some("x")).files);
    all.files.extend(edits("/other", Some("before"), Some("after")).files);
    let error = fenced.root().carry_out(&all).unwrap_err();
    assert!(matches!(&error, RootError::Changed { undone: true, .. }), "{error}");
    assert_eq!(std::fs::read(fenced.path("etc/default/grub")).unwrap(), b"a");
    assert!(!fenced.path("new").exists());
    assert_eq!(std::fs::read(fenced.path("other")).unwrap(), b"changed meanwhile");
}
