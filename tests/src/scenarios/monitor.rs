//! tenon at work in a lab host, for scenarios: the guest's files, a run of the monitor, and a way to wait for what the
//! guest shows and says.
//!
//! ```text
//! guest_does(host, Set::New, "drivers,console,pause=2,poweroff", "")?; // the Linux guest's disk, and what it is to do
//! let mut run = Run::new("reboot")                         // names the logs: reboot.serial.log, reboot.tenon.log, ...
//!     .devices()                                           // the GPU, its HDMI audio and the HDA controller
//!     .disk()                                              // that disk
//!     .start(host, logs)?;
//! run.see(host, &[Scene::Splash, Scene::Grub, Scene::Console], LIMIT)?; // PNGs of them are in `logs`
//! run.pace(host, false)?;                                  // nothing to look at any more: waits take no time now
//! run.wait_mark(host, "poweroff", LIMIT)?;
//! let end = run.finish(host, LIMIT)?;                      // status, serial log, marks
//! ```
//!
//! A [`Running`] that is dropped leaves the monitor running (the runner's `tidy` ends it) and its logs in `logs`.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::guest::{GrubConfig, GuestDisk, Initramfs, Kernel, Marks, Roots};
use crate::lab::command::tail;
use crate::lab::product::target_dir;
use crate::lab::{Event, Job, LabHost, Set, Store, bdf};
use crate::scenario::Failure;
use crate::see::{Image, Scene};

/// Wall time for a whole run of the guest, firmware and all: some 3 minutes on a quiet machine, twice that beside others.
pub const RUN_LIMIT: Duration = Duration::from_secs(900);
/// Wall time for a short command in the lab host.
pub const SHORT: Duration = Duration::from_secs(120);
/// What each guest in the lab host needs: without KVM's paravirtual EOI each interrupt's handler leaves to the hypervisor at
/// once, which keeps the window short for the fault of QEMU's that `crate::lab::watch` tells of.
pub const NO_PV_EOI: &str = "--cpu-features -kvm-pv-eoi";
/// Between two looks at the screen or the logs.
const LOOK: Duration = Duration::from_millis(60);
/// How long a scene that has come up may go on being drawn.
const SETTLE: Duration = Duration::from_millis(1000);

/// The three functions of the usual layout, as `bind_vfio` takes them.
pub const FUNCTIONS: [&str; 3] = [bdf::GPU, bdf::HDMI, bdf::HDA];

/// The guest's files on this machine.
#[derive(Debug, Clone)]
pub struct Files {
    /// The disk: GPT, ESP, GRUB.
    pub disk: PathBuf,
    /// Its kernel, a bzImage.
    pub kernel: PathBuf,
    /// Its initramfs.
    pub initramfs: PathBuf,
    /// The kernel's release.
    pub release: String,
}

/// The guest of a set, built once in this process.
///
/// # Errors
/// When a package lacks something, or it cannot be written.
pub fn files(set: Set) -> Result<Files, Failure> {
    static BUILT: Mutex<Option<HashMap<Set, Files>>> = Mutex::new(None);
    // Held while building: the other lab host's scenarios want the same files.
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    let built = built.get_or_insert_default();
    if let Some(files) = built.get(&set) {
        return Ok(files.clone());
    }
    let files = build(set).map_err(|error| Failure::Wrong(format!("the guest cannot be built: {error}")))?;
    built.insert(set, files.clone());
    Ok(files)
}

fn build(set: Set) -> Result<Files, Box<dyn std::error::Error>> {
    let roots = Roots::from(&Store::open()?.set(set)?);
    let kernel = Kernel::find(&roots)?;
    let initramfs = Initramfs::new(&roots, &kernel).build()?;
    // Of this process alone: two of them may run side by side.
    let dir = target_dir().join(format!("lab/guest-{}", set.name()));
    fs::create_dir_all(&dir)?;
    let part = |name: &str| dir.join(format!(".{name}-{}", std::process::id()));
    let (disk, initrd) = (part("disk.img"), part("initrd.img"));
    GuestDisk::new(&roots, &kernel, &initramfs).write(&disk)?;
    fs::write(&initrd, &initramfs)?;
    let files = Files {
        disk: dir.join("disk.img"),
        kernel: kernel.image().to_path_buf(),
        initramfs: dir.join("initrd.img"),
        release: kernel.release().to_owned(),
    };
    fs::rename(disk, &files.disk)?;
    fs::rename(initrd, &files.initramfs)?;
    Ok(files)
}

/// Where [`guest_disk`] puts the disk in the lab host.
pub const GUEST_DISK: &str = "/root/guest.img";

