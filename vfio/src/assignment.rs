//! From a selection to functions on the guest's bus, in the order that the kernel and the machine need.

use std::io;
use std::sync::Arc;

use devices::InterruptFabric;
use devices::pci::{Bar, BarKind, PciFunction};
use kvm_ioctls::DeviceFd;

use crate::bar::bars;
use crate::container::{Container, OpenError};
use crate::device::VfioPciDevice;
use crate::discover::{Config, DiscoverError, Layout, discover, port_type};
use crate::group::Group;
use crate::host::{Bdf, HostFunction, Sysfs};
use crate::io::{CONFIG_REGION, DeviceIo};
use crate::reset::{ResetMethod, Resets, method};
use crate::rom::RomSource;
use crate::selection::Selection;

/// Why functions could not be assigned.
#[derive(Debug, thiserror::Error)]
pub enum AssignError {
    /// Opening failed.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Config space could not be read.
    #[error("{bdf}: its config space cannot be read: {source}")]
    Config {
        /// The function.
        bdf: Bdf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Config space makes no sense.
    #[error("{bdf}: {source}")]
    Discover {
        /// The function.
        bdf: Bdf,
        /// What is wrong with it.
        source: DiscoverError,
    },
    /// A PCI Express device that is no endpoint.
    #[error("{bdf} is a PCI Express device of type {port_type:#x}; only endpoints are assigned")]
    PortType {
        /// The function.
        bdf: Bdf,
        /// Device/port type.
        port_type: u8,
    },
    /// As many placements as functions are needed.
    #[error("{bdf} was given no place in the guest")]
    NoPlace {
        /// The function.
        bdf: Bdf,
    },
    /// Making the device failed.
    #[error("{bdf}: cannot set up its interrupts: {source}")]
    Interrupts {
        /// The function.
        bdf: Bdf,
        /// What the system said.
        source: io::Error,
    },
}

/// Where a function goes in the guest.
#[derive(Debug, Clone, Default)]
pub struct Placement {
    /// Device and function number in the guest, `device << 3 | function`.
    pub devfn: u8,
    /// The guest's slot holds more functions. To be set for function 0 of such a slot; harmless for the others.
    pub multifunction: bool,
    /// The GSI that the function's pin reaches; `None` leaves it without INTx.
    pub intx_gsi: Option<u32>,
    /// Where its expansion ROM comes from.
    pub rom: RomSource,
}

/// A function that has been opened and looked at, but has no place yet.
#[derive(Debug)]
pub struct OpenFunction {
    /// What the host knows of it.
    pub host: HostFunction,
    /// What its config space holds.
    pub layout: Layout,
    /// Its BARs by number.
    pub bars: [Option<Bar>; 6],
    /// Bytes of its ROM; 0 for none.
    pub rom_size: u64,
    pub(crate) config: Vec<u8>,
    pub(crate) io: Arc<dyn DeviceIo>,
    pub(crate) group: Option<Arc<Group>>,
}

impl OpenFunction {
    /// Looks at an opened device.
    pub(crate) fn new(
        host: HostFunction,
        io: Arc<dyn DeviceIo>,
        group: Option<Arc<Group>>,
    ) -> Result<Self, AssignError> {
        let bdf = host.bdf;
        let size = usize::try_from(io.region(CONFIG_REGION).size).unwrap_or(0).min(4096);
        let mut config = vec![0xff; size];
        // Dword by dword: the kernel takes config space in such pieces anyway, and one that fails names its place.
        for (at, bytes) in (0u64..).step_by(4).zip(config.chunks_mut(4)) {
            io.read(CONFIG_REGION, at, bytes)
                .map_err(|source| AssignError::Config { bdf, source })?;
        }
        let layout = discover(Config(&config)).map_err(|source| AssignError::Discover { bdf, source })?;
        let endpoints = [
            port_type::ENDPOINT,
            port_type::LEGACY_ENDPOINT,
            port_type::INTEGRATED_ENDPOINT,
        ];
        if let Some(express) = layout.express
            && !endpoints.contains(&express.port_type)
        {
            return Err(AssignError::PortType {
                bdf,
                port_type: express.port_type,
            });
        }
        let bars = bars(Config(&config), |index| io.region(index).size);
        let rom_size = io.region(vfio_bindings::bindings::vfio::VFIO_PCI_ROM_REGION_INDEX).size;
        Ok(Self {
            host,
            layout,
            bars,
            rom_size,
            config,
            io,
            group,
        })
    }

