//! From a plan to a machine that is ready to run.

use std::fs::File;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use devices::chipset::debugcon::DebugSink;
use devices::flash::{CodeFlash, VarsFlash, VarsStore};
use devices::fw_cfg::{FileContent, FwCfg, FwCfgItems, key};
use devices::pci::{BarKind, PciTopology, RootPort, RootPortConfig, Slot};
use devices::virtio::pci::{Placement as DiskPlacement, VirtioPci};
use devices::{HostMapping, InterruptFabric};
use firmware::acpi::{self, intx_gsi};
use firmware::ovmf::LoadedFirmware;
use firmware::{AddressRange, e820, fw_cfg_files, mmio64};
use indicatif::ProgressBar;
use vfio::{DmaRange, GuestDma, Placement, RomSource, VfioPciDevice};

use super::address_space::{AddressSpace, Decoded, Source};
use super::board::{Board, BoardOptions, Chipset, FirmwareParts};
use super::control::Control;
use super::error::{Error, system};
use super::identity;
use super::layout::{CHIPSET, FIRST_DISK, HOST_BRIDGE, LPC};
use super::plan::{BootPlan, DevicePlan, Plan, make_vars_directory, vars_options};
use super::power_on::PowerOn;
use super::ram::GuestRam;
use super::tables::Description;
use super::vcpus::Vcpus;
use crate::boot::DirectKernel;
use crate::config::{RtcBase, SerialTarget};
use crate::kvm::cpuid::{CpuidPolicy, guest_cpuid};
use crate::kvm::irq::KvmFabric;
use crate::kvm::memory::Slots;
use crate::kvm::vcpu::{Vcpu, has_tsc_deadline};

/// A machine, parked at power-on.
///
/// Fields are dropped in this order, the reverse of construction: vCPUs first, so that nothing runs in the guest any more; then what
/// the guest reaches; assigned devices before the memory they may reach.
#[derive(Debug)]
pub struct Machine {
    /// The vCPU threads.
    pub vcpus: Vcpus,
    /// Who runs.
    pub control: Arc<Control>,
    /// What a reset goes back to.
    pub power_on: PowerOn,
    /// What the guest reaches.
    pub space: Arc<AddressSpace>,
    /// The board.
    pub chipset: Arc<Chipset>,
    /// Assigned devices.
    pub devices: Vec<Arc<VfioPciDevice>>,
    /// Guest RAM as they reach it.
    pub dma: Option<GuestDma>,
}

/// Builds what was planned.
///
/// # Errors
/// The host cannot give what it takes. What was made is unmade, and devices are given back.
pub fn build(plan: Plan) -> Result<Machine, Error> {
    let ram = GuestRam::allocate(&plan.ram, plan.devices.is_some())?;
    let concrete = KvmFabric::new(Arc::clone(&plan.vm)).map_err(system("route the legacy interrupts"))?;
    let fabric: Arc<dyn InterruptFabric> = Arc::new(concrete);
    let board = Board::new(board_options(&plan)?, fabric.as_ref()).map_err(system("make the board's devices"))?;
    let vcpus = make_vcpus(&plan)?;

    let mut slots = Populated::new(&board)?;
    slots.add_disks(&plan, &ram, fabric.as_ref())?;
    let (devices, dma) = match plan.devices {
        Some(devices) => slots.add_devices(devices, &ram, &fabric)?,
        None => (Vec::new(), None),
    };
    let Populated { topology, ports } = slots;
    let topology = Arc::new(topology);
    let description = Description {
        cpus: plan.config.cpus,
        ram: plan.ram,
        oem: identity::oem_ids(&plan.config.identity),
        flash: match &plan.boot {
            BootPlan::Firmware { loaded, .. } => Some(loaded.layout.flash()),
            BootPlan::Kernel(_) => None,
        },
        predicted: predicted_windows(plan.mmio64, &plan.ram, plan.phys_bits),
        topology: Arc::clone(&topology),
        host_bridge: Arc::clone(&board.host_bridge),
        lpc: Arc::clone(&board.lpc),
        ports,
    };
    let direct: Option<(DirectKernel, Description)>;
    let firmware = match plan.boot {
        BootPlan::Firmware { image, loaded, vars } => {
            direct = None;
            make_vars_directory(&vars)?;
            let store = VarsStore::open(&vars_options(&vars, &image, &loaded))?;
            let items = firmware_items(&plan.config, &plan.cpuid, &plan.ram, plan.mmio64, description)?;
            let fw_cfg = FwCfg::new(items, Arc::new(ram.memory.clone()));
            Some(firmware_parts(&loaded, store, fw_cfg)?)
        }
        BootPlan::Kernel(kernel) => {
            direct = Some((kernel, description));
            None
        }
    };
    let chipset = Arc::new(board.assemble(topology, firmware));
    let kvm_slots = Slots::with_ram(Arc::clone(&plan.vm), &ram.memory).map_err(|source| Error::KvmCall {
        what: "the guest's memory",
        source,
    })?;
    let space = address_space(&plan.vm, kvm_slots, &chipset, &ram);
    let power_on = PowerOn::new(&plan.kvm, plan.vm, &vcpus, direct, ram)?;
    let control = Arc::new(Control::new().map_err(system("make an event"))?);
    let vcpus = Vcpus::start(vcpus, &space, Arc::clone(&control)).map_err(system("start the vCPU threads"))?;
    Ok(Machine {
        vcpus,
        control,
        power_on,
        space,
        chipset,
        devices,
        dma,
    })
}