/// Has the guest's disk at [`GUEST_DISK`] in the lab host, with this GRUB configuration. The image itself is copied only
/// once for each lab host.
///
/// # Errors
/// When it cannot be built or copied.
pub fn guest_disk(host: &mut LabHost, set: Set, config: &GrubConfig) -> Result<(), Failure> {
    let files = files(set)?;
    if !host.exec(&format!("test -e {GUEST_DISK}"), SHORT)?.success() {
        copy_in(host, &files.disk, GUEST_DISK)?;
    }
    let at = GuestDisk::config_offset(&files.disk).map_err(|error| wrong(&error))?;
    host.put("/root/grub.cfg", &config.render().map_err(|error| wrong(&error))?)?;
    host.check(
        &format!(
            "dd if=/root/grub.cfg of={GUEST_DISK} bs=512 seek={} conv=notrunc",
            at / 512
        ),
        SHORT,
    )?;
    Ok(())
}

/// Copies a large file into the lab host, through the shared folder.
///
/// # Errors
/// When it cannot be read or written.
pub fn copy_in(host: &mut LabHost, from: &Path, to: &str) -> Result<(), Failure> {
    let name = format!(".put-{}", to.replace('/', "-"));
    let there = host.out().join(&name);
    fs::copy(from, &there).map_err(|error| wrong(&format!("cannot copy {}: {error}", from.display())))?;
    let result = host.check(&format!("cp /out/{name} {to}"), SHORT);
    let _ = fs::remove_file(&there);
    Ok(result.map(drop)?)
}

fn wrong(error: &dyn ToString) -> Failure {
    Failure::Wrong(error.to_string())
}

/// A run of `tenon run` to be started.
#[derive(Debug, Clone)]
pub struct Run {
    name: String,
    memory: String,
    vars: String,
    functions: Vec<&'static str>,
    args: Vec<String>,
    log: &'static str,
    paced: bool,
}

impl Run {
    /// With 1 GiB of memory, no devices, no disk, and UEFI variables of its own (new ones).
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            memory: "1G".to_owned(),
            vars: format!("/tmp/{name}.vars.fd"),
            functions: Vec::new(),
            args: Vec::new(),
            log: "debug",
            paced: true,
        }
    }

    /// With all three functions assigned, bound to vfio-pci first.
    #[must_use]
    pub fn devices(mut self) -> Self {
        self.functions = FUNCTIONS.to_vec();
        self
    }

    /// With a variable store at this path in the lab host, which is used as it is if it exists.
    #[must_use]
    pub fn vars(mut self, path: &str) -> Self {
        path.clone_into(&mut self.vars);
        self
    }

    /// With so much memory.
    #[must_use]
    pub fn memory(mut self, size: &str) -> Self {
        size.clone_into(&mut self.memory);
        self
    }

    /// With a further argument for `tenon run`, quoted for the shell.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<str>) -> Self {
        self.args.push(format!("'{}'", arg.as_ref().replace('\'', r"'\''")));
        self
    }

    /// With the guest's disk, as [`guest_disk`] leaves it.
    #[must_use]
    pub fn disk(self) -> Self {
        self.arg("--disk").arg(format!("path={GUEST_DISK}"))
    }

    /// Without firmware and so without variables: with this kernel and initial RAM disk in the lab host.
    #[must_use]
    pub fn kernel(mut self, kernel: &str, initrd: &str, cmdline: &str) -> Self {
        self.vars.clear();
        self.arg("--kernel")
            .arg(kernel)
            .arg("--initrd")
            .arg(initrd)
            .arg("--cmdline")
            .arg(cmdline)
    }

    /// Whether the lab host is paced from the start, so that screens last (`pace` in lab.sh); it is by default.
    #[must_use]
    pub fn paced(mut self, paced: bool) -> Self {
        self.paced = paced;
        self
    }

    /// Its command line in the lab host.
    #[must_use]
    pub fn command(&self) -> String {
        let Self { name, memory, .. } = self;
        let vars = if self.vars.is_empty() {
            String::new()
        } else {
            format!(" --vars {}", self.vars)
        };
        let devices: String = self.functions.iter().map(|bdf| format!(" --device {bdf}")).collect();
        let args = self.args.join(" ");
        format!("tenon run {NO_PV_EOI} --memory {memory}{vars} --serial file=/out/{name}.serial.log{devices} {args}")
    }

    /// Starts it. `logs` is where its logs and pictures are to be in the end.
    ///
    /// # Errors
    /// When the lab host is dead or a function cannot be bound.
    pub fn start(&self, host: &mut LabHost, logs: &Path) -> Result<Running, Failure> {
        let name = &self.name;
        for end in ["serial.log", "tenon.log"] {
            let _ = fs::remove_file(host.out().join(format!("{name}.{end}")));
        }
        let fresh = if self.vars == format!("/tmp/{name}.vars.fd") {
            format!("rm -f {}", self.vars)
        } else {
            "true".to_owned()
        };
        let mut before = format!("{fresh}; pace off");
        if !self.functions.is_empty() {
            before += &format!("; bind_vfio {} || exit", self.functions.join(" "));
        }
        if self.paced {
            before += "; pace on";
        }
        host.check(&before, SHORT)?;
        let log = self.log;
        let job = host.spawn(&format!(
            "NO_COLOR=1 TENON_LOG={log} exec {} >/out/{name}.tenon.log 2>&1",
            self.command()
        ))?;
        Ok(Running {
            name: name.clone(),
            job,
            status: None,
            begin: Instant::now(),
            out: host.out().to_path_buf(),
            logs: logs.to_path_buf(),
        })
    }
}

