use super::*;
use crate::host::survey::tests::{Line, made_up};

const HOST: [Line; 10] = [
    ("00:01.0", 0x060400, 0x8086, Some("pcieport"), Some(1)),
    ("00:02.0", 0x030000, 0x8086, Some("i915"), Some(2)),
    ("00:1b.0", 0x040300, 0x8086, Some("snd_hda_intel"), Some(6)),
    ("00:1f.0", 0x060100, 0x8086, Some("lpc_ich"), Some(7)),
    ("00:1f.3", 0x040300, 0x8086, Some("snd_hda_intel"), Some(7)),
    ("01:00.0", 0x030000, 0x10de, Some("nouveau"), Some(1)),
    ("01:00.1", 0x040300, 0x10de, Some("pci-stub"), Some(1)),
    ("01:00.2", 0x0c0330, 0x10de, Some("vfio-pci"), Some(8)),
    ("02:00.0", 0x010802, 0x144d, Some("nvme"), Some(3)),
    ("03:00.0", 0x020000, 0x8086, None, None),
];

fn bdfs(text: &str) -> Vec<Bdf> {
    text.split_whitespace().map(|bdf| bdf.parse().unwrap()).collect()
}

fn whole() -> PlanOptions {
    PlanOptions {
        whole_units: true,
        ..PlanOptions::default()
    }
}

/// The host above, with what the host uses a function for.
fn plan(named: &str, options: PlanOptions, uses: &[(&str, Use)]) -> Result<BindPlan, PlanError> {
    let mut survey = made_up(&HOST);
    for (bdf, what) in uses {
        let bdf = bdfs(bdf)[0];
        let function = survey.functions.iter_mut().find(|function| function.bdf() == bdf);
        function.unwrap().uses.push(what.clone());
    }
    BindPlan::new(&HostTree::at("/nonexistent"), &survey, &bdfs(named), options)
}

#[test]
fn a_card_comes_as_a_whole_with_the_reasons() {
    let plan = plan("01:00.0", whole(), &[]).unwrap();
    let rows: Vec<(String, Action, Why)> = plan
        .functions
        .iter()
        .map(|row| (row.bdf.to_string(), row.action, row.why))
        .collect();
    let expected = [
        ("0000:01:00.0", Action::Take, Why::Named),
        ("0000:01:00.1", Action::Take, Why::Group { group: 1 }),
        ("0000:01:00.2", Action::Keep, Why::Card),
    ];
    assert_eq!(rows, expected.map(|(bdf, action, why)| (bdf.to_owned(), action, why)));
    assert_eq!(plan.to_take(), bdfs("01:00.0 01:00.1"));
    assert_eq!(plan.for_guest(), bdfs("01:00.0 01:00.1 01:00.2"));
    assert!(plan.functions[1].notes[0].contains("isolated on pci-stub"));
    assert!(plan.display.is_none());
}

#[test]
fn a_stub_may_stay_where_it_is() {
    let keep = PlanOptions {
        keep_stubs: true,
        ..whole()
    };
    assert_eq!(plan("01:00.0", keep, &[]).unwrap().to_take(), bdfs("01:00.0"));
    // Named it is wanted.
    let named = plan("01:00.0 01:00.1", keep, &[]).unwrap();
    assert_eq!(named.to_take(), bdfs("01:00.0 01:00.1"));
}

#[test]
fn without_whole_units_all_of_a_group_must_be_named() {
    let message = plan("01:00.1", PlanOptions::default(), &[]).unwrap_err().to_string();
    assert!(
        message.contains("shares IOMMU group 1") && message.contains("0000:01:00.0"),
        "{message}"
    );
    // What is on pci-stub is isolated without being named.
    let alone = plan("01:00.0", PlanOptions::default(), &[]).unwrap();
    assert_eq!(alone.to_take(), bdfs("01:00.0"));
    let named = plan("01:00.1 01:00.0", PlanOptions::default(), &[]).unwrap();
    assert_eq!(named.to_take(), bdfs("01:00.0 01:00.1"));
}

#[test]
fn the_screen_takes_a_word() {
    let console = Use::Console { by: "boot_vga".into() };
    for (what, expected) in [
        (Use::OnlyDisplay, "the only display"),
        (console, "the display of the console"),
    ] {
        let uses = [("01:00.0", what)];
        let message = plan("01:00.1", whole(), &uses).unwrap_err().to_string();
        for words in [expected, "goes dark", "tenon release --all", "--yes-this-is-my-display"] {
            assert!(message.contains(words), "{words}: {message}");
        }
        let mine = PlanOptions {
            my_display: true,
            ..whole()
        };
        let plan = plan("01:00.1", mine, &uses).unwrap();
        assert_eq!(plan.display, Some(bdfs("01:00.0")[0]));
    }
}

/// What is named, what the host uses, what is said.
type Case<'a> = (&'a str, &'a [(&'a str, Use)], &'a [&'a str]);

#[test]
fn refusals_name_function_reason_and_remedy() {
    let mount = Use::Mount {
        at: "/home".into(),
        disk: "nvme0n1p2".into(),
    };
    let swap = Use::Swap {
        on: "/dev/nvme0n1p3".into(),
        disk: "nvme0n1p3".into(),
    };
    let vm = Use::Vm {
        pid: 812,
        name: "qemu".into(),
    };
    let route = Use::DefaultRoute {
        through: "br0".into(),
        interface: "eth0".into(),
    };
    let cases: [Case<'_>; 9] = [
        (
            "02:00.0",
            &[("02:00.0", mount)],
            &["0000:02:00.0", "nvme0n1p2", "`umount /home`"],
        ),
        ("02:00.0", &[("02:00.0", swap)], &["`swapoff /dev/nvme0n1p3`"]),
        ("02:00.0", &[("02:00.0", route)], &["br0 over eth0"]),
        (
            "01:00.0",
            &[("01:00.2", vm)],
            &[
                "0000:01:00.2",
                "which must come along (a function of the same card",
                "in use by qemu (812)",
            ],
        ),
        (
            "02:00.0",
            &[("02:00.0", Use::VirtualFunctions(4))],
            &["4 virtual", "sriov_numvfs"],
        ),
        ("00:01.0", &[], &["0000:00:01.0", "is a bridge", "functions behind it"]),
        ("0f:00.0", &[], &["0000:0f:00.0", "tenon devices"]),
        ("03:00.0", &[], &["no IOMMU group", "tenon check"]),
        ("00:1f.3", &[], &["bridge 00:1f.0", "lpc_ich/unbind"]),
    ];
    for (named, uses, expected) in cases {
        let error = plan(named, whole(), uses).unwrap_err();
        let said = format!("{error} {}", error.remedy().unwrap_or_default());
        for words in expected {
            assert!(said.contains(words), "{words}: {said}");
        }
    }
}
