//! The main job, end to end: stock OVMF and Linux on the assigned GPU, its HDMI audio and the HDA controller.

pub mod evidence;

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::monitor::{self, RUN_LIMIT, Run, Sight, guest_does};
use crate::guest::Marks;
use crate::hear::{Tone, Wav, measure};
use crate::lab::{LabHost, Set};
use crate::scenario::{Failure, Scenario, Wish};
use crate::see::Scene;
use evidence::{Finding, judge, judge_tone};

/// What the guest does: first all that is looked at, while the lab host is paced.
const WORDS: &str = "drivers,display,console,pause=2,frame,pause=2,dmi,cpuid,tone=2";

/// What has to be seen on the adapter, in this order.
const SCENES: [Scene; 5] = [
    Scene::Splash,
    Scene::Grub,
    Scene::KernelLog,
    Scene::Console,
    Scene::Frame,
];

/// The recordings of the two HDA controllers, by the names the lab gives them.
pub const RECORDINGS: [&str; 2] = ["hda.wav", "hdmi.wav"];

/// How the sound controllers interrupt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interrupts {
    /// By messages, as the driver likes it.
    Msi,
    /// By the pin, through the IO-APIC.
    Intx,
}

impl Interrupts {
    /// The guest's word for it.
    fn word(self) -> &'static str {
        match self {
            Self::Msi => "msi",
            Self::Intx => "intx",
        }
    }
}

impl fmt::Display for Interrupts {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Msi => "MSI",
            Self::Intx => "INTx",
        })
    }
}

/// One run of the guest.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Names the logs.
    pub name: &'static str,
    /// Whose firmware and kernel.
    pub set: Set,
    /// What the sound controllers are to use.
    pub interrupts: Interrupts,
    /// Whether the guest is kept from seeing KVM: the default with a display adapter, so nothing is said then.
    pub hide_kvm: bool,
    /// Whether the guest's log is to have all that its kernel said; that takes a while through a serial port.
    pub whole_log: bool,
}

/// What a run showed, as far as it came.
#[derive(Debug, Default)]
pub struct Story {
    /// Each thing that has to be right.
    pub findings: Vec<Finding>,
    /// The pictures.
    pub sights: Vec<Sight>,
    /// What was heard, by recording.
    pub tones: Vec<(&'static str, Tone)>,
    /// What the guest said.
    pub marks: Marks,
    /// Wall time of the monitor's run.
    pub took: Duration,
}

impl Story {
    /// Whether all is right.
    #[must_use]
    pub fn right(&self) -> bool {
        self.findings.iter().all(|finding| finding.right)
    }
}

/// Plays a plan in a lab host, telling `step` what comes next. What was seen before a failure is in the story.
///
/// # Errors
/// When the run does not get to its end; what is wrong with a run that does is in the findings.
pub fn play(
    host: &mut LabHost,
    plan: &Plan,
    logs: &Path,
    story: &mut Story,
    step: &dyn Fn(&str),
) -> Result<(), Failure> {
    step("making the guest's disk");
    let kernel_args = match plan.interrupts {
        Interrupts::Msi => "",
        Interrupts::Intx => "snd_hda_intel.enable_msi=0",
    };
    let log = if plan.whole_log { "dmesg" } else { "dmesg=PCI:" };
    guest_does(host, plan.set, &format!("{WORDS},{log},poweroff"), kernel_args)?;
    let recordings = RECORDINGS.map(|name| Recording::start(host, name));
    let mut run = Run::new(plan.name).devices().disk();
    if !plan.hide_kvm {
        run = run.arg("--hide-kvm").arg("off");
    }
    step("starting tenon");
    let begin = Instant::now();
    let mut running = run.start(host, logs)?;
    for scene in SCENES {
        step(&format!("watching the adapter for the {scene}"));
        let sights = running.see(host, &[scene], RUN_LIMIT.saturating_sub(begin.elapsed()))?;
        for sight in sights {
            let Sight { image, after, .. } = &sight;
            let evidence = format!(
                "{}x{}, {:.1} s after tenon's start",
                image.width,
                image.height,
                after.as_secs_f32()
            );
            story
                .findings
                .push(Finding::new(format!("the {scene} on the adapter"), true, evidence));
            story.sights.push(sight);
        }
    }
    running.pace(host, false)?;
    step("waiting for the guest's checks and tones, and its power-off");
    let ended = running.finish(host, RUN_LIMIT.saturating_sub(begin.elapsed()))?;
    story.took = ended.took;
    story.marks = ended.marks.clone();
    let serial = String::from_utf8_lossy(&ended.serial);
    story.findings.extend(judge(plan, &ended.marks, &serial));
    for recording in &recordings {
        let tone = recording.tone();
        story.findings.push(judge_tone(recording.name, &tone));
        story.tones.extend(tone.ok().map(|tone| (recording.name, tone)));
    }
    let off = ended.marks.get("poweroff").is_some();
    let evidence = format!(
        "exit status {}{}",
        ended.status,
        if off { "" } else { ", no power-off by the guest" }
    );
    story.findings.push(Finding::new(
        "power-off ends tenon with 0",
        off && ended.status == 0,
        evidence,
    ));
    Ok(())
}

/// A sound file of the lab host's, from a place on: it goes on for the host's whole life.
struct Recording {
    name: &'static str,
    path: PathBuf,
    from: usize,
}

impl Recording {
    fn start(host: &LabHost, name: &'static str) -> Self {
        let path = host.logs().join(name);
        // Without a header so far when nothing was ever played.
        let from = Wav::read(&path).map_or(0, |wav| wav.frames());
        Self { name, path, from }
    }