/// What the assigned adapter shows now.
fn look(host: &mut LabHost) -> Result<Image, Failure> {
    Image::parse(&host.screendump("gpu")?).map_err(|error| wrong(&error))
}

/// The picture of a scene that has just come up, once it had the time to be drawn to its end.
fn settled(host: &mut LabHost, scene: Scene, first: Image) -> Result<Image, Failure> {
    let end = Instant::now() + SETTLE;
    let mut best = first;
    while Instant::now() < end {
        thread::sleep(LOOK);
        let image = look(host)?;
        if !scene.is_in(&image) {
            break;
        }
        best = image;
    }
    Ok(best)
}

/// A scene as it was seen.
#[derive(Debug, Clone)]
pub struct Sight {
    /// What was seen.
    pub scene: Scene,
    /// The picture.
    pub image: Image,
    /// Where the picture is kept, as PNG.
    pub path: PathBuf,
    /// Wall time since the monitor was started.
    pub after: Duration,
}

/// How a run ended.
#[derive(Debug, Clone)]
pub struct Ended {
    /// The exit status; 128 + n after a signal.
    pub status: i32,
    /// What the guest said.
    pub marks: Marks,
    /// All of the serial port's output.
    pub serial: Vec<u8>,
    /// tenon's own log.
    pub log: String,
    /// Wall time from start to end.
    pub took: Duration,
}

/// `tenon run`, running.
#[derive(Debug)]
pub struct Running {
    name: String,
    job: Job,
    status: Option<i32>,
    begin: Instant,
    out: PathBuf,
    logs: PathBuf,
}

impl Running {
    /// Looks at the assigned adapter until each of `scenes` was seen, in this order (one picture may show several). Each
    /// one's picture is left in the logs as `NAME-SCENE.png`: the last that showed it within a second.
    ///
    /// # Errors
    /// When the monitor ends or `limit` passes before: says what was missing and what was on the screen last.
    pub fn see(&mut self, host: &mut LabHost, scenes: &[Scene], limit: Duration) -> Result<Vec<Sight>, Failure> {
        let end = Instant::now() + limit;
        let mut seen: Vec<Sight> = Vec::new();
        loop {
            let image = look(host)?;
            while let Some(scene) = scenes.get(seen.len()).filter(|scene| scene.is_in(&image)) {
                let after = self.begin.elapsed();
                let image = settled(host, *scene, image.clone())?;
                let path = self.keep(*scene, &image)?;
                seen.push(Sight {
                    scene: *scene,
                    image,
                    path,
                    after,
                });
            }
            let Some(missing) = scenes.get(seen.len()) else {
                return Ok(seen);
            };
            if Instant::now() > end || self.ended(host, LOOK)?.is_some() {
                let last = self.logs.join(format!("{}-last.png", self.name));
                image.write_png(&last).map_err(|error| wrong(&error))?;
                let what = format!(
                    "`{missing}` was not seen on the assigned adapter; the last picture is {}",
                    last.display()
                );
                return Err(self.failure(&what));
            }
        }
    }

    /// Waits for a mark of that key.
    ///
    /// # Errors
    /// When the monitor ends or `limit` passes before.
    pub fn wait_mark(&mut self, host: &mut LabHost, key: &str, limit: Duration) -> Result<Marks, Failure> {
        self.wait_serial(host, &format!("the guest's mark `{key}`"), limit, |log| {
            Some(Marks::parse(log)).filter(|marks| marks.get(key).is_some())
        })
    }

    /// Waits for a text on the serial port.
    ///
    /// # Errors
    /// When the monitor ends or `limit` passes before.
    pub fn wait_text(&mut self, host: &mut LabHost, text: &str, limit: Duration) -> Result<(), Failure> {
        self.wait_serial(host, &format!("`{text}` on the serial port"), limit, |log| {
            log.windows(text.len())
                .any(|part| part == text.as_bytes())
                .then_some(())
        })
    }

