//! What a run of the guest left, judged: each thing that has to be right, with what was found.

use serde::Serialize;

use super::{Interrupts, Plan};
use crate::guest::{Marks, field};
use crate::hear::Tone;
use crate::lab::Set;
use crate::scenario::Failure;

/// The pitch of the guest's tone, and how far off it may be.
const TONE_HZ: f64 = 1000.0;
const TONE_TOLERANCE: f64 = 0.02;
/// Of the two seconds played, so much must be heard.
const TONE_SECONDS: f64 = 1.0;
/// A period of the guest's sound is about 0.1 s; half as many interrupts as that makes would already be a fault.
const TONE_INTERRUPTS: u64 = 10;
/// Leaves of 0x40000000 to 0x4000ffff.
const HYPERVISOR_LEAVES: &str = "65536";

/// One thing that has to be right.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What has to be.
    pub what: String,
    /// Whether it was.
    pub right: bool,
    /// What was found.
    pub evidence: String,
}

impl Finding {
    /// A finding.
    #[must_use]
    pub fn new(what: impl Into<String>, right: bool, evidence: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            right,
            evidence: evidence.into(),
        }
    }
}

/// Judges what the guest said of itself.
#[must_use]
pub fn judge(plan: &Plan, marks: &Marks, serial: &str) -> Vec<Finding> {
    let mut findings = vec![ecam(plan.set, serial), drivers(marks), display(marks)];
    findings.extend(interrupts(plan.interrupts, marks));
    findings.push(if plan.hide_kvm { hidden(marks) } else { shown(marks) });
    findings.push(tsc(plan, marks));
    findings.push(complaints(marks));
    findings
}

/// Judges whether all three functions work: drivers bound, sound played by MSI, nothing to complain of. For marks of one
/// boot whose words were `drivers` and `tone`.
///
/// # Errors
/// Says all that was not right.
pub fn functions_work(marks: &Marks) -> Result<(), Failure> {
    let mut findings = vec![drivers(marks), complaints(marks)];
    findings.extend(interrupts(Interrupts::Msi, marks));
    let wrong: Vec<String> = findings
        .iter()
        .filter(|finding| !finding.right)
        .map(|finding| format!("not so: {}: {}", finding.what, finding.evidence))
        .collect();
    Failure::unless(wrong.is_empty(), || wrong.join("\n"))
}

/// Judges a recording: its file's name and what was measured.
#[must_use]
pub fn judge_tone(name: &str, tone: &Result<Tone, String>) -> Finding {
    let what = format!("a {TONE_HZ:.0} Hz tone in {name}");
    match tone {
        Ok(tone) => Finding::new(
            what,
            tone.is(TONE_HZ, TONE_TOLERANCE) && tone.seconds >= TONE_SECONDS,
            format!("{:.1} Hz for {:.2} s, purity {:.2}", tone.hz, tone.seconds, tone.purity),
        ),
        Err(error) => Finding::new(what, false, error),
    }
}

/// Where the firmware put the ECAM window, as the guest's kernel has it: the two firmwares differ in it.
fn ecam(set: Set, serial: &str) -> Finding {
    let window = match set {
        Set::New => "[mem 0xe0000000-0xefffffff]",
        Set::Old => "[mem 0xb0000000-0xbfffffff]",
    };
    // "PCI: ECAM [mem ...] for domain" in Linux 6.12, "PCI: MMCONFIG for domain 0000 [bus 00-ff] at [mem ...]" in 6.1.
    let line = serial.lines().find(|line| {
        (line.contains("PCI: ECAM [mem") || line.contains("PCI: MMCONFIG for domain")) && line.contains("[mem")
    });
    let line = line.unwrap_or("no word of it in the kernel's log").trim();
    Finding::new(format!("ECAM at {window}"), line.contains(window), line)
}

/// The functions whose guest driver is this one.
fn with_driver<'a>(marks: &'a Marks, driver: &str) -> Vec<&'a str> {
    let bound = marks.about("driver").filter(|(_, name)| *name == driver);
    bound.map(|(function, _)| function).collect()
}

/// The display adapter at function 0, its sound at function 1 of the same slot, the other sound elsewhere.
fn drivers(marks: &Marks) -> Finding {
    let (displays, sounds) = (with_driver(marks, "bochs-drm"), with_driver(marks, "snd_hda_intel"));
    let right = match (displays.as_slice(), sounds.len()) {
        ([display], 2) => display
            .strip_suffix(".0")
            .is_some_and(|slot| sounds.contains(&format!("{slot}.1").as_str())),
        _ => false,
    };
    let all: Vec<String> = marks
        .about("driver")
        .map(|(function, name)| format!("{function} {name}"))
        .collect();
    Finding::new("native drivers on all three functions", right, all.join(", "))
}

fn display(marks: &Marks) -> Finding {
    let value = marks.get("display").unwrap_or("no display");
    Finding::new(
        "the display's native framebuffer",
        value.starts_with("bochs-drm"),
        value,
    )
}

