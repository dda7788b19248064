//! Taking and giving back on a host of files that behave as the kernel's: with each step failing, and with a kill at each.

use std::cell::Cell;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::*;
use crate::container::OpenError;
use crate::host::sysfs::tests::Host;
use crate::host::{Bdf, Sysfs};

const LIMIT: Duration = Duration::from_millis(100);
/// Function, its own driver, the driver it is on, its `driver_override`.
const FUNCTIONS: [(&str, &str, Option<&str>, &str); 4] = [
    ("0000:01:00.0", "nouveau", Some("nouveau"), "(null)"),
    ("0000:01:00.1", "snd_hda_intel", Some("snd_hda_intel"), ""),
    ("0000:01:00.2", "xhci_hcd", None, "(null)"),
    ("0000:01:00.3", "i2c_ucsi", Some("pci-stub"), "pci-stub"),
];

/// Where something goes wrong.
#[derive(Debug, Clone, Copy)]
enum Fault {
    None,
    /// The process ends before the write of this number, or right after it.
    KilledBefore(u32),
    KilledAfter(u32),
    /// The write of this number is refused.
    Refused(u32),
    /// Unbinding this driver never comes back.
    Hangs(&'static str),
    /// The group does not open.
    Group,
}

#[derive(Debug)]
struct Kernel {
    root: PathBuf,
    fault: Fault,
    writes: Cell<u32>,
    loaded: Cell<u32>,
}

impl Kernel {
    fn driver_link(&self, bdf: &str) -> PathBuf {
        self.root.join("sys/bus/pci/devices").join(bdf).join("driver")
    }

    fn driver(&self, bdf: &str) -> Option<String> {
        let target = fs::read_link(self.driver_link(bdf)).ok()?;
        Some(target.file_name()?.to_str()?.to_owned())
    }

    fn apply(&self, path: &Path, text: &str) -> io::Result<()> {
        let errno = |errno| Err(io::Error::from_raw_os_error(errno));
        let parts: Vec<&str> = path.iter().skip(1).map(|part| part.to_str().unwrap()).collect();
        match parts[..] {
            ["sys", "bus", "pci", "devices", _, "driver_override"] => {
                let file = self.root.join(path.strip_prefix("/").unwrap());
                fs::write(file, if text == "\n" { "(null)\n" } else { text })
            }
            ["sys", "bus", "pci", "drivers", driver, "unbind"] => match self.driver(text) {
                Some(now) if now == driver => fs::remove_file(self.driver_link(text)),
                _ => errno(libc::ENODEV),
            },
            ["sys", "bus", "pci", "drivers", driver, "bind"] => {
                let wish = fs::read_to_string(self.driver_link(text).with_file_name("driver_override"))?;
                let own = FUNCTIONS.iter().find(|function| function.0 == text).unwrap().1;
                let fits = match wish.trim() {
                    "" | "(null)" => own == driver,
                    wish => wish == driver,
                };
                match self.driver(text) {
                    None if fits => symlink(Path::new("drivers").join(driver), self.driver_link(text)),
                    _ => errno(libc::ENODEV),
                }
            }
            _ => panic!("a write to {}", path.display()),
        }
    }
}

impl Effects for Kernel {
    fn write(&self, path: &Path, text: &str) -> Result<(), WriteError> {
        let number = self.writes.replace(self.writes.get() + 1);
        let (path_owned, text_owned) = (path.to_owned(), text.to_owned());
        match self.fault {
            Fault::KilledBefore(at) if at == number => panic!("killed"),
            Fault::Refused(at) if at == number => {
                return Err(WriteError::Refused {
                    path: path_owned,
                    text: text_owned,
                    source: io::Error::from_raw_os_error(libc::EBUSY),
                });
            }
            Fault::Hangs(driver) if path.ends_with(format!("{driver}/unbind")) => {
                // The link and the device files go first, before the driver waits.
                self.apply(path, text).unwrap();
                fs::remove_dir_all(self.driver_link(text).with_file_name("sound")).unwrap();
                return Err(WriteError::Stuck {
                    path: path_owned,
                    text: text_owned,
                    limit: LIMIT,
                    writer: 1,
                });
            }
            _ => {}
        }
        let done = self.apply(path, text);
        if matches!(self.fault, Fault::KilledAfter(at) if at == number) {
            panic!("killed");
        }
        done.map_err(|source| WriteError::Refused {
            path: path_owned,
            text: text_owned,
            source,
        })
    }

