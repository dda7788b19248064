//! `cargo lab demo`: the main job once, with what it shows left in a folder.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use clap::Args;
use serde::Serialize;
use tests::lab::host::count_retry;
use tests::lab::product::{Product, target_dir};
use tests::lab::{Config, HostError, LabHost, Store, initramfs};
use tests::scenario::Failure;
use tests::scenarios::gaming::evidence::Finding;
use tests::scenarios::gaming::{NEW, Plan, RECORDINGS, Story, play};
use tests::scenarios::monitor::{self, SHORT};
use tests::see::Scene;

use super::Outcome;
use super::progress::Progress;

/// The run: what the scenario `gaming-new` plays, under another name.
const PLAN: Plan = Plan {
    name: "demo",
    whole_log: true,
    ..NEW.0
};

/// The pictures left, by what they show.
const PICTURES: [(Scene, &str); 3] = [
    (Scene::Splash, "splash.png"),
    (Scene::Grub, "grub.png"),
    (Scene::Console, "console.png"),
];

/// The logs left: tenon's names for them in the lab, and theirs here.
const LOGS: [(&str, &str); 2] = [("demo.serial.log", "guest.log"), ("demo.tenon.log", "tenon.log")];

const REPORT: &str = "report.json";

/// `cargo lab demo`.
#[derive(Debug, Args)]
pub struct Demo {
    /// The folder for pictures, sound, logs and the report
    #[arg(long, value_name = "DIR", default_value = "out")]
    out: PathBuf,
}

/// All that `report.json` says.
#[derive(Debug, Default, Serialize)]
struct Report {
    right: bool,
    checks: Vec<Finding>,
    versions: BTreeMap<&'static str, String>,
    /// Wall time, seconds.
    seconds: BTreeMap<String, f64>,
    /// Pitch in Hz, by recording.
    tones: BTreeMap<&'static str, f64>,
}

