//! Trees that were made to lead astray: nothing beside the root changes, whatever comes of the command itself.

use super::*;

/// A root with something beside it that looks as a link out of it would want it.
struct Beside {
    dir: TempDir,
}

impl Beside {
    fn new() -> Self {
        let dir = in_memory();
        copy(&resources().join("fedora/root"), &dir.as_path().join("root"));
        copy(&resources().join("fedora/root"), &dir.as_path().join("outside"));
        std::fs::write(dir.as_path().join("outside/grub"), "GRUB_CMDLINE_LINUX=\"quiet\"\n").unwrap();
        Self { dir }
    }

    fn root(&self) -> PathBuf {
        self.dir.as_path().join("root")
    }

    fn outside(&self) -> PathBuf {
        self.dir.as_path().join("outside")
    }

    /// Applies and removes, as far as that goes.
    fn try_all(&self, host: &HostTree) {
        let tree = HostTree::at(self.root());
        let Ok(root) = Root::open(&self.root()) else { return };
        if let Ok(plan) = BootPlan::for_system(host, &tree, &bdfs(&["0a:00.0", "03:00.0"]), true)
            && let Ok(edits) = Edits::applying(&plan, &tree)
        {
            let _ = root.carry_out(&edits);
        }
        if let Ok(edits) = Edits::undoing(&tree) {
            let _ = root.carry_out(&edits);
        }
    }
}

#[test]
fn links_out_of_the_root_change_nothing_there() {
    let (_dir, host) = host(TWINS, "AuthenticAMD", "");
    let above = "../".repeat(12);
    for place in [
        "etc",
        "etc/default",
        "etc/default/grub",
        "etc/kernel/cmdline",
        "etc/modprobe.d",
        "etc/modprobe.d/tenon-vfio.conf",
        "etc/dracut.conf.d",
        "boot",
        "boot/loader/entries",
        "usr/lib/dracut",
        "var",
        "var/lib/tenon",
        "var/lib/tenon/boot-args/journal.json",
    ] {
        let beside = Beside::new();
        let same = beside.outside().join(place);
        let outside = beside.outside();
        for target in [
            same.display().to_string(),
            format!("{above}{}", same.display()),
            format!("{above}{}/grub", outside.display()),
            outside.display().to_string(),
            format!("{above}outside/{place}"),
            place.rsplit('/').next().unwrap().to_owned(),
        ] {
            let beside = Beside { dir: in_memory() };
            copy(&resources().join("fedora/root"), &beside.root());
            let link = beside.root().join(place);
            let _ = std::fs::remove_dir_all(&link);
            let _ = std::fs::remove_file(&link);
            std::fs::create_dir_all(link.parent().unwrap()).unwrap();
            symlink(&target, &link).unwrap();
            let before = snapshot(&outside);
            beside.try_all(&host);
            assert!(snapshot(&outside) == before, "{place} -> {target}");
            let names: Vec<_> = std::fs::read_dir(beside.dir.as_path()).unwrap().collect();
            assert_eq!(names.len(), 1, "{place} -> {target}: {names:?}");
        }
    }
}

#[test]
fn a_journal_that_names_files_outside_reaches_none() {
    let (_dir, host) = host(TWINS, "AuthenticAMD", "");
    let beside = Beside::new();
    let above = "/..".repeat(12);
    let target = beside.outside().join("grub");
    let entry = |path: String| format!("{{\"path\":\"{path}\",\"kind\":\"file\",\"executable\":false}}");
    let entries = [
        entry(format!("{above}{}", target.display())),
        entry("/../outside/grub".into()),
        entry("../outside/grub".into()),
        entry("/etc/../../outside/grub".into()),
        entry(String::new()),
        entry("/".into()),
    ];
    for entry in entries {
        let text = format!("{{\"format\":1,\"folders\":[\"/../outside/etc\",\"/..\"],\"entries\":[{entry}]}}");
        let journal = beside.root().join("var/lib/tenon/boot-args/journal.json");
        std::fs::create_dir_all(journal.parent().unwrap()).unwrap();
        std::fs::write(journal, text).unwrap();
        let before = snapshot(&beside.outside());
        let tree = HostTree::at(beside.root());
        if let Ok(edits) = Edits::undoing(&tree) {
            let _ = Root::open(&beside.root()).unwrap().carry_out(&edits);
        }
        beside.try_all(&host);
        assert!(snapshot(&beside.outside()) == before, "{entry}");
    }
}
