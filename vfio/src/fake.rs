//! A device that behaves as the kernel's vfio-pci does where it matters here, and interrupt controllers that take notes.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use devices::pci::spec;
use devices::{HostMapping, InterruptFabric, IrqLine, MsiMessage, MsiVector};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::assignment::{OpenFunction, Placement, fit};
use crate::bar::PAGE;
use crate::device::VfioPciDevice;
use crate::host::{Bdf, HostFunction};
use crate::io::{Area, CONFIG_REGION, Dependent, DeviceIo, IrqAction, IrqData, IrqInfo, IrqRequest, RegionInfo};

/// What happened, in order.
pub(crate) type Log = Arc<Mutex<Vec<String>>>;

#[derive(Debug)]
pub(crate) struct FakeDevice {
    regions: BTreeMap<u32, RegionInfo>,
    irqs: BTreeMap<u32, IrqInfo>,
    resettable: bool,
    /// Functions hit by a hot reset.
    pub dependents: Vec<Dependent>,
    /// Vectors the host can spare.
    spare: usize,
    name: String,
    log: Log,
    state: Mutex<Kernel>,
}

#[derive(Debug, Default)]
pub(crate) struct Kernel {
    pub config: Vec<u8>,
    pub memory: BTreeMap<u32, Vec<u8>>,
    /// The one interrupt index enabled.
    pub enabled: Option<u32>,
    pub events: Vec<Option<RawFd>>,
    pub unmask: Option<RawFd>,
}

impl FakeDevice {
    pub(crate) fn new(name: &str, config: Vec<u8>, log: &Log) -> Self {
        let size = config.len() as u64;
        let regions = BTreeMap::from([(
            CONFIG_REGION,
            RegionInfo {
                size,
                ..RegionInfo::default()
            },
        )]);
        Self {
            regions,
            irqs: BTreeMap::new(),
            resettable: false,
            dependents: Vec::new(),
            spare: usize::MAX,
            name: name.to_owned(),
            log: log.clone(),
            state: Mutex::new(Kernel {
                config,
                ..Kernel::default()
            }),
        }
    }

    pub(crate) fn bar(mut self, index: u32, size: u64, mappable: bool) -> Self {
        let info = RegionInfo {
            size,
            mappable,
            msix_mappable: true,
            ..RegionInfo::default()
        };
        self.regions.insert(index, info);
        self.kernel()
            .memory
            .insert(index, vec![0xb0 + index as u8; size.min(1 << 20) as usize]);
        self
    }

    pub(crate) fn irq(mut self, index: u32, count: u32, no_resize: bool) -> Self {
        self.irqs.insert(index, IrqInfo { count, no_resize });
        self
    }

    pub(crate) fn resettable(mut self) -> Self {
        self.resettable = true;
        self
    }

    pub(crate) fn hit_by_hot_reset(mut self, functions: &[(&str, u32)]) -> Self {
        let dependent = |(bdf, group): &(&str, u32)| Dependent {
            group: *group,
            function: bdf.parse().unwrap(),
        };
        self.dependents = functions.iter().map(dependent).collect();
        self
    }

    pub(crate) fn spare_vectors(mut self, count: usize) -> Self {
        self.spare = count;
        self
    }

    pub(crate) fn kernel(&self) -> MutexGuard<'_, Kernel> {
        self.state.lock().unwrap()
    }

    fn note(&self, what: &str) {
        self.log.lock().unwrap().push(format!("{} {what}", self.name));
    }

    fn memory_answers(kernel: &Kernel) -> bool {
        let config = crate::discover::Config(&kernel.config);
        let asleep = crate::discover::discover(config)
            .ok()
            .and_then(|layout| layout.power)
            .is_some_and(|power| config.u16(power.offset + 4) & 3 != 0);
        config.u16(spec::COMMAND) & spec::COMMAND_MEMORY != 0 && !asleep
    }
}

impl DeviceIo for FakeDevice {
    fn region(&self, region: u32) -> RegionInfo {
        self.regions.get(&region).cloned().unwrap_or_default()
    }

    fn irq(&self, index: u32) -> IrqInfo {
        self.irqs.get(&index).copied().unwrap_or_default()
    }

    fn can_reset(&self) -> bool {
        self.resettable
    }