fn board_options(plan: &Plan) -> Result<BoardOptions, Error> {
    let config = &plan.config;
    let serial: Box<dyn Write + Send> = match &config.serial {
        SerialTarget::Stdio => Box::new(io::stdout()),
        SerialTarget::File(path) => Box::new(create(path)?),
        SerialTarget::None => Box::new(io::sink()),
    };
    let debug = match &config.debug_log {
        Some(path) => DebugSink::Writer(Box::new(create(path)?)),
        None => DebugSink::Log,
    };
    let utc_offset_s = match config.rtc {
        RtcBase::Utc => 0,
        RtcBase::Localtime => identity::local_offset_s(),
    };
    Ok(BoardOptions {
        preset: matches!(plan.boot, BootPlan::Kernel(_)),
        ram: plan.ram,
        utc_offset_s,
        serial,
        debug,
    })
}

fn create(path: &std::path::Path) -> Result<File, Error> {
    File::create(path).map_err(|source| Error::Output {
        path: path.to_owned(),
        source,
    })
}

fn make_vcpus(plan: &Plan) -> Result<Vec<Vcpu>, Error> {
    let cpus = u32::from(plan.config.cpus);
    let policy = CpuidPolicy {
        cpus,
        hide_kvm: plan.hide_kvm,
        hypervisor_bit: plan.config.hypervisor_bit,
        phys_bits: plan.phys_bits,
        tsc_deadline: has_tsc_deadline(&plan.kvm),
        invariant_tsc: identity::host_tsc_is_reliable(),
        tsc_khz: None,
        without: plan.config.cpu_features.clone(),
    };
    (0..cpus)
        .map(|index| {
            let cpuid = guest_cpuid(&plan.cpuid, &policy, index);
            Ok(Vcpu::new(&plan.vm, index, &cpuid, plan.hide_kvm)?)
        })
        .collect()
}

/// The root bus while it is being filled.
struct Populated {
    topology: PciTopology,
    ports: Vec<Arc<RootPort>>,
}

impl Populated {
    fn new(board: &Board) -> Result<Self, Error> {
        let mut topology = PciTopology::new();
        topology.add(HOST_BRIDGE, Arc::clone(&board.host_bridge) as _)?;
        topology.add(LPC, Arc::clone(&board.lpc) as _)?;
        Ok(Self {
            topology,
            ports: Vec::new(),
        })
    }

    fn add_disks(&mut self, plan: &Plan, ram: &GuestRam, fabric: &dyn InterruptFabric) -> Result<(), Error> {
        for (device, block) in (FIRST_DISK..).zip(&plan.disks) {
            let placement = DiskPlacement {
                requester: u16::from(device) << 3,
                pin: 1,
                line: fabric.line(intx_gsi(device, 0)),
                multifunction: false,
            };
            let function = VirtioPci::new(Arc::clone(block) as _, ram.memory.clone(), fabric, placement)
                .map_err(system("make a disk's interrupts"))?;
            self.topology.add(Slot::new(device, 0), Arc::new(function))?;
        }
        Ok(())
    }

    /// Maps guest RAM for the devices, then puts them behind their ports and resets them. In that order: a device that still runs on
    /// what the host's driver left in it finds either its old memory gone or itself reset, never the guest half built.
    fn add_devices(
        &mut self,
        mut plan: DevicePlan,
        ram: &GuestRam,
        fabric: &Arc<dyn InterruptFabric>,
    ) -> Result<(Vec<Arc<VfioPciDevice>>, Option<GuestDma>), Error> {
        let io_ports = ports_with_io_bars(&plan);
        let placements = placements(&mut plan);
        let regions: Vec<_> = ram
            .ranges
            .iter()
            .map(|range| DmaRange {
                gpa: range.gpa,
                mapping: Arc::clone(&range.mapping),
            })
            .collect();
        let waiting = locking_memory(ram);
        let dma = GuestDma::map(Arc::clone(plan.assignment.container()) as _, &regions, &plan.lock)?;
        waiting.finish_and_clear();
        let devices = plan.assignment.fit(placements, fabric)?;
        for (device, place) in devices.iter().zip(&plan.places) {
            let port = Slot::new(place.port, 0);
            if !self.topology_has_port(place.port) {
                let config = RootPortConfig {
                    port: place.port,
                    io_window: io_ports.contains(&place.port),
                    ..RootPortConfig::default()
                };
                let root_port = Arc::new(RootPort::new(&config));
                self.topology.add_port(port, Arc::clone(&root_port))?;
                self.ports.push(root_port);
            }
            self.topology
                .add_behind(port, place.function, Arc::clone(device) as _)?;
        }
        Ok((devices, Some(dma)))
    }

