//! What is going to be built: everything checked against the host before anything is made or changed.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use devices::flash::{VarsMode, VarsOptions, VarsStore};
use devices::virtio::block::{Block, DiskOptions};
use firmware::mmio64;
use firmware::ovmf::{FirmwareImage, FirmwareSearch, LoadedFirmware};
use firmware::{RamSplit, e820};
use kvm_bindings::{kvm_cpuid_entry2, kvm_create_device, kvm_device_type_KVM_DEV_TYPE_VFIO};
use kvm_ioctls::{DeviceFd, Kvm, VmFd};
use vfio::{Assignment, Bdf, MemoryLock, Selection, Sysfs};

use super::error::{Error, system};
use super::layout::DISKS;
use super::places::{Candidate, Place, places};
use super::romfile;
use crate::boot::DirectKernel;
use crate::config::{Boot, Disk, FirmwareChoice, RunConfig};
use crate::kvm::host::{self, refused};
use crate::kvm::vcpu::supported_cpuid;

/// What starts the guest, found and read.
#[derive(Debug)]
pub enum BootPlan {
    /// OVMF.
    Firmware {
        /// Its files.
        image: FirmwareImage,
        /// Their contents.
        loaded: LoadedFirmware,
        /// The user's variable store.
        vars: PathBuf,
    },
    /// A kernel, without firmware.
    Kernel(DirectKernel),
}

/// Assigned devices, opened but not yet touched.
pub struct DevicePlan {
    /// The opened functions.
    pub assignment: Assignment,
    /// Where each goes, in the same order.
    pub places: Vec<Place>,
    /// The limit on locked memory, which guest RAM must keep.
    pub lock: MemoryLock,
    /// The ROM files that stand in for the functions' own.
    pub roms: BTreeMap<Bdf, Vec<u8>>,
}

impl fmt::Debug for DevicePlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DevicePlan")
            .field("places", &self.places)
            .finish_non_exhaustive()
    }
}

/// Everything a machine is built from.
#[derive(Debug)]
pub struct Plan {
    /// What the user asked for.
    pub config: RunConfig,
    /// How guest RAM is split around the 32-bit hole.
    pub ram: RamSplit,
    /// KVM.
    pub kvm: Kvm,
    /// The virtual machine, still empty.
    pub vm: Arc<VmFd>,
    /// CPUID leaves KVM offers.
    pub cpuid: Vec<kvm_cpuid_entry2>,
    /// Whether the guest is kept from seeing KVM.
    pub hide_kvm: bool,
    /// Guest physical address bits.
    pub phys_bits: u8,
    /// Bytes of the 64-bit PCI window to ask for.
    pub mmio64: u64,
    /// What starts the guest.
    pub boot: BootPlan,
    /// The disks, opened and locked.
    pub disks: Vec<Arc<Block>>,
    /// The devices, if any.
    pub devices: Option<DevicePlan>,
}

impl Plan {
    /// Checks `config` against this host. Opens what will be used, so that nobody else takes it meanwhile; creates and resets nothing.
    ///
    /// # Errors
    /// The first thing found wrong.
    pub fn check(config: RunConfig) -> Result<Self, Error> {
        let ram = RamSplit::new(config.memory);
        // Files before the host: a misspelt path is reported on any machine.
        let boot = boot_plan(&config.boot)?;
        let disks = open_disks(&config)?;
        let roms = romfile::read_all(&config.devices)?;
        let selection = select(&config)?;
        let kvm = host::open()?;
        let vm = host::create_vm(&kvm, e820::KVM_IDENTITY_MAP, e820::KVM_TSS)?;
        let cpuid = supported_cpuid(&kvm)?;
        let devices = selection
            .as_ref()
            .map(|selection| device_plan(selection, &vm, config.memory, roms))
            .transpose()?;
        let has_display = selection.is_some_and(|selection| selection.has_display());
        let phys_bits = address_bits(config.phys_bits, &cpuid, devices.as_ref())?;
        let mmio64 = mmio64::window_size(&wide_bars(devices.as_ref()), ram.top(), phys_bits)?;
        let hide_kvm = config.hide_kvm.unwrap_or(has_display);
        Ok(Self {
            config,
            ram,
            kvm,
            vm,
            cpuid,
            hide_kvm,
            phys_bits,
            mmio64,
            boot,
            disks,
            devices,
        })
    }
}

pub(super) fn boot_plan(boot: &Boot) -> Result<BootPlan, Error> {
    match boot {
        Boot::Firmware { image, vars } => {
            let search = FirmwareSearch::default();
            let image = match image {
                FirmwareChoice::Auto => search.find()?,
                FirmwareChoice::Path(path) => search.named(path, Some(vars.as_path()).filter(|vars| vars.exists()))?,
            };
            let loaded = image.load()?;
            VarsStore::check(&vars_options(vars, &image, &loaded))?;
            Ok(BootPlan::Firmware {
                image,
                loaded,
                vars: vars.clone(),
            })
        }
        Boot::Kernel {
            kernel,
            initrd,
            cmdline,
        } => Ok(BootPlan::Kernel(DirectKernel::open(
            kernel,
            initrd.as_deref(),
            cmdline,
        )?)),
    }
}

