//! The lab host, booted and at hand: commands run in it, pictures taken of it.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::channel::{self, Channel, ChannelError, Job, Output};
use super::command::{self, CommandError};
use super::initramfs::{self, Extra, InitramfsError};
use super::layout::{self, Hardware, Places};
use super::product::Product;
use super::qmp::{Qmp, QmpError};
use super::scratch::Scratch;
use super::store::{Set, Store, StoreError};
use super::watch;

/// How long L1 may take to boot. It takes 10 to 15 s on a quiet machine.
const BOOT_LIMIT: Duration = Duration::from_secs(240);

/// What QEMU says when it dies of its own known fault; for another that it does not die of there is [`watch`].
const KNOWN_FAULT: &str = "bql_locked";

static BOOTS_RETRIED: AtomicU32 = AtomicU32::new(0);

/// What can go wrong with a lab host.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The package store.
    #[error("the lab's package store")]
    Store(#[from] StoreError),
    /// The initramfs.
    #[error("the lab host's initramfs")]
    Initramfs(#[from] InitramfsError),
    /// Building what goes into it.
    #[error("building what goes into the lab host")]
    Product(#[from] CommandError),
    /// A file or folder of the run.
    #[error("{action} {path}")]
    Io {
        /// What was attempted.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// QEMU ended. `known` when of the fault that is the lab's own.
    #[error("the lab host died ({status}); log in {logs}\n{said}\n{console}")]
    Dead {
        /// How.
        status: ExitStatus,
        /// Whether it was the lab's own known fault, after which a retry is fair.
        known: bool,
        /// Where the logs are.
        logs: PathBuf,
        /// QEMU's last words.
        said: String,
        /// The console's last lines.
        console: String,
    },
    /// The boot took too long.
    #[error("the lab host did not boot within {limit:?}; log in {logs}\n{console}")]
    Boot {
        /// How long it had.
        limit: Duration,
        /// Where the logs are.
        logs: PathBuf,
        /// The console's last lines.
        console: String,
    },
    /// The command channel.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// QMP.
    #[error(transparent)]
    Qmp(#[from] QmpError),
    /// A command in L1 that had to succeed did not.
    #[error("`{script}` in the lab host: status {status}\n{said}")]
    Script {
        /// The script.
        script: String,
        /// Its exit status.
        status: i32,
        /// What it said last.
        said: String,
    },
}

fn failed<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> HostError + 'a {
    move |source| HostError::Io {
        action,
        path: path.to_path_buf(),
        source,
    }
}

/// What to boot.
#[derive(Debug, Clone)]
pub struct Config {
    /// Whose kernel, firmware and busybox. QEMU is always the newer set's.
    pub set: Set,
    /// The machine.
    pub hardware: Hardware,
    /// Files to have in it.
    pub extra: Extra,
    /// Where the console log, QEMU's messages and the sound files go.
    pub logs: PathBuf,
    /// The folder that L1 has as `/out`; `logs/out` if not given.
    pub out: Option<PathBuf>,
}

impl Config {
    /// The usual machine, with logs in the given folder.
    #[must_use]
    pub fn new(set: Set, logs: PathBuf) -> Self {
        Self {
            set,
            hardware: Hardware::default(),
            extra: Extra::default(),
            logs,
            out: None,
        }
    }
}

/// A running lab host. Dropping it ends it; so does the end of the thread that booted it, by the kernel's doing.
#[derive(Debug)]
pub struct LabHost {
    child: Child,
    channel: Channel,
    qmp: Qmp,
    logs: PathBuf,
    out: PathBuf,
    scratch: Scratch,
}

/// How many boots were repeated because QEMU died of its known fault.
#[must_use]
pub fn boots_retried() -> u32 {
    BOOTS_RETRIED.load(Ordering::Relaxed)
}

/// Counts a repetition that was the lab's fault.
pub fn count_retry(logs: &Path) {
    BOOTS_RETRIED.fetch_add(1, Ordering::Relaxed);
    eprintln!("the lab host died of its known fault ({}); once more", logs.display());
}

impl LabHost {
    /// Boots a lab host and waits until commands can be run in it. Everything it needs is prepared first. A death of
    /// the lab's own known fault is retried once, and counted.
    ///
    /// # Errors
    /// When something is missing, or it dies or hangs while booting.
    pub fn boot(config: &Config) -> Result<Self, HostError> {
        match Self::boot_once(config) {
            Err(HostError::Dead { known: true, logs, .. }) => {
                count_retry(&logs);
                Self::boot_once(config)
            }
            other => other,
        }
    }

    fn boot_once(config: &Config) -> Result<Self, HostError> {
        let store = Store::open()?;
        let (root, kernel) = (store.set(Set::New)?, store.set(config.set)?);
        let out = config.out.clone().unwrap_or_else(|| config.logs.join("out"));
        fs::create_dir_all(&config.logs).map_err(failed("cannot make", &config.logs))?;
        fs::create_dir_all(&out).map_err(failed("cannot make", &out))?;
        let logs = config
            .logs
            .canonicalize()
            .map_err(failed("cannot resolve", &config.logs))?;
        let out = out.canonicalize().map_err(failed("cannot resolve", &out))?;
        let scratch = Scratch::new().map_err(|(path, source)| HostError::Io {
            action: "cannot make",
            path,
            source,
        })?;
        let initrd = scratch.path().join("initrd");
        let base = initramfs::base(&store, &kernel)?;
        fs::copy(&base, &initrd).map_err(failed("cannot copy", &base))?;
        let extra = initramfs::extra(&kernel, &Product::build()?, &config.extra)?;
        append(&initrd, &extra)?;
        let places = Places {
            initrd: &initrd,
            sockets: scratch.path(),
            logs: &logs,
            out: &out,
            store: store.dir(),
        };
        let mut command = layout::qemu(&root, &kernel, &config.hardware, places)?;
        let log = logs.join("qemu.log");
        let said = File::create(&log).map_err(failed("cannot make", &log))?;
        let twin = said.try_clone().map_err(failed("cannot use", &log))?;
        let start = |source| CommandError::Start {
            program: "setpriv".to_owned(),
            source,
        };
        let child = command
            .stdin(Stdio::null())
            .stdout(twin)
            .stderr(said)
            .spawn()
            .map_err(start)?;
        let mut starting = Starting {
            child: Some(child),
            logs,
        };
        let (channel, qmp) = starting.wait(scratch.path())?;
        // Read by now, and a good part of the scratch folder, which is often memory.
        let _ = fs::remove_file(&initrd);
        let logs = starting.logs.clone();
        let child = starting.child.take().ok_or(ChannelError::Closed)?;
        Ok(Self {
            child,
            channel,
            qmp,
            logs,
            out,
            scratch,
        })
    }

    /// Runs a shell script in L1 as root to its end, with the functions of `/etc/lab.sh` at hand.
    ///
    /// # Errors
    /// When the host dies or `limit` of wall time passes; a script that fails is no error.
    pub fn exec(&mut self, script: &str, limit: Duration) -> Result<Output, HostError> {
        let mut job = self.spawn(script)?;
        let result = job.input().close().and_then(|()| job.wait(limit));
        result.map_err(|error| self.explain(error))
    }

    /// As [`LabHost::exec`], for a script that must succeed; returns its standard output.
    ///
    /// # Errors
    /// Also when the script's status is not 0.
    pub fn check(&mut self, script: &str, limit: Duration) -> Result<String, HostError> {
        let output = self.exec(script, limit)?;
        if output.success() {
            return Ok(output.stdout);
        }
        let said = command::tail(&format!("{}{}", output.stdout, output.stderr), 30);
        Err(HostError::Script {
            script: script.to_owned(),
            status: output.status,
            said,
        })
    }

    /// Starts a shell script in L1 and leaves it running, its standard input open.
    ///
    /// # Errors
    /// When the host is dead.
    pub fn spawn(&mut self, script: &str) -> Result<Job, HostError> {
        self.channel
            .start(&format!(". /etc/lab.sh\n{script}"))
            .map_err(|error| self.explain(error))
    }

    /// Puts a file into L1.
    ///
    /// # Errors
    /// When the host is dead or the path cannot be written.
    pub fn put(&mut self, path: &str, bytes: &[u8]) -> Result<(), HostError> {
        let script = format!("mkdir -p \"$(dirname '{path}')\" && cat > '{path}'");
        let mut job = self.spawn(&script)?;
        let result = job
            .input()
            .stdin(bytes)
            .and_then(|()| job.input().close())
            .and_then(|()| job.wait(Duration::from_secs(300)));
        let output = result.map_err(|error| self.explain(error))?;
        if output.success() {
            Ok(())
        } else {
            Err(HostError::Script {
                script,
                status: output.status,
                said: output.stderr,
            })
        }
    }

    /// Gets a file out of L1.
    ///
    /// # Errors
    /// When the host is dead or the file cannot be read.
    pub fn get(&mut self, path: &str) -> Result<Vec<u8>, HostError> {
        // Through the shared folder: binary, and quicker than the command port.
        let name = format!(".get-{}", path.replace('/', "-"));
        self.check(&format!("cp '{path}' '/out/{name}'"), Duration::from_secs(300))?;
        let path = self.out.join(&name);
        let bytes = fs::read(&path).map_err(failed("cannot read", &path))?;
        fs::remove_file(&path).map_err(failed("cannot remove", &path))?;
        Ok(bytes)
    }

    /// QMP itself, for what has no function here; its errors do not say that the host died.
    pub fn qmp(&mut self) -> &mut Qmp {
        &mut self.qmp
    }

    /// The picture on a display device, as a binary PPM.
    ///
    /// # Errors
    /// When the host is dead or there is no such device.
    pub fn screendump(&mut self, device: &str) -> Result<Vec<u8>, HostError> {
        let result = self.qmp.screendump(device);
        self.explain_qmp(result)
    }

    /// Presses keys together on the host's keyboard (a `usb-kbd`, if there is one), by QEMU's names.
    ///
    /// # Errors
    /// When the host is dead or a name is unknown.
    pub fn send_key(&mut self, keys: &[&str]) -> Result<(), HostError> {
        let result = self.qmp.send_key(keys);
        self.explain_qmp(result)
    }

    /// Unplugs a device of the host by its id.
    ///
    /// # Errors
    /// When the host is dead or the device cannot be unplugged.
    pub fn device_del(&mut self, id: &str) -> Result<(), HostError> {
        let result = self.qmp.device_del(id);
        self.explain_qmp(result)
    }

    /// Where the console log and the sound files are.
    #[must_use]
    pub fn logs(&self) -> &Path {
        &self.logs
    }

    /// What L1 has as `/out`.
    #[must_use]
    pub fn out(&self) -> &Path {
        &self.out
    }

    /// The folder of the run's sockets.
    #[must_use]
    pub fn scratch(&self) -> &Path {
        self.scratch.path()
    }

    /// Ends the host in good order, which completes the sound files.
    ///
    /// # Errors
    /// When QEMU does not answer or does not end.
    pub fn stop(mut self) -> Result<(), HostError> {
        self.qmp.quit()?;
        let end = Instant::now() + Duration::from_secs(30);
        while Instant::now() < end {
            match self.child.try_wait() {
                Ok(None) => thread::sleep(Duration::from_millis(20)),
                _ => return Ok(()),
            }
        }
        Err(ChannelError::Timeout {
            what: "quit".to_owned(),
            limit: Duration::from_secs(30),
        }
        .into())
    }

    /// Turns a broken connection into what broke it. For errors of a [`Job`] that was spawned.
    pub fn explain(&mut self, error: ChannelError) -> HostError {
        match error {
            ChannelError::Closed => dead(&mut self.child, &self.logs).unwrap_or_else(|| error.into()),
            other => other.into(),
        }
    }

    fn explain_qmp<T>(&mut self, result: Result<T, QmpError>) -> Result<T, HostError> {
        result.map_err(|error| match error {
            QmpError::Io { .. } => dead(&mut self.child, &self.logs).unwrap_or_else(|| error.into()),
            other => other.into(),
        })
    }
}

impl Drop for LabHost {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// QEMU between its start and the first word of the agent; killed if it does not get there.
struct Starting {
    child: Option<Child>,
    logs: PathBuf,
}

impl Starting {
    fn wait(&mut self, sockets: &Path) -> Result<(Channel, Qmp), HostError> {
        let qmp = self.connect(&sockets.join("qmp"))?;
        let channel = Channel::new(self.connect(&sockets.join("lab"))?)?;
        let qmp = Qmp::new(qmp, sockets)?;
        watch::watch(
            self.connect(&sockets.join("watch"))?,
            sockets,
            self.logs.join("qemu.log"),
        );
        let end = Instant::now() + BOOT_LIMIT;
        loop {
            match channel.hello(Duration::from_millis(500)) {
                Ok(()) => return Ok((channel, qmp)),
                Err(ChannelError::Timeout { .. }) if Instant::now() < end => {}
                Err(ChannelError::Timeout { .. }) => {
                    let console = console_tail(&self.logs);
                    return Err(HostError::Boot {
                        limit: BOOT_LIMIT,
                        logs: self.logs.clone(),
                        console,
                    });
                }
                Err(error) => return Err(self.dead().unwrap_or_else(|| error.into())),
            }
        }
    }

    fn connect(&mut self, path: &Path) -> Result<UnixStream, HostError> {
        let child = &mut self.child;
        let alive = || child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)));
        let result = channel::connect(path, Duration::from_secs(60), alive);
        result.map_err(|error| self.dead().unwrap_or_else(|| error.into()))
    }

    fn dead(&mut self) -> Option<HostError> {
        self.child.as_mut().and_then(|child| dead(child, &self.logs))
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Says how QEMU died, once it has; a process whose sockets have just closed is given a moment to be gone.
fn dead(child: &mut Child, logs: &Path) -> Option<HostError> {
    for _ in 0..50 {
        if let Ok(Some(status)) = child.try_wait() {
            let said = text(&logs.join("qemu.log"));
            let known = [KNOWN_FAULT, watch::STOPPED].iter().any(|words| said.contains(words));
            let said = command::tail(&said, 10);
            return Some(HostError::Dead {
                status,
                known,
                logs: logs.to_path_buf(),
                said,
                console: console_tail(logs),
            });
        }
        thread::sleep(Duration::from_millis(100));
    }
    None
}

fn console_tail(logs: &Path) -> String {
    command::tail(&text(&logs.join("console.log")), 25)
}

fn text(path: &Path) -> String {
    let mut bytes = Vec::new();
    // A log that is not there has nothing to say.
    let _ = File::open(path).and_then(|mut file| file.read_to_end(&mut bytes));
    String::from_utf8_lossy(&bytes).into_owned()
}

fn append(path: &Path, bytes: &[u8]) -> Result<(), HostError> {
    use std::io::Write;
    let mut file = File::options()
        .append(true)
        .open(path)
        .map_err(failed("cannot open", path))?;
    file.write_all(bytes).map_err(failed("cannot write", path))
}