    fn wait_serial<T>(
        &mut self,
        host: &mut LabHost,
        what: &str,
        limit: Duration,
        found: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<T, Failure> {
        let end = Instant::now() + limit;
        loop {
            // Asked before the log is read: what it wrote last counts.
            let over = self.ended(host, LOOK * 3)?.is_some() || Instant::now() > end;
            if let Some(found) = found(&self.serial()) {
                return Ok(found);
            }
            if over {
                return Err(self.failure(&format!("{what} did not come")));
            }
        }
    }

    /// Slows the lab host's idle time down to what can be watched, or no longer.
    ///
    /// # Errors
    /// When the lab host is dead.
    pub fn pace(&mut self, host: &mut LabHost, on: bool) -> Result<(), Failure> {
        let word = if on { "on" } else { "off" };
        Ok(host.check(&format!("pace {word}"), SHORT).map(drop)?)
    }

    /// Sends the monitor a signal, by its name without `SIG`.
    ///
    /// # Errors
    /// When the lab host is dead.
    pub fn signal(&mut self, host: &mut LabHost, signal: &str) -> Result<(), Failure> {
        Ok(self.job.input().kill(signal).map_err(|error| host.explain(error))?)
    }

    /// The exit status if it has ended, after at most so long a wait.
    ///
    /// # Errors
    /// When the lab host is dead.
    pub fn ended(&mut self, host: &mut LabHost, wait: Duration) -> Result<Option<i32>, Failure> {
        if self.status.is_none()
            && let Some(Event::Exit(status)) = self.job.next(wait).map_err(|error| host.explain(error))?
        {
            self.status = Some(status);
        }
        Ok(self.status)
    }

    /// Waits for its end; its logs are in `logs` afterwards. A status that is not the wanted one is for the caller to see.
    ///
    /// # Errors
    /// When `limit` passes before.
    pub fn finish(mut self, host: &mut LabHost, limit: Duration) -> Result<Ended, Failure> {
        let end = Instant::now() + limit;
        while self.ended(host, LOOK * 5)?.is_none() {
            if Instant::now() > end {
                return Err(self.failure("tenon did not end"));
            }
        }
        let serial = self.serial();
        Ok(Ended {
            status: self.status.unwrap_or(-1),
            marks: Marks::parse(&serial),
            serial,
            log: self.log(),
            took: self.begin.elapsed(),
        })
    }

    /// What came out of the serial port so far.
    #[must_use]
    pub fn serial(&self) -> Vec<u8> {
        // Not there before the monitor has opened it.
        fs::read(self.file("serial.log")).unwrap_or_default()
    }

    /// What the guest has said so far.
    #[must_use]
    pub fn marks(&self) -> Marks {
        Marks::parse(&self.serial())
    }

    /// tenon's own log so far.
    #[must_use]
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.file("tenon.log")).unwrap_or_default()).into_owned()
    }

    fn file(&self, end: &str) -> PathBuf {
        self.out.join(format!("{}.{end}", self.name))
    }

    fn keep(&self, scene: Scene, image: &Image) -> Result<PathBuf, Failure> {
        let name = scene.to_string().replace(' ', "-");
        let path = self.logs.join(format!("{}-{name}.png", self.name));
        image.write_png(&path).map_err(|error| wrong(&error))?;
        Ok(path)
    }

    /// A failure with all there is to know of it in one place.
    fn failure(&self, what: &str) -> Failure {
        let state = match self.status {
            Some(status) => format!("tenon ended with {status}"),
            None => "tenon is running".to_owned(),
        };
        let serial = String::from_utf8_lossy(&self.serial()).replace(['\u{1b}', '\r'], "");
        Failure::Wrong(format!(
            "{what} ({}, {state} after {:.0} s)\nserial port:\n{}\ntenon:\n{}",
            self.name,
            self.begin.elapsed().as_secs_f32(),
            tail(&serial, 12),
            tail(&self.log(), 8),
        ))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        for end in ["serial.log", "tenon.log"] {
            let name = format!("{}.{end}", self.name);
            // None of them is there when the start itself failed.
            let _ = fs::copy(self.out.join(&name), self.logs.join(&name));
        }
    }
}

/// Shorthand: the guest does these words (`tenon.do=`, see init.sh), with further arguments for its kernel.
///
/// # Errors
/// As [`guest_disk`].
pub fn guest_does(host: &mut LabHost, set: Set, words: &str, kernel_args: &str) -> Result<(), Failure> {
    guest_disk(
        host,
        set,
        &GrubConfig::new(format!("{kernel_args} tenon.do={words}").trim_start()),
    )
}