/// How the variable store at `vars` is opened.
pub(super) fn vars_options<'a>(vars: &'a Path, image: &'a FirmwareImage, loaded: &LoadedFirmware) -> VarsOptions<'a> {
    VarsOptions {
        path: vars,
        template: image.vars_template.as_deref(),
        size: loaded.layout.vars.size,
        mode: VarsMode::Persistent,
    }
}

/// Whether there are places on the bus for all disks.
pub(super) fn room_for_disks(config: &RunConfig) -> Result<(), Error> {
    match config.disks.len() > usize::from(DISKS) {
        true => Err(Error::TooMany {
            what: "disks",
            count: config.disks.len(),
            room: DISKS,
        }),
        false => Ok(()),
    }
}

/// Opens and locks one disk.
pub(super) fn open_disk(index: usize, disk: &Disk) -> Result<Arc<Block>, Error> {
    let options = DiskOptions {
        path: disk.path.clone(),
        readonly: disk.readonly,
        serial: None,
    };
    Ok(Arc::new(Block::open(&format!("disk{index}"), &options)?))
}

fn open_disks(config: &RunConfig) -> Result<Vec<Arc<Block>>, Error> {
    room_for_disks(config)?;
    let disks = config.disks.iter().enumerate();
    disks.map(|(index, disk)| open_disk(index, disk)).collect()
}

fn select(config: &RunConfig) -> Result<Option<Selection>, Error> {
    if config.devices.is_empty() {
        return Ok(None);
    }
    let named: Vec<Bdf> = config.devices.iter().map(|device| device.address).collect();
    Ok(Some(Selection::new(&Sysfs::host(), &named)?))
}

fn device_plan(
    selection: &Selection,
    vm: &VmFd,
    memory: u64,
    roms: BTreeMap<Bdf, Vec<u8>>,
) -> Result<DevicePlan, Error> {
    let lock = MemoryLock::of_this_process()?;
    // Before anything is opened: the remedy is the same for every device.
    lock.check(memory)?;
    let kvm_vfio = kvm_vfio_device(vm)?;
    let assignment = Assignment::open(selection, &Sysfs::host(), Some(&kvm_vfio))?;
    let candidates: Vec<Candidate> = assignment
        .functions()
        .iter()
        .map(|function| Candidate {
            slot: (
                function.host.bdf.domain,
                function.host.bdf.bus,
                function.host.bdf.device,
            ),
            function: function.host.bdf.function,
            display: function.host.is_display(),
        })
        .collect();
    Ok(DevicePlan {
        places: places(&candidates)?,
        assignment,
        lock,
        roms,
    })
}

/// The device through which KVM learns which groups the guest has: it makes the guest's cache control work for DMA that does not snoop.
fn kvm_vfio_device(vm: &VmFd) -> Result<Arc<DeviceFd>, Error> {
    let mut device = kvm_create_device {
        type_: kvm_device_type_KVM_DEV_TYPE_VFIO,
        fd: 0,
        flags: 0,
    };
    Ok(Arc::new(
        vm.create_device(&mut device).map_err(refused("make its VFIO device"))?,
    ))
}

/// Guest physical bits no wider than the processor and, with devices, the IOMMU reach. OVMF puts its 64-bit window at the top of them,
/// and a device must be able to reach every address another is given.
fn address_bits(wanted: Option<u8>, cpuid: &[kvm_cpuid_entry2], devices: Option<&DevicePlan>) -> Result<u8, Error> {
    let cpu = cpuid
        .iter()
        .find(|leaf| leaf.function == 0x8000_0008)
        .map_or(36, |leaf| {
            let (host, guest) = (leaf.eax as u8, (leaf.eax >> 16) as u8);
            if guest != 0 { guest.min(host) } else { host }
        });
    let mut limit = (cpu, "the processor has no more");
    if let Some(devices) = devices {
        let info = devices
            .assignment
            .container()
            .iommu_info()
            .map_err(system("ask the IOMMU for its limits"))?;
        let iommu = info
            .ranges
            .iter()
            .map(|range| *range.end())
            .max()
            .map_or(64, |last| 64 - last.leading_zeros());
        if iommu < u32::from(limit.0) {
            limit = (iommu as u8, "the IOMMU has no more");
        }
    }
    match wanted {
        Some(wanted) if wanted > limit.0 => Err(Error::PhysBits {
            wanted,
            available: limit.0,
            limit: limit.1,
        }),
        wanted => Ok(wanted.unwrap_or(limit.0)),
    }
}

/// Sizes of the BARs that want the 64-bit window, by root port.
fn wide_bars(devices: Option<&DevicePlan>) -> Vec<Vec<u64>> {
    let Some(devices) = devices else { return Vec::new() };
    let mut ports = BTreeMap::<u8, Vec<u64>>::new();
    for (function, place) in devices.assignment.functions().iter().zip(&devices.places) {
        ports.entry(place.port).or_default().extend(function.wide_bars());
    }
    ports.into_values().collect()
}

/// Makes the directory of the variable store.
pub(super) fn make_vars_directory(vars: &Path) -> Result<(), Error> {
    let Some(parent) = vars.parent().filter(|parent| !parent.as_os_str().is_empty()) else {
        return Ok(());
    };
    std::fs::create_dir_all(parent).map_err(|source: io::Error| Error::VarsDirectory {
        path: parent.to_owned(),
        source,
    })
}