/// Both sound controllers' interrupts while they play.
fn interrupts(kind: Interrupts, marks: &Marks) -> Vec<Finding> {
    let functions = with_driver(marks, "snd_hda_intel");
    let judged = functions.iter().map(|function| {
        let value = marks.get(&format!("tone {function}")).unwrap_or("not played");
        let count = |name| field(value, name).and_then(|number| number.parse::<u64>().ok());
        let counted = count("after").zip(count("before"));
        let counted = counted.map_or(0, |(after, before)| after.saturating_sub(before));
        let right = field(value, "kind") == Some(kind.word())
            && field(value, "status") == Some("0")
            && counted >= TONE_INTERRUPTS;
        Finding::new(format!("{function} interrupts by {kind}"), right, value)
    });
    let mut findings: Vec<Finding> = judged.collect();
    // A function without a driver must not make its finding vanish.
    findings.resize_with(findings.len().max(2), || {
        Finding::new(
            format!("interrupts by {kind}"),
            false,
            "a sound controller has no driver",
        )
    });
    findings
}

/// All that the guest said of a hypervisor, on one line.
fn hypervisor(marks: &Marks) -> String {
    let keys = ["cpuid 0x40000000", "kvm-leaves", "cpuinfo", "detected", "dmesg-kvm"];
    let said = keys.map(|key| format!("{key}: {}", marks.get(key).unwrap_or("unknown")));
    said.join("; ")
}

/// "KVMKVMKVM" in ebx, ecx and edx, as the guest prints them.
const SIGNATURE: &str = "4b4d564b 564b4d56 0000004d";

fn hidden(marks: &Marks) -> Finding {
    let leaves = marks.get("kvm-leaves").unwrap_or_default();
    let mut named = marks.about("cpuid");
    let right = leaves == format!("0 scanned={HYPERVISOR_LEAVES}")
        && marks.about("cpuid").count() == 4
        && named.all(|(_, leaf)| !leaf.contains("4b4d564b"))
        && marks.get("cpuinfo").and_then(|value| field(value, "kvm")) == Some("no")
        && marks.get("detected") == Some("none")
        && marks.get("dmesg-kvm") == Some("0");
    Finding::new("nothing tells the guest of KVM", right, hypervisor(marks))
}

fn shown(marks: &Marks) -> Finding {
    let leaves = marks.get("kvm-leaves").unwrap_or_default();
    let number = |text: &str| {
        text.split_whitespace()
            .next()
            .and_then(|it| it.parse::<u32>().ok())
            .unwrap_or(0)
    };
    let right = number(leaves) >= 1
        && marks
            .get("cpuid 0x40000000")
            .is_some_and(|leaf| leaf.contains(SIGNATURE))
        && marks.get("detected") == Some("KVM")
        && number(marks.get("dmesg-kvm").unwrap_or_default()) >= 1;
    Finding::new("KVM shows itself to the guest", right, hypervisor(marks))
}

/// A TSC the guest trusts; a hidden KVM leaves it no clock of KVM's to use instead.
fn tsc(plan: &Plan, marks: &Marks) -> Finding {
    let current = marks.get("clocksource").unwrap_or("unknown");
    let available = marks.get("clocksources").unwrap_or_default();
    let unstable = marks.all("tsc-log").find(|line| line.contains("nstable"));
    let right = available.split_whitespace().any(|clock| clock == "tsc")
        && unstable.is_none()
        && (current == "tsc" || !plan.hide_kvm);
    let evidence = format!(
        "{current} of {available}{}",
        unstable.map(|line| format!("; {line}")).unwrap_or_default()
    );
    Finding::new("a TSC that the guest can use", right, evidence)
}

/// What the guest itself found wrong.
fn complaints(marks: &Marks) -> Finding {
    let errors: Vec<&str> = marks.all("error").collect();
    let evidence = if errors.is_empty() {
        "none".to_owned()
    } else {
        errors.join("; ")
    };
    Finding::new("no complaints from the guest", errors.is_empty(), evidence)
}

#[cfg(test)]
mod tests {
    use super::{Finding, judge, judge_tone};
    use crate::guest::Marks;
    use crate::hear::Tone;
    use crate::lab::Set;
    use crate::scenarios::gaming::{Interrupts, Plan};

    const HIDDEN: Plan = Plan {
        name: "hidden",
        set: Set::New,
        interrupts: Interrupts::Msi,
        hide_kvm: true,
        whole_log: false,
    };