    fn tone(&self) -> Result<Tone, String> {
        let wav = Wav::read(&self.path).map_err(|error| error.to_string())?;
        let stretch = wav.since(self.from);
        measure(&stretch).ok_or_else(|| format!("{:.2} s of silence", stretch.seconds()))
    }
}

/// A plan as a scenario.
#[derive(Debug)]
pub struct Gaming(pub Plan);

/// With the newer firmware and kernel.
pub const NEW: Gaming = Gaming(Plan {
    name: "gaming-new",
    set: Set::New,
    interrupts: Interrupts::Msi,
    hide_kvm: true,
    whole_log: false,
});

/// With the older ones, whose firmware puts the ECAM elsewhere.
pub const OLD: Gaming = Gaming(Plan {
    name: "gaming-old",
    set: Set::Old,
    ..NEW.0
});

/// Without MSI, and with KVM in plain sight.
pub const INTX: Gaming = Gaming(Plan {
    name: "gaming-intx",
    interrupts: Interrupts::Intx,
    hide_kvm: false,
    ..NEW.0
});

impl Scenario for Gaming {
    fn name(&self) -> &'static str {
        self.0.name
    }

    fn shows(&self) -> &'static str {
        match (self.0.interrupts, self.0.set) {
            (Interrupts::Intx, _) => "the guest's sound by INTx, and KVM visible when it is not to be hidden",
            (_, Set::New) => {
                "OVMF 2025.02, GRUB and Linux 6.12 with the three functions: pictures, tones by MSI, KVM hidden"
            }
            (_, Set::Old) => {
                "OVMF 2022.11, GRUB and Linux 6.1 with the three functions: pictures, tones by MSI, KVM hidden"
            }
        }
    }

    fn wish(&self) -> Wish {
        Wish::of(self.0.set)
    }

    fn cost(&self) -> Duration {
        Duration::from_secs(200)
    }

    fn run(&self, host: &mut LabHost, logs: &Path) -> Result<(), Failure> {
        let mut story = Story::default();
        play(host, &self.0, logs, &mut story, &|_| {})?;
        host.check(&format!("unbind_vfio {}", monitor::FUNCTIONS.join(" ")), monitor::SHORT)?;
        let wrong: Vec<String> = story
            .findings
            .iter()
            .filter(|finding| !finding.right)
            .map(|finding| format!("{}: {}", finding.what, finding.evidence))
            .collect();
        Failure::unless(wrong.is_empty(), || wrong.join("\n"))
    }
}