impl Demo {
    /// Prepares the lab, plays, and leaves what was seen and heard.
    pub fn run(self) -> Outcome {
        let out = self.out.as_path();
        clear(out)?;
        let progress = Progress::new();
        let begin = Instant::now();
        prepare(&progress)?;
        let logs = target_dir().join("lab/demo");
        let mut report = Report::default();
        report.time("prepared", begin);
        let mut result = perform(&logs, &mut report, out, &progress);
        if let Err(Failure::Host(HostError::Dead {
            known: true,
            logs: dead,
            ..
        })) = &result
        {
            count_retry(dead);
            report.checks.clear();
            result = perform(&logs, &mut report, out, &progress);
        }
        let evidence = result.err().map(|failure| chain(&failure));
        let done = Finding::new(
            "the run got to its end",
            evidence.is_none(),
            evidence.unwrap_or_else(|| "it did".into()),
        );
        report.checks.push(done);
        report.checks.push(left(out));
        report.right = report.checks.iter().all(|check| check.right);
        report.time("all", begin);
        progress.done();
        let path = out.join(REPORT);
        fs::write(&path, serde_json::to_vec_pretty(&report)?).map_err(about(&path))?;
        tell(&report, out);
        Ok(if report.right {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }
}

/// Takes away what an earlier demo left: nothing of it may pass for this one's.
fn clear(out: &Path) -> Result<(), String> {
    fs::create_dir_all(out).map_err(about(out))?;
    for name in names().chain([REPORT]) {
        let path = out.join(name);
        if path.exists() {
            fs::remove_file(&path).map_err(about(&path))?;
        }
    }
    Ok(())
}

/// Everything but the report.
fn names() -> impl Iterator<Item = &'static str> {
    let pictures = PICTURES.iter().map(|(_, name)| *name);
    pictures.chain(RECORDINGS).chain(LOGS.iter().map(|(_, name)| *name))
}

/// Whether all of it is there and not empty.
fn left(out: &Path) -> Finding {
    let empty = |name: &&str| fs::metadata(out.join(name)).map_or(0, |file| file.len()) == 0;
    let missing: Vec<&str> = names().filter(empty).collect();
    let all: Vec<&str> = names().collect();
    match missing.as_slice() {
        [] => Finding::new("pictures, sound and logs left", true, all.join(", ")),
        _ => Finding::new(
            "pictures, sound and logs left",
            false,
            format!("not {}", missing.join(", ")),
        ),
    }
}

/// What the lab needs, from packages and from this source.
fn prepare(progress: &Progress) -> Result<(), Box<dyn Error>> {
    let store = Store::open()?;
    // The store has its own bars for this, when there is anything to fetch.
    progress.line("fetching the lab's packages, if they are not there yet");
    let root = store.set(PLAN.set)?;
    progress.step("building tenon");
    Product::build()?;
    progress.step("building the lab host and the guest");
    initramfs::base(&store, &root)?;
    monitor::files(PLAN.set)?;
    Ok(())
}

/// Boots the lab host, plays in it, and gathers what is left.
fn perform(logs: &Path, report: &mut Report, out: &Path, progress: &Progress) -> Result<(), Failure> {
    progress.step("booting the lab host");
    // An earlier demo's logs must not pass for this one's; that there are none is no error.
    let _ = fs::remove_dir_all(logs);
    let begin = Instant::now();
    let mut host = LabHost::boot(&Config::new(PLAN.set, logs.to_path_buf()))?;
    report.time("lab host booted", begin);
    versions(&mut host, &mut report.versions)?;
    let mut story = Story::default();
    let result = play(&mut host, &PLAN, logs, &mut story, &|step| progress.step(step));
    progress.step("ending the lab host");
    // Its end completes the sound files.
    let stopped = host.stop();
    keep(&story, logs, out);
    report.take(story);
    result?;
    Ok(stopped?)
}

/// Copies pictures, sound and logs to where they are wanted. What is missing is seen by [`left`].
fn keep(story: &Story, logs: &Path, out: &Path) {
    for (scene, name) in PICTURES {
        if let Some(sight) = story.sights.iter().find(|sight| sight.scene == scene) {
            let _ = fs::copy(&sight.path, out.join(name));
        }
    }
    for (from, to) in RECORDINGS.map(|name| (name, name)).into_iter().chain(LOGS) {
        let _ = fs::copy(logs.join(from), out.join(to));
    }
}

/// What runs in the lab host; the guest's own are told by the guest.
fn versions(host: &mut LabHost, versions: &mut BTreeMap<&'static str, String>) -> Result<(), HostError> {
    let mut ask = |script: &str| Ok::<_, HostError>(host.check(script, SHORT)?.trim().to_owned());
    versions.insert("tenon", ask("tenon --version")?);
    versions.insert("lab host", ask("uname -sr")?);
    let qemu = host.qmp().execute("query-version", &serde_json::json!({}))?;
    let number = |name: &str| qemu["qemu"][name].as_u64().unwrap_or(0);
    let qemu = format!("{}.{}.{}", number("major"), number("minor"), number("micro"));
    versions.insert("lab host's QEMU", qemu);
    Ok(())
}

impl Report {
    /// Notes how long something took, from `begin` to now.
    fn time(&mut self, what: &str, begin: Instant) {
        self.seconds
            .insert(what.to_owned(), rounded(begin.elapsed().as_secs_f64()));
    }

    fn take(&mut self, story: Story) {
        for sight in &story.sights {
            let what = format!("tenon's start to {}", sight.scene);
            self.seconds.insert(what, rounded(sight.after.as_secs_f64()));
        }
        self.seconds
            .insert("tenon's run".to_owned(), rounded(story.took.as_secs_f64()));
        let tones = story.tones.iter();
        self.tones = tones.map(|(name, tone)| (*name, rounded(tone.hz))).collect();
        for (what, key) in [("firmware", "dmi bios_version"), ("guest", "kernel")] {
            if let Some(version) = story.marks.get(key) {
                self.versions.insert(what, version.to_owned());
            }
        }
        self.checks.extend(story.findings);
    }
}

fn rounded(number: f64) -> f64 {
    (number * 10.0).round() / 10.0
}

/// The report for people.
fn tell(report: &Report, out: &Path) {
    for Finding { what, right, evidence } in &report.checks {
        println!(
            "{}  {what}\n      {}",
            if *right { "right" } else { "WRONG" },
            evidence.replace('\n', "\n      ")
        );
    }
    let wrong = report.checks.iter().filter(|check| !check.right).count();
    println!(
        "{} of {} right; pictures, sound and {REPORT} in {}",
        report.checks.len() - wrong,
        report.checks.len(),
        out.display()
    );
}

/// An error with its causes.
fn chain(failure: &Failure) -> String {
    let mut text = failure.to_string();
    let mut cause = failure.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

fn about(path: &Path) -> impl FnOnce(std::io::Error) -> String {
    let path = path.display().to_string();
    move |error| format!("{path}: {error}; choose another folder with --out")
}