    fn topology_has_port(&self, device: u8) -> bool {
        // Ports are made in the order of their numbers, the first of which is 1.
        usize::from(device) <= self.ports.len()
    }
}

/// Something to look at while the kernel zeroes and locks guest memory, which takes seconds for many GiB. Nothing is shown where there
/// is no terminal.
fn locking_memory(ram: &GuestRam) -> ProgressBar {
    let size: usize = ram.ranges.iter().map(|range| range.mapping.len()).sum();
    let spinner =
        ProgressBar::new_spinner().with_message(format!("locking {} MiB of memory for the devices", size >> 20));
    spinner.enable_steady_tick(Duration::from_millis(100));
    spinner
}

fn ports_with_io_bars(plan: &DevicePlan) -> Vec<u8> {
    let has_io = |function: &vfio::OpenFunction| function.bars.iter().flatten().any(|bar| bar.kind == BarKind::Io);
    plan.assignment
        .functions()
        .iter()
        .zip(&plan.places)
        .filter(|(f, _)| has_io(f))
        .map(|(_, place)| place.port)
        .collect()
}

fn placements(plan: &mut DevicePlan) -> Vec<Placement> {
    let functions = plan.assignment.functions().iter().zip(&plan.places);
    functions
        .map(|(function, place)| {
            let rom = plan.roms.remove(&function.host.bdf);
            // Behind a bridge pin n of device d reaches the port's pin (n + d) mod 4 (PCIe 6.0 §2.2.8.1); d is 0 here.
            let pin = function.layout.interrupt_pin.checked_sub(1);
            Placement {
                devfn: place.function,
                multifunction: place.multifunction,
                intx_gsi: pin.map(|pin| intx_gsi(place.port, pin)),
                rom: rom.map_or(RomSource::Device, RomSource::File),
            }
        })
        .collect()
}

fn predicted_windows(size: u64, ram: &firmware::RamSplit, bits: u8) -> Vec<AddressRange> {
    let map = e820::for_ovmf(ram);
    let mut windows: Vec<_> = mmio64::classic(size, ram.top()).into_iter().collect();
    windows.extend(
        [3, 2]
            .into_iter()
            .filter_map(|shift| mmio64::dynamic(size, ram.top(), bits, shift, &map)),
    );
    windows
}

fn firmware_items(
    config: &crate::config::RunConfig,
    cpuid: &[kvm_bindings::kvm_cpuid_entry2],
    ram: &firmware::RamSplit,
    mmio64: u64,
    description: Description,
) -> Result<FwCfgItems, Error> {
    let mut items = FwCfgItems::new();
    items.add_u16(key::NB_CPUS, u16::from(config.cpus))?;
    let fixed = |bytes: Vec<u8>| FileContent::Fixed(bytes);
    items.add_file(fw_cfg_files::E820, fixed(e820::to_bytes(&e820::for_ovmf(ram))))?;
    items.add_file(fw_cfg_files::PCI_MMIO64_MB, fixed(fw_cfg_files::pci_mmio64_mb(mmio64)))?;
    let smbios = identity::smbios(&config.identity, config.cpus, cpuid, ram)?;
    items.add_file(firmware::smbios::ANCHOR_FILE, fixed(smbios.anchor))?;
    items.add_file(firmware::smbios::TABLES_FILE, fixed(smbios.tables))?;
    if let Some(order) = identity::boot_order(&config.disks) {
        items.add_file(firmware::bootorder::FILE, fixed(order))?;
    }
    let sizes = [
        (acpi::TABLES_FILE, acpi::TABLES_SIZE),
        (acpi::RSDP_FILE, acpi::RSDP_SIZE),
        (acpi::LOADER_FILE, acpi::LOADER_SIZE),
    ];
    items.add_lazy(&sizes, Box::new(move || description.files()))?;
    Ok(items)
}

fn firmware_parts(loaded: &LoadedFirmware, store: VarsStore, fw_cfg: Arc<FwCfg>) -> Result<FirmwareParts, Error> {
    let code = HostMapping::anonymous(loaded.code.len()).map_err(system("map the firmware"))?;
    code.write(0, &loaded.code);
    Ok(FirmwareParts {
        code: CodeFlash::new(loaded.layout.code.base, Arc::new(code)).map_err(system("map the firmware"))?,
        vars: VarsFlash::new(loaded.layout.vars.base, store)?,
        fw_cfg,
    })
}

fn address_space(
    vm: &Arc<kvm_ioctls::VmFd>,
    slots: Slots,
    chipset: &Arc<Chipset>,
    ram: &GuestRam,
) -> Arc<AddressSpace> {
    let mut reserved: Vec<_> = ram
        .ranges
        .iter()
        .map(|range| (range.gpa, range.mapping.len() as u64))
        .collect();
    reserved.push((CHIPSET.base, CHIPSET.size));
    let decoder = Arc::clone(chipset);
    let sources: Vec<Source> = vec![Box::new(move |decoded: &mut Decoded| decoder.decode(decoded))];
    Arc::new(AddressSpace::new(Arc::clone(vm), slots, sources, reserved))
}
