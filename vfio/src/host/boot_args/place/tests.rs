use super::*;

fn grub() -> Place {
    Place::Shell {
        variable: "GRUB_CMDLINE_LINUX".into(),
        others: vec!["GRUB_CMDLINE_LINUX_DEFAULT".into()],
    }
}

fn wanted() -> Vec<String> {
    vec!["intel_iommu=on".into(), "iommu=pt".into()]
}

fn edit(place: &Place, text: &str) -> Edited {
    place.edit(text.as_bytes(), &wanted(), |_| false).unwrap()
}

/// What stands for `@` is added, and not a second time.
fn goes(place: &Place, text: &str, expected: &str) {
    const ADDED: &str = "intel_iommu=on iommu=pt";
    let edited = edit(place, text);
    assert_eq!(
        String::from_utf8_lossy(&edited.bytes),
        expected.replace('@', ADDED),
        "{text}"
    );
    assert_eq!(edited.added, wanted());
    assert_eq!(
        edit(place, &String::from_utf8(edited.bytes).unwrap()).added,
        [""; 0],
        "{text}"
    );
}

#[test]
fn arguments_go_where_the_file_keeps_them() {
    for (place, text, expected) in [
        (
            grub(),
            "GRUB_CMDLINE_LINUX=\"rhgb quiet\"\n",
            "GRUB_CMDLINE_LINUX=\"rhgb quiet @\"\n",
        ),
        (
            grub(),
            "GRUB_CMDLINE_LINUX='rhgb quiet'\n",
            "GRUB_CMDLINE_LINUX='rhgb quiet @'\n",
        ),
        (grub(), "GRUB_CMDLINE_LINUX=\"\"\n", "GRUB_CMDLINE_LINUX=\"@\"\n"),
        (grub(), "GRUB_CMDLINE_LINUX=\n", "GRUB_CMDLINE_LINUX=\"@\"\n"),
        (
            grub(),
            "GRUB_CMDLINE_LINUX=quiet # x\n",
            "GRUB_CMDLINE_LINUX=quiet\" @\" # x\n",
        ),
        (
            grub(),
            "GRUB_CMDLINE_LINUX=\"a \"\r\nB=1\r\n",
            "GRUB_CMDLINE_LINUX=\"a  @\"\r\nB=1\r\n",
        ),
        (grub(), "GRUB_TIMEOUT=5", "GRUB_TIMEOUT=5\nGRUB_CMDLINE_LINUX=\"@\"\n"),
        (grub(), "", "GRUB_CMDLINE_LINUX=\"@\"\n"),
        (
            grub(),
            "GRUB_CMDLINE_LINUX=\"old\"\n#GRUB_CMDLINE_LINUX=\"no\"\nGRUB_CMDLINE_LINUX=\"new\"\n",
            "GRUB_CMDLINE_LINUX=\"old\"\n#GRUB_CMDLINE_LINUX=\"no\"\nGRUB_CMDLINE_LINUX=\"new @\"\n",
        ),
        (
            grub(),
            "GRUB_CMDLINE_LINUX=\"a \\\n  b\"\n",
            "GRUB_CMDLINE_LINUX=\"a \\\n  b @\"\n",
        ),
        (grub(), "GRUB_CMDLINE_LINUX+=\"\"\n", "GRUB_CMDLINE_LINUX+=\" @\"\n"),
    ] {
        goes(&place, text, expected);
    }
}

#[test]
fn arguments_go_to_the_end_of_a_line() {
    for (place, text, expected) in [
        (Place::Line, "root=UUID=1 ro", "root=UUID=1 ro @"),
        (
            Place::Line,
            "# ours\nroot=UUID=1 ro  \n\n",
            "# ours\nroot=UUID=1 ro @  \n\n",
        ),
        (Place::Line, "root=x\nro\n# end\n", "root=x\nro @\n# end\n"),
        (Place::Line, "root=x\r\n", "root=x @\r\n"),
        (
            Place::Options,
            "title A\noptions root=x ro\n",
            "title A\noptions root=x ro @\n",
        ),
        (
            Place::Options,
            "options a\noptions b\nlinux /x\n",
            "options a\noptions b @\nlinux /x\n",
        ),
        (
            Place::Options,
            "linux /x\noptionsx y",
            "linux /x\noptionsx y\noptions @\n",
        ),
        (
            Place::List,
            "# modules\nvfio\n",
            "# modules\nvfio\nintel_iommu=on\niommu=pt\n",
        ),
        (Place::List, "vfio", "vfio\nintel_iommu=on\niommu=pt\n"),
        (Place::Options, "options\nlinux /x\n", "options @\nlinux /x\n"),
    ] {
        goes(&place, text, expected);
    }
}

#[test]
fn what_was_there_is_not_ours() {
    let text = "GRUB_CMDLINE_LINUX_DEFAULT=\"iommu=pt\"\nGRUB_CMDLINE_LINUX=\"quiet\"\n";
    let edited = edit(&grub(), text);
    assert_eq!(edited.added, ["intel_iommu=on"]);
    let back = grub().restore(&edited.bytes, &edited.added, &[]).unwrap();
    assert_eq!(String::from_utf8(back).unwrap(), text);
}

#[test]
fn words_of_the_user_outlive_ours() {
    let edited = edit(&Place::Line, "root=x ro\n");
    let mine = String::from_utf8(edited.bytes).unwrap().replace(" ro", " rw mine") + "after\n";
    let back = Place::Line.restore(mine.as_bytes(), &edited.added, &[]).unwrap();
    assert_eq!(String::from_utf8(back).unwrap(), "root=x rw mine\nafter\n");
}

#[test]
fn what_is_taken_comes_back() {
    let text = "options root=x pci-stub.ids=10de:1401 ro\n";
    let edited = Place::Options
        .edit(text.as_bytes(), &wanted(), |word| word.starts_with("pci-stub"))
        .unwrap();
    assert_eq!(edited.taken, ["pci-stub.ids=10de:1401"]);
    assert_eq!(edited.bytes, b"options root=x ro intel_iommu=on iommu=pt\n");
    let back = Place::Options
        .restore(&edited.bytes, &edited.added, &edited.taken)
        .unwrap();
    assert_eq!(back, b"options root=x ro pci-stub.ids=10de:1401\n");
}

#[test]
fn files_that_make_no_sense_are_refused() {
    for (place, text, expected) in [
        (Place::Line, "\n# nothing\n", "root file system"),
        (grub(), "A='\n", "line 1"),
        (Place::Options, "linux\0", "not a text file"),
    ] {
        let message = place
            .edit(text.as_bytes(), &wanted(), |_| false)
            .unwrap_err()
            .to_string();
        assert!(message.contains(expected), "{message}");
    }
}