    /// As the guest said it in the lab.
    const LOG: &str = "@@ driver 0000:00:02.0=pcieport\n@@ driver 0000:01:00.0=snd_hda_intel\n\
        @@ driver 0000:02:00.0=bochs-drm\n@@ driver 0000:02:00.1=snd_hda_intel\n\
        @@ cpuid 0x40000000=00000000 00000000 00000000 00000000\n@@ cpuid 0x40000001=00000000 00000000 00000000 00000000\n\
        @@ cpuid 0x40000100=00000000 00000000 00000000 00000000\n@@ cpuid 0x40000101=00000000 00000000 00000000 00000000\n\
        @@ kvm-leaves=0 scanned=65536\n@@ cpuinfo=hypervisor=yes kvm=no model=17/31\n@@ detected=none\n@@ dmesg-kvm=0\n\
        @@ clocksource=tsc\n@@ clocksources=tsc acpi_pm\n@@ tsc-log=[    0.0] tsc: Fast TSC calibration using PIT\n\
        @@ tone 0000:01:00.0=card=0 kind=msi before=48 after=69 status=0\n\
        @@ tone 0000:02:00.1=card=1 kind=msi before=32 after=53 status=0\n@@ display=bochs-drmdrmfb size=1280,800\n\
        [    0.1] PCI: ECAM [mem 0xe0000000-0xefffffff] (base 0xe0000000) for domain 0000 [bus 00-ff]\n@@ poweroff\n";

    fn wrong(plan: &Plan, log: &str) -> Vec<String> {
        let findings = judge(plan, &Marks::parse(log.as_bytes()), log);
        findings
            .into_iter()
            .filter(|it| !it.right)
            .map(|Finding { what, .. }| what)
            .collect()
    }

    #[test]
    fn a_good_run_is_right() {
        assert_eq!(wrong(&HIDDEN, LOG), Vec::<String>::new());
    }

    #[test]
    fn an_empty_log_is_wrong_in_everything_but_complaints() {
        assert_eq!(
            judge(&HIDDEN, &Marks::default(), "").len() - 1,
            wrong(&HIDDEN, "").len()
        );
    }

    #[test]
    fn each_fault_is_found() {
        let faults = [
            (
                "0000:02:00.1=snd_hda_intel",
                "0000:03:00.0=snd_hda_intel",
                "native drivers on all three functions",
            ),
            (
                "kind=msi before=32",
                "kind=intx before=32",
                "0000:02:00.1 interrupts by MSI",
            ),
            ("after=69", "after=50", "0000:01:00.0 interrupts by MSI"),
            (
                "after=53 status=0",
                "after=53 status=1",
                "0000:02:00.1 interrupts by MSI",
            ),
            ("kvm-leaves=0", "kvm-leaves=1", "nothing tells the guest of KVM"),
            ("scanned=65536", "scanned=1", "nothing tells the guest of KVM"),
            ("detected=none", "detected=KVM", "nothing tells the guest of KVM"),
            (
                "0x40000100=00000000 00000000",
                "0x40000100=40000101 4b4d564b",
                "nothing tells the guest of KVM",
            ),
            ("clocksource=tsc", "clocksource=acpi_pm", "a TSC that the guest can use"),
            (
                "tsc: Fast",
                "Marking TSC unstable: Fast",
                "a TSC that the guest can use",
            ),
            (
                "display=bochs-drmdrmfb",
                "display=EFI VGA",
                "the display's native framebuffer",
            ),
            (
                "mem 0xe0000000-0xefffffff",
                "mem 0xb0000000-0xbfffffff",
                "ECAM at [mem 0xe0000000-0xefffffff]",
            ),
            ("@@ poweroff", "@@ error=no sound card", "no complaints from the guest"),
        ];
        for (from, to, what) in faults {
            let log = LOG.replacen(from, to, 1);
            assert_ne!(log, LOG, "{from}");
            // A driver that is on another function has not played there either.
            let found = wrong(&HIDDEN, &log);
            assert!(
                found.iter().any(|it| it == what) && found.len() <= 2,
                "{from}: {found:?}"
            );
        }
    }

    #[test]
    fn a_visible_kvm_is_right_only_where_it_was_asked_for() {
        let shown = Plan {
            hide_kvm: false,
            ..HIDDEN
        };
        assert_eq!(wrong(&shown, LOG), ["KVM shows itself to the guest"]);
        let log = LOG
            .replace(
                "0x40000000=00000000 00000000 00000000 00000000",
                "0x40000000=40000001 4b4d564b 564b4d56 0000004d",
            )
            .replace("kvm-leaves=0", "kvm-leaves=1")
            .replace("detected=none", "detected=KVM")
            .replace("dmesg-kvm=0", "dmesg-kvm=3")
            .replace("clocksource=tsc", "clocksource=kvm-clock")
            .replace("clocksources=tsc", "clocksources=kvm-clock tsc");
        assert_eq!(wrong(&shown, &log), Vec::<String>::new());
    }

    #[test]
    fn tones_are_judged_by_pitch_and_length() {
        let tone = |hz, seconds| {
            judge_tone(
                "hda.wav",
                &Ok(Tone {
                    hz,
                    seconds,
                    rms: 0.3,
                    purity: 0.9,
                }),
            )
            .right
        };
        assert!(tone(1006.0, 1.9) && !tone(1025.0, 1.9) && !tone(1000.0, 0.3));
        assert!(!judge_tone("hda.wav", &Err("silence".to_owned())).right);
    }
}