    /// Sizes of its 64-bit memory BARs, for the window above 4 GiB.
    pub fn wide_bars(&self) -> impl Iterator<Item = u64> {
        let wide = |bar: &Bar| matches!(bar.kind, BarKind::Memory64 { .. });
        self.bars
            .iter()
            .flatten()
            .filter(move |bar| wide(bar))
            .map(|bar| bar.size)
    }

    /// Sizes of its 32-bit memory BARs, for the window below 4 GiB.
    pub fn narrow_bars(&self) -> impl Iterator<Item = u64> {
        let narrow = |bar: &Bar| matches!(bar.kind, BarKind::Memory32 { .. });
        self.bars
            .iter()
            .flatten()
            .filter(move |bar| narrow(bar))
            .map(|bar| bar.size)
    }
}

/// The functions of a selection, opened.
#[derive(Debug)]
pub struct Assignment {
    functions: Vec<OpenFunction>,
    container: Arc<Container>,
}

impl Assignment {
    /// Opens the container, all groups and all functions, and looks at each.
    ///
    /// # Errors
    /// See [`AssignError`]; whatever was opened is closed again.
    pub fn open(selection: &Selection, sysfs: &Sysfs, kvm: Option<&Arc<DeviceFd>>) -> Result<Self, AssignError> {
        let container = Arc::new(Container::open(selection, sysfs, kvm)?);
        let functions = selection
            .functions()
            .into_iter()
            .map(|function| {
                let (group, device) = container.function(function)?;
                tracing::debug!("{}: opened in IOMMU group {}", function.bdf, group.number());
                OpenFunction::new(function.clone(), Arc::new(device), Some(group))
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { functions, container })
    }

    /// The functions in order of host address.
    pub fn functions(&self) -> &[OpenFunction] {
        &self.functions
    }

    /// The container, to map guest memory through.
    pub fn container(&self) -> &Arc<Container> {
        &self.container
    }

    /// Puts the functions into their places, one placement each in the order of [`Self::functions`], and resets them.
    ///
    /// # Errors
    /// See [`AssignError`].
    pub fn fit(
        self,
        placements: Vec<Placement>,
        fabric: &Arc<dyn InterruptFabric>,
    ) -> Result<Vec<Arc<VfioPciDevice>>, AssignError> {
        let container = self.container;
        let owned = |group: u32| container.group_fd(group).is_some();
        fit(self.functions, placements, fabric, owned, Some(container.clone()))
    }
}

/// [`Assignment::fit`], with or without a container.
pub(crate) fn fit(
    functions: Vec<OpenFunction>,
    placements: Vec<Placement>,
    fabric: &Arc<dyn InterruptFabric>,
    owned: impl Fn(u32) -> bool,
    container: Option<Arc<Container>>,
) -> Result<Vec<Arc<VfioPciDevice>>, AssignError> {
    let mut placements = placements.into_iter();
    let mut fitted = Vec::with_capacity(functions.len());
    for function in functions {
        let bdf = function.host.bdf;
        let placement = placements.next().ok_or(AssignError::NoPlace { bdf })?;
        let device = VfioPciDevice::new(function, placement, fabric.clone())
            .map_err(|source| AssignError::Interrupts { bdf, source })?;
        fitted.push(Arc::new(device));
    }
    let methods: Vec<(Bdf, ResetMethod)> = fitted
        .iter()
        .map(|device| {
            (
                device.bdf(),
                method(device.io().as_ref(), device.bdf(), device.layout(), &owned),
            )
        })
        .collect();
    let resets = Arc::new(Resets::new(container, methods));
    for device in &fitted {
        device.join(&resets);
    }
    // Only when all are joined: a hot reset waits for the last of its functions.
    for device in &fitted {
        device.reset();
    }
    Ok(fitted)
}
