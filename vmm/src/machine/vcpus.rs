//! The vCPU threads.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use devices::Effect;
use vmm_sys_util::signal::{Killable, SIGRTMIN, register_signal_handler};

use super::address_space::AddressSpace;
use super::control::{Control, Request};
use crate::kvm::vcpu::{Buses, ExitCounts, Step, Vcpu};

/// How often an access to a BAR that has just gone away is retried before the guest is given up. The vCPU that turned the BAR off is
/// about to remove its slot, which takes well under a millisecond.
const VANISHED_RETRIES: u32 = 2000;

/// The vCPUs of a machine and the threads that run them.
#[derive(Debug)]
pub struct Vcpus {
    vcpus: Vec<Arc<Mutex<Vcpu>>>,
    threads: Vec<JoinHandle<()>>,
    control: Arc<Control>,
    counts: Arc<ExitCounts>,
}

extern "C" fn on_kick(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}

impl Vcpus {
    /// Starts a thread a vCPU, all parked.
    ///
    /// # Errors
    /// A thread could not be started.
    pub fn start(vcpus: Vec<Vcpu>, space: &Arc<AddressSpace>, control: Arc<Control>) -> io::Result<Self> {
        // The handler does nothing: the signal is there to make KVM_RUN return.
        register_signal_handler(SIGRTMIN(), on_kick).map_err(|error| io::Error::from_raw_os_error(error.errno()))?;
        let counts = Arc::<ExitCounts>::default();
        let vcpus: Vec<_> = vcpus.into_iter().map(|vcpu| Arc::new(Mutex::new(vcpu))).collect();
        let mut all = Self {
            vcpus,
            threads: Vec::new(),
            control,
            counts,
        };
        for (index, vcpu) in all.vcpus.iter().enumerate() {
            let runner = Runner {
                vcpu: Arc::clone(vcpu),
                space: Arc::clone(space),
                buses: space.buses(),
                control: Arc::clone(&all.control),
                counts: Arc::clone(&all.counts),
            };
            all.threads.push(
                std::thread::Builder::new()
                    .name(format!("vcpu{index}"))
                    .spawn(move || runner.run())?,
            );
        }
        Ok(all)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.vcpus.len()
    }

    /// Exits so far.
    pub fn exits(&self) -> &Arc<ExitCounts> {
        &self.counts
    }

    /// Parks every vCPU and waits until all are.
    pub fn park(&self) {
        self.control.park(self.threads.len(), || self.kick());
    }

    /// The vCPUs in order; none is running while the caller holds one.
    pub fn each(&self) -> impl Iterator<Item = MutexGuard<'_, Vcpu>> {
        self.vcpus
            .iter()
            .map(|vcpu| vcpu.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn kick(&self) {
        for thread in &self.threads {
            // A thread that has ended already needs no kick.
            let _ = thread.kill(SIGRTMIN());
        }
    }
}

impl Drop for Vcpus {
    fn drop(&mut self) {
        self.control.end(self.threads.len(), || self.kick());
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a vCPU thread panicked");
            }
        }
    }
}

struct Runner {
    vcpu: Arc<Mutex<Vcpu>>,
    space: Arc<AddressSpace>,
    buses: Arc<Buses>,
    control: Arc<Control>,
    counts: Arc<ExitCounts>,
}

/// Reports a panic of its thread as a failure of the machine, and keeps the thread counted as parked so that the others can be stopped.
struct PanicReport<'a>(&'a Control);

impl Drop for PanicReport<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.request(Request::Fail(
                "a vCPU thread panicked: this is a bug in tenon".to_owned(),
            ));
            while self.0.wait() {}
        }
    }
}

impl Runner {
    fn run(&self) {
        let _report = PanicReport(&self.control);
        while self.control.wait() {
            let mut vcpu = self.vcpu.lock().unwrap_or_else(PoisonError::into_inner);
            self.run_until_interrupted(&mut vcpu);
            vcpu.complete_exit();
        }
    }

    fn run_until_interrupted(&self, vcpu: &mut Vcpu) {
        let mut vanished = 0;
        while !self.control.interrupted() {
            match vcpu.step(&self.buses, &self.counts) {
                Step::Handled(effect) => {
                    vanished = 0;
                    self.apply(effect);
                }
                Step::Interrupted => {}
                Step::TripleFault => self.control.request(Request::TripleFault),
                Step::Vanished if vanished < VANISHED_RETRIES => {
                    vanished += 1;
                    std::thread::sleep(Duration::from_micros(500));
                }
                Step::Vanished => {
                    let reason = "the guest touched device memory that is not there (a BAR of an assigned device that went away)";
                    self.control.request(Request::Fail(reason.to_owned()));
                }
                Step::Failed(reason) => self.control.request(Request::Fail(reason)),
            }
        }
    }

    fn apply(&self, effect: Effect) {
        match effect {
            Effect::None => {}
            Effect::Relayout => self.space.relayout(),
            Effect::Reset => self.control.request(Request::Reset),
            Effect::PowerOff => self.control.request(Request::PowerOff),
        }
    }
}