    fn load(&self, module: &str) -> Result<(), LoadError> {
        self.loaded.set(self.loaded.get() + 1);
        let driver = self.root.join("sys/bus/pci/drivers").join(module);
        match module {
            "vfio-pci" if self.root.join("lib/modules/6.1").exists() => {
                fs::create_dir_all(driver).unwrap();
                Ok(())
            }
            _ => Err(LoadError::Refused {
                module: module.to_owned(),
                said: "not found".to_owned(),
            }),
        }
    }

    fn open_group(&self, _sysfs: &Sysfs, group: u32) -> Result<(), OpenError> {
        match self.fault {
            Fault::Group => Err(OpenError::GroupBusy {
                group,
                members: Vec::new(),
            }),
            _ => Ok(()),
        }
    }
}

fn host() -> Host {
    let mut host = Host::new();
    for (bdf, own, driver, driver_override) in FUNCTIONS {
        host = host.with(bdf, 0x030000, driver, Some(1));
        let function = host.dir.as_path().join("sys/bus/pci/devices").join(bdf);
        fs::write(function.join("driver_override"), format!("{driver_override}\n")).unwrap();
        for driver in [own, "pci-stub", "vfio-pci"] {
            fs::create_dir_all(host.dir.as_path().join("sys/bus/pci/drivers").join(driver)).unwrap();
        }
    }
    host
}

fn kernel(host: &Host, fault: Fault) -> Kernel {
    Kernel {
        root: host.dir.as_path().to_owned(),
        fault,
        writes: Cell::new(0),
        loaded: Cell::new(0),
    }
}

fn journal(host: &Host) -> Journal {
    Journal::open(&host.dir.as_path().join("run/tenon"), host.sysfs().tree(), LIMIT).unwrap()
}

fn all() -> Vec<Bdf> {
    FUNCTIONS.iter().map(|function| function.0.parse().unwrap()).collect()
}

/// Driver and override of each function.
fn state(host: &Host) -> Vec<(Option<String>, String)> {
    let kernel = kernel(host, Fault::None);
    FUNCTIONS
        .iter()
        .map(|(bdf, ..)| {
            let path = host.dir.as_path().join("sys/bus/pci/devices").join(bdf);
            let wish = fs::read_to_string(path.join("driver_override")).unwrap();
            (kernel.driver(bdf), wish.trim().replace("(null)", ""))
        })
        .collect()
}

fn with<T>(host: &Host, kernel: &Kernel, action: impl FnOnce(&mut Handover<'_>) -> T) -> T {
    let sysfs = host.sysfs();
    let mut ignored = |_| {};
    action(&mut Handover::new(
        &sysfs,
        kernel,
        journal(host),
        &|| false,
        &mut ignored,
    ))
}

fn release_all(host: &Host) {
    let kernel = kernel(host, Fault::None);
    with(host, &kernel, |handover| {
        for entry in handover.journal().entries().to_vec() {
            handover.give_back(entry.bdf).unwrap();
        }
        assert!(handover.journal().entries().is_empty());
    });
}

#[test]
fn all_are_taken_and_given_back() {
    let host = host();
    let before = state(&host);
    let kernel = kernel(&host, Fault::None);
    with(&host, &kernel, |handover| {
        handover.take(&all(), Purpose::Bind).unwrap();
        assert!(
            handover
                .journal()
                .entries()
                .iter()
                .all(|entry| entry.step == Step::Taken)
        );
    });
    let taken = (Some("vfio-pci".to_owned()), "vfio-pci".to_owned());
    assert!(state(&host).iter().all(|function| *function == taken));
    // Taking again changes nothing, and what was before is not forgotten.
    with(&host, &kernel, |handover| handover.take(&all(), Purpose::Bind).unwrap());
    release_all(&host);
    assert_eq!(state(&host), before);
    release_all(&host);
}

#[test]
fn a_kill_at_any_step_can_be_put_right() {
    let before = state(&host());
    for fault in (0..11).flat_map(|at| [Fault::KilledBefore(at), Fault::KilledAfter(at)]) {
        let host = host();
        let kernel = kernel(&host, fault);
        let killed = catch_unwind(AssertUnwindSafe(|| {
            with(&host, &kernel, |handover| handover.take(&all(), Purpose::Bind).is_ok())
        }));
        assert!(killed.is_err(), "{fault:?} does not come to pass");
        release_all(&host);
        assert_eq!(state(&host), before, "{fault:?}");
    }
}

#[test]
fn a_kill_while_giving_back_can_be_put_right() {
    let before = state(&host());
    for fault in (0..11).flat_map(|at| [Fault::KilledBefore(at), Fault::KilledAfter(at)]) {
        let host = host();
        with(&host, &kernel(&host, Fault::None), |handover| {
            handover.take(&all(), Purpose::Bind).unwrap();
        });
        let kernel = kernel(&host, fault);
        let killed = catch_unwind(AssertUnwindSafe(|| {
            with(&host, &kernel, |handover| {
                all().into_iter().for_each(|bdf| drop(handover.give_back(bdf).unwrap()));
            });
        }));
        assert!(killed.is_err(), "{fault:?} does not come to pass");
        release_all(&host);
        assert_eq!(state(&host), before, "{fault:?}");
    }
}

#[test]
fn a_refusal_at_any_step_undoes_the_others() {
    let before = state(&host());
    for fault in (0..11).map(Fault::Refused).chain([Fault::Group]) {
        let host = host();
        let error = with(&host, &kernel(&host, fault), |handover| {
            let error = handover.take(&all(), Purpose::Bind).unwrap_err();
            assert!(handover.journal().entries().is_empty(), "{fault:?}");
            error
        });
        assert!(error.left.is_empty(), "{error}");
        assert_eq!(state(&host), before, "{fault:?}");
    }
}

#[test]
fn a_driver_that_hangs_is_left_and_the_rest_undone() {
    let host = host();
    let before = state(&host);
    let process = host.dir.as_path().join("proc/41");
    fs::create_dir_all(process.join("fd")).unwrap();
    fs::write(process.join("comm"), "wireplumber\n").unwrap();
    symlink("/dev/snd/controlC1", process.join("fd/9")).unwrap();
    let control = host
        .dir
        .as_path()
        .join("sys/bus/pci/devices/0000:01:00.1/sound/card1/controlC1");
    fs::create_dir_all(&control).unwrap();
    fs::write(control.join("dev"), "116:9\n").unwrap();
    fs::write(control.join("uevent"), "DEVNAME=snd/controlC1\n").unwrap();
    symlink("/sys/class/sound", control.join("subsystem")).unwrap();

    let error = with(&host, &kernel(&host, Fault::Hangs("snd_hda_intel")), |handover| {
        handover.take(&all(), Purpose::Bind).unwrap_err()
    });
    let message = error.to_string();
    for words in [
        "snd_hda_intel has not let go of 0000:01:00.1 within 0.1 s",
        "wireplumber (process 41: /dev/snd/controlC1)",
        "tenon release 0000:01:00.1",
        "undone: 0000:01:00.2, 0000:01:00.3 as before",
    ] {
        assert!(message.contains(words), "{words}: {message}");
    }
    assert_eq!(journal(&host).entries().len(), 1);
    // The process has ended.
    release_all(&host);
    assert_eq!(state(&host), before);
}

#[test]
fn an_interruption_undoes_what_was_done() {
    let host = host();
    let before = state(&host);
    let (sysfs, kernel, asked) = (host.sysfs(), kernel(&host, Fault::None), Cell::new(0));
    let second = || asked.replace(asked.get() + 1) == 2;
    let mut seen = Vec::new();
    let mut note = |progress| seen.push(progress);
    let mut handover = Handover::new(&sysfs, &kernel, journal(&host), &second, &mut note);
    let error = handover.take(&all(), Purpose::Bind).unwrap_err();
    assert!(matches!(*error.cause, StepError::Interrupted), "{error}");
    assert_eq!(state(&host), before);
    let given = seen
        .iter()
        .filter(|progress| matches!(progress, Progress::GivenBack { .. }));
    assert_eq!(given.count(), 2);
}

#[test]
fn another_hand_is_respected() {
    let host = host();
    let kernel = kernel(&host, Fault::None);
    with(&host, &kernel, |handover| handover.take(&all(), Purpose::Bind).unwrap());
    // Somebody moves one to pci-stub, exchanges the second card, and takes the third out.
    let devices = host.dir.as_path().join("sys/bus/pci/devices");
    fs::remove_file(devices.join("0000:01:00.0/driver")).unwrap();
    symlink("drivers/pci-stub", devices.join("0000:01:00.0/driver")).unwrap();
    fs::write(devices.join("0000:01:00.0/driver_override"), "pci-stub\n").unwrap();
    fs::write(devices.join("0000:01:00.1/vendor"), "0x8086\n").unwrap();
    fs::remove_dir_all(devices.join("0000:01:00.2")).unwrap();
    let given: Vec<Given> = with(&host, &kernel, |handover| {
        all()
            .into_iter()
            .filter_map(|bdf| handover.give_back(bdf).unwrap())
            .collect()
    });
    let stub = Some("pci-stub".to_owned());
    assert_eq!(
        given,
        [
            Given::ElsewhereBy("pci-stub".into()),
            Given::Gone,
            Given::Gone,
            Given::To(stub)
        ]
    );
    assert_eq!(state_of(&host, "0000:01:00.0"), "pci-stub");
}

fn state_of(host: &Host, bdf: &str) -> String {
    let path = host.dir.as_path().join("sys/bus/pci/devices").join(bdf);
    fs::read_to_string(path.join("driver_override"))
        .unwrap()
        .trim()
        .to_owned()
}

#[test]
fn what_a_virtual_machine_has_is_not_given_back() {
    let host = host();
    let kernel = kernel(&host, Fault::None);
    with(&host, &kernel, |handover| handover.take(&all(), Purpose::Bind).unwrap());
    let process = host.dir.as_path().join("proc/900");
    fs::create_dir_all(process.join("fd")).unwrap();
    fs::write(process.join("comm"), "tenon\n").unwrap();
    symlink("/dev/vfio/1", process.join("fd/12")).unwrap();
    let taken = state(&host);
    let error = with(&host, &kernel, |handover| handover.give_back(all()[0]).unwrap_err());
    assert!(
        error.to_string().contains("tenon (process 900: /dev/vfio/1)"),
        "{error}"
    );
    assert_eq!(state(&host), taken);
    fs::remove_dir_all(process).unwrap();
    release_all(&host);
}

#[test]
fn the_next_run_takes_over_from_a_killed_one() {
    let host = host();
    let kernel = kernel(&host, Fault::None);
    let purpose_after = |first: Purpose, then: Purpose| {
        with(&host, &kernel, |handover| handover.take(&all(), first).unwrap());
        with(&host, &kernel, |handover| handover.take(&all(), then).unwrap());
        let purpose = journal(&host).entries()[0].purpose;
        release_all(&host);
        purpose
    };
    fs::create_dir_all(host.dir.as_path().join("proc/8")).unwrap();
    let (dead, alive, new) = (
        Purpose::Run { pid: 7 },
        Purpose::Run { pid: 8 },
        Purpose::Run { pid: 9 },
    );
    assert_eq!(purpose_after(dead, new), new);
    assert_eq!(purpose_after(alive, new), alive);
    assert_eq!(purpose_after(Purpose::Bind, new), Purpose::Bind);
    assert_eq!(purpose_after(dead, Purpose::Bind), Purpose::Bind);
}

#[test]
fn a_missing_module_is_loaded_or_explained() {
    let host = host();
    let before = state(&host);
    fs::remove_dir(host.dir.as_path().join("sys/bus/pci/drivers/vfio-pci")).unwrap();
    fs::create_dir_all(host.dir.as_path().join("proc/sys/kernel")).unwrap();
    fs::write(host.dir.as_path().join("proc/sys/kernel/osrelease"), "6.1\n").unwrap();
    fs::create_dir_all(host.dir.as_path().join("lib/modules/6.2")).unwrap();
    let kernel = kernel(&host, Fault::None);
    let error = with(&host, &kernel, |handover| {
        handover.take(&all(), Purpose::Bind).unwrap_err()
    });
    let message = error.to_string();
    assert!(
        message.contains("/lib/modules/6.1") && message.contains("6.2") && message.contains("reboot"),
        "{message}"
    );
    assert_eq!(state(&host), before);

    fs::create_dir_all(host.dir.as_path().join("lib/modules/6.1")).unwrap();
    with(&host, &kernel, |handover| handover.take(&all(), Purpose::Bind).unwrap());
    assert_eq!(kernel.loaded.get(), 2);
    // The host's own driver is gone for good: the others come back all the same.
    fs::remove_dir(host.dir.as_path().join("sys/bus/pci/drivers/nouveau")).unwrap();
    with(&host, &kernel, |handover| {
        let failed = all().into_iter().filter(|bdf| handover.give_back(*bdf).is_err());
        assert_eq!(failed.count(), 1);
        assert_eq!(handover.journal().entries().len(), 1);
    });
}