    fn read(&self, region: u32, offset: u64, data: &mut [u8]) -> io::Result<()> {
        let kernel = self.kernel();
        if region != CONFIG_REGION && !Self::memory_answers(&kernel) {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        let bytes = if region == CONFIG_REGION {
            Some(&kernel.config)
        } else {
            kernel.memory.get(&region)
        };
        let source = bytes.and_then(|bytes| bytes.get(offset as usize..)?.get(..data.len()));
        data.copy_from_slice(source.ok_or(io::ErrorKind::InvalidInput)?);
        Ok(())
    }

    fn write(&self, region: u32, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut kernel = self.kernel();
        if region == CONFIG_REGION {
            self.log
                .lock()
                .unwrap()
                .push(format!("{} config {offset:#x} {data:02x?}", self.name));
            let power = crate::discover::discover(crate::discover::Config(&kernel.config))
                .ok()
                .and_then(|l| l.power);
            for (at, byte) in (offset as usize..).zip(data) {
                let mask: u8 = match at {
                    4 | 5 => 0xff,
                    _ if power.is_some_and(|power| at == usize::from(power.offset) + 4) => 3,
                    _ => 0,
                };
                kernel.config[at] = kernel.config[at] & !mask | byte & mask;
            }
            return Ok(());
        }
        if !Self::memory_answers(&kernel) {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        let target = kernel
            .memory
            .get_mut(&region)
            .and_then(|bytes| bytes.get_mut(offset as usize..)?.get_mut(..data.len()));
        target.ok_or(io::ErrorKind::InvalidInput)?.copy_from_slice(data);
        Ok(())
    }

    fn map(&self, _region: u32, area: Area, align: u64) -> io::Result<HostMapping> {
        assert!(area.offset.is_multiple_of(PAGE) && area.size.is_multiple_of(PAGE) && align.is_power_of_two());
        HostMapping::anonymous(area.size as usize)
    }

    fn set_irqs(&self, request: &IrqRequest<'_>) -> io::Result<u32> {
        let mut kernel = self.kernel();
        let mine = kernel.enabled == Some(request.index);
        match (request.action, request.data) {
            (IrqAction::Trigger, IrqData::Count(0)) => {
                if !mine && kernel.enabled.is_some() && request.index < 3 {
                    return Err(io::Error::from_raw_os_error(libc::EINVAL));
                }
                if mine {
                    self.note(&format!("disable {}", request.index));
                    (kernel.enabled, kernel.unmask) = (None, None);
                    kernel.events.clear();
                }
                Ok(0)
            }
            (IrqAction::Trigger, IrqData::Events(_)) if request.index >= 3 => Ok(0),
            (IrqAction::Trigger, IrqData::Events(events)) => {
                let fds: Vec<_> = events
                    .iter()
                    .map(|event| event.map(|event| event.as_raw_fd()))
                    .collect();
                let end = request.start as usize + fds.len();
                if !mine && kernel.enabled.is_some() {
                    return Err(io::Error::from_raw_os_error(libc::EINVAL));
                }
                if end > self.irq(request.index).count as usize {
                    return Err(io::Error::from_raw_os_error(libc::EINVAL));
                }
                if !mine && end > self.spare {
                    return Ok(self.spare as u32);
                }
                if mine && end > kernel.events.len() && self.irq(request.index).no_resize {
                    return Err(io::Error::from_raw_os_error(libc::EINVAL));
                }
                kernel.enabled = Some(request.index);
                let len = kernel.events.len().max(end);
                kernel.events.resize(len, None);
                kernel.events[request.start as usize..end].copy_from_slice(&fds);
                let set = fds.iter().flatten().count();
                self.note(&format!(
                    "enable {} {}+{} with {set}",
                    request.index,
                    request.start,
                    fds.len()
                ));
                Ok(0)
            }
            (IrqAction::Unmask, IrqData::Events([Some(event)])) if mine && request.index == 0 => {
                kernel.unmask = Some(event.as_raw_fd());
                self.note("resample");
                Ok(0)
            }
            _ => Err(io::Error::from_raw_os_error(libc::EINVAL)),
        }
    }

    fn reset(&self) -> io::Result<()> {
        self.note("reset");
        Ok(())
    }

    fn hot_reset_info(&self) -> io::Result<Vec<Dependent>> {
        if self.dependents.is_empty() {
            return Err(io::Error::from_raw_os_error(libc::ENODEV));
        }
        Ok(self.dependents.clone())
    }

    fn hot_reset(&self, _groups: &[RawFd]) -> io::Result<()> {
        self.note("hot reset");
        Ok(())
    }
}

#[derive(Debug, Default)]
pub(crate) struct FakeFabric {
    pub vectors: Mutex<Vec<Arc<FakeVector>>>,
    pub log: Log,
    pub levels: Mutex<Vec<u32>>,
}

#[derive(Debug)]
pub(crate) struct FakeVector {
    pub event: EventFd,
    pub message: Mutex<Option<MsiMessage>>,
    pub waiting: AtomicU32,
}

impl FakeFabric {
    /// The messages of the vectors that are still in use, in order of creation.
    pub(crate) fn messages(&self) -> Vec<Option<MsiMessage>> {
        let vectors = self.vectors.lock().unwrap();
        vectors
            .iter()
            .filter(|vector| Arc::strong_count(vector) > 1)
            .map(|v| *v.message.lock().unwrap())
            .collect()
    }
}

impl MsiVector for FakeVector {
    fn event(&self) -> &EventFd {
        &self.event
    }
    fn route(&self, message: MsiMessage) -> io::Result<()> {
        *self.message.lock().unwrap() = Some(message);
        Ok(())
    }
    fn unroute(&self) -> io::Result<()> {
        *self.message.lock().unwrap() = None;
        Ok(())
    }
    fn pending(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }
}

#[derive(Debug)]
struct NoLine;
impl IrqLine for NoLine {
    fn set(&self, _level: bool) {}
}

impl InterruptFabric for FakeFabric {
    fn msi_vector(&self) -> io::Result<Arc<dyn MsiVector>> {
        let event = EventFd::new(EFD_NONBLOCK)?;
        let vector = Arc::new(FakeVector {
            event,
            message: Mutex::default(),
            waiting: AtomicU32::new(0),
        });
        self.vectors.lock().unwrap().push(vector.clone());
        Ok(vector)
    }
    fn line(&self, _gsi: u32) -> Arc<dyn IrqLine> {
        Arc::new(NoLine)
    }
    fn connect_level(&self, gsi: u32, _trigger: &EventFd, _resample: &EventFd) -> io::Result<()> {
        self.log.lock().unwrap().push(format!("connect {gsi}"));
        self.levels.lock().unwrap().push(gsi);
        Ok(())
    }
    fn disconnect_level(&self, gsi: u32, _trigger: &EventFd) -> io::Result<()> {
        self.log.lock().unwrap().push(format!("disconnect {gsi}"));
        self.levels.lock().unwrap().retain(|level| *level != gsi);
        Ok(())
    }
}

/// Functions on a guest's bus with all that is around them.
pub(crate) struct Bench {
    pub devices: Vec<Arc<VfioPciDevice>>,
    pub fakes: Vec<Arc<FakeDevice>>,
    pub fabric: Arc<FakeFabric>,
    pub log: Log,
}

impl Bench {
    /// Fits the functions that `make` builds, in IOMMU group 1, with INTx at GSI 16.
    pub(crate) fn new(make: impl FnOnce(&Log) -> Vec<(&'static str, FakeDevice)>) -> Self {
        let log = Log::default();
        let fabric = Arc::new(FakeFabric {
            log: log.clone(),
            ..FakeFabric::default()
        });
        let (mut fakes, mut functions, mut places) = (Vec::new(), Vec::new(), Vec::new());
        for (bdf, fake) in make(&log) {
            let fake = Arc::new(fake);
            let io: Arc<dyn DeviceIo> = fake.clone();
            functions.push(OpenFunction::new(host(bdf.parse().unwrap()), io, None).unwrap());
            fakes.push(fake);
            places.push(Placement {
                devfn: 8,
                multifunction: true,
                intx_gsi: Some(16),
                ..Placement::default()
            });
        }
        let wires: Arc<dyn InterruptFabric> = fabric.clone();
        let devices = fit(functions, places, &wires, |group| group == 1, None).unwrap();
        Self {
            devices,
            fakes,
            fabric,
            log,
        }
    }

    /// Takes what has been logged since the last call.
    pub(crate) fn drain(&self) -> Vec<String> {
        std::mem::take(&mut self.log.lock().unwrap())
    }
}

fn host(bdf: Bdf) -> HostFunction {
    HostFunction {
        driver: Some("vfio-pci".to_owned()),
        group: Some(1),
        ..HostFunction::from(bdf)
    }
}
