//! What is shown of the hosts in `resources/hosts`, line by line: after a change that is meant, look at the difference
//! of `TENON_UPDATE=1 cargo test -p tenon devices` and keep it.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Parser;
use unicode_width::UnicodeWidthStr;
use vfio::host::{Capture, Survey};
use vmm_sys_util::tempdir::TempDir;

use super::*;

#[derive(Parser)]
struct Only {
    #[command(flatten)]
    devices: DevicesArgs,
}

fn args(words: &[&str]) -> DevicesArgs {
    Only::try_parse_from([&["devices"], words].concat()).unwrap().devices
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The hosts by name.
fn hosts() -> Vec<(String, HostTree)> {
    let mut hosts = Vec::new();
    for entry in fs::read_dir(workspace().join("resources/hosts")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if let Some(name) = name.strip_suffix(".tar.zst") {
            hosts.push((name.to_owned(), Capture::open(&path).unwrap().into_tree()));
        }
    }
    hosts.sort_by(|(one, _), (other, _)| one.cmp(other));
    assert!(!hosts.is_empty());
    hosts
}

fn page(words: &[&str], tree: &HostTree) -> String {
    let mut page = Page::plain();
    let survey = Survey::of(tree).unwrap();
    write(&mut page, &args(words), tree, &survey).unwrap();
    page.text().to_owned()
}

fn details_of_all(tree: &HostTree) -> String {
    let survey = Survey::of(tree).unwrap();
    let bdfs: Vec<String> = survey.facts().map(|facts| facts.bdf.to_string()).collect();
    page(&bdfs.iter().map(String::as_str).collect::<Vec<_>>(), tree)
}

fn as_json(words: &[&str], tree: &HostTree) -> String {
    json(&args(words), &Survey::of(tree).unwrap()).unwrap()
}

fn compare(path: &Path, text: &str) {
    if std::env::var_os("TENON_UPDATE").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let golden = fs::read_to_string(path).unwrap_or_default();
    for (number, (shown, kept)) in text.lines().zip(golden.lines()).enumerate() {
        assert_eq!(shown, kept, "{}:{}", path.display(), number + 1);
    }
    assert_eq!(text.len(), golden.len(), "{} is longer or shorter", path.display());
}

#[test]
fn hosts_look_as_they_did() {
    for (name, tree) in hosts() {
        let folder = workspace().join("tests/fixtures/devices");
        compare(&folder.join(format!("{name}.groups.txt")), &page(&[], &tree));
        compare(&folder.join(format!("{name}.tree.txt")), &page(&["--tree"], &tree));
        compare(&folder.join(format!("{name}.details.txt")), &details_of_all(&tree));
        compare(&folder.join(format!("{name}.json")), &as_json(&["--json"], &tree));
    }
}

#[test]
fn nothing_is_wider_than_80_columns() {
    for (name, tree) in hosts() {
        for text in [page(&[], &tree), page(&["--tree"], &tree), details_of_all(&tree)] {
            for line in text.lines() {
                assert!(line.width() <= 80, "{name}: {} columns: {line}", line.width());
            }
        }
    }
}

/// The schema is made of the types that the JSON is made of.
#[test]
fn the_schema_is_kept_and_every_host_fits_it() {
    let schema = schemars::schema_for!(json::Report);
    let text = serde_json::to_string_pretty(&schema).unwrap() + "\n";
    compare(&workspace().join("docs/devices.schema.json"), &text);

    let mut schemas = boon::Schemas::new();
    let mut compiler = boon::Compiler::new();
    compiler
        .add_resource("tenon:devices", serde_json::to_value(&schema).unwrap())
        .unwrap();
    let index = compiler.compile("tenon:devices", &mut schemas).unwrap();
    for (name, tree) in hosts() {
        let report: serde_json::Value = serde_json::from_str(&as_json(&["--json"], &tree)).unwrap();
        if let Err(error) = schemas.validate(&report, index) {
            panic!("{name}: {error:#}");
        }
        assert!(report["functions"].as_array().unwrap().len() > 5, "{name}");
    }
    let mut wrong: serde_json::Value = serde_json::from_str(&as_json(&["--json"], &hosts()[0].1)).unwrap();
    wrong["functions"][0]["bdf"] = 7.into();
    assert!(schemas.validate(&wrong, index).is_err(), "the schema takes anything");
}

fn z77() -> HostTree {
    let path = workspace().join("resources/hosts/z77.tar.zst");
    Capture::open(&path).unwrap().into_tree()
}

/// The addresses at the starts of the lines, in order.
fn addresses(text: &str) -> Vec<&str> {
    let starts = text.lines().filter_map(|line| line.split_whitespace().next());
    let mut addresses: Vec<&str> = starts.filter(|word| word.parse::<Bdf>().is_ok()).collect();
    addresses.sort_unstable();
    addresses
}

#[test]
fn filters_are_combined() {
    let tree = z77();
    for (words, expected) in [
        (&["--class", "display"][..], &["00:02.0", "01:00.0"][..]),
        (&["--class", "display,audio", "--group", "1"], &["01:00.0", "01:00.1"]),
        (&["--group", "9", "--class", "storage"], &["00:1f.2"]),
        (&["--class", "network", "--assignable"], &[]),
        (&["nvidia", "GEFORCE"], &["01:00.0"]),
        (&["10de:"], &["01:00.0", "01:00.1"]),
        (&["snd_hda"], &["00:1b.0", "01:00.1"]),
        (&["--class", "bridge", "--assignable"], &[]),
    ] {
        assert_eq!(addresses(&page(words, &tree)), expected, "{words:?}");
    }
    assert!(page(&["no such thing"], &tree).contains("No function passes"));
    // The way to a function is drawn with it.
    let drawn = page(&["--tree", "--class", "display"], &tree);
    assert!(
        drawn.contains("00:01.0") && drawn.contains("01:00.0") && !drawn.contains("01:00.1"),
        "{drawn}"
    );
    let one: serde_json::Value = serde_json::from_str(&as_json(&["--json", "01:00.1"], &tree)).unwrap();
    assert_eq!(one["functions"].as_array().unwrap().len(), 1);
    assert_eq!(
        one["functions"][0]["unit"],
        serde_json::json!(["0000:01:00.0", "0000:01:00.1"])
    );
    assert_eq!(one["groups"][0]["number"], 1);
}

#[test]
fn what_is_not_there_is_named() {
    let survey = Survey::of(&z77()).unwrap();
    let error = json(&args(&["--json", "42:00.0"]), &survey).unwrap_err();
    assert_eq!(error.status(), ExitStatus::Configuration);
    assert!(error.to_string().contains("0000:42:00.0"), "{error}");
    let empty = TempDir::new().unwrap();
    let error = Survey::of(&HostTree::at(empty.as_path()))
        .map_err(DevicesError::Survey)
        .unwrap_err();
    assert_eq!(error.status(), ExitStatus::Host);
}

#[test]
fn the_mistake_of_the_z77_is_explained() {
    let path = workspace().join("resources/hosts/z77-by-mistake.tar.zst");
    let text = page(&[], &Capture::open(&path).unwrap().into_tree());
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    for told in [
        "01:00.0 is set aside for a guest, but not 01:00.1",
        "the host crashes when the guest shuts down",
        "00:02.0 is set aside, most likely by mistake",
        "`tenon bind 01:00.1`",
    ] {
        assert!(text.contains(told), "{told}: {text}");
    }
}

/// A capture made to deceive: orders to the terminal in every text, paths that go in circles, and nonsense.
#[test]
fn a_hostile_host_gives_no_orders() {
    let dir = TempDir::new().unwrap();
    let root = dir.as_path();
    let evil = "\u{1b}]0;owned\u{7}\u{1b}[2J\u{202e}\u{9b}31m";
    let put = |path: String, text: &str| {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    for number in 0..40 {
        let below: String = (0..number % 20)
            .map(|level| format!("0000:{level:02x}:00.0/"))
            .collect();
        let path = format!("sys/devices/pci0000:00/{below}0000:{number:02x}:00.0");
        put(format!("{path}/vendor"), "0xffff");
        put(format!("{path}/device"), if number == 7 { evil } else { "0xffff" });
        put(format!("{path}/class"), "0x030000");
        put(format!("{path}/driver_override"), evil);
        put(format!("{path}/power_state"), evil);
        put(format!("{path}/reset_method"), evil);
        put(
            format!("{path}/resource"),
            "0x0 0xffffffffffffffff 0xffffffffffffffff\n-1 x\n",
        );
        put(format!("{path}/max_link_speed"), evil);
        put(format!("{path}/max_link_width"), "16");
        put(format!("{path}/config"), evil);
        put(
            format!("{path}/drm/card0/card0-{}/status", evil.replace('/', "")),
            "connected",
        );
        for (name, target) in [
            ("driver", evil),
            ("iommu_group", "../../../0"),
            ("physfn", "0000:00:00.0"),
        ] {
            std::os::unix::fs::symlink(target, root.join(&path).join(name)).unwrap();
        }
        let devices = root.join("sys/bus/pci/devices");
        fs::create_dir_all(&devices).unwrap();
        let link = devices.join(format!("0000:{number:02x}:00.0"));
        std::os::unix::fs::symlink(format!("../../../../{path}"), link).unwrap();
    }
    put(
        "proc/self/mountinfo".to_owned(),
        &format!("1 1 8:1 / /{evil} rw - ext4 /dev/{evil} rw\n - - \n"),
    );
    put(
        "usr/share/misc/pci.ids".to_owned(),
        &format!("ffff  {evil}\n\tffff  {evil}\nC 03  {evil}\n"),
    );
    let tree = HostTree::at(root);
    for text in [
        page(&[], &tree),
        page(&["--tree"], &tree),
        details_of_all(&tree),
        as_json(&["--json"], &tree),
    ] {
        let bad = text.chars().find(|c| is_unsafe(*c) && *c != '\n');
        assert_eq!(bad, None, "{text:?}");
        assert!(text.lines().count() > 40, "{text}");
    }
}
