//! The mainboard: the chipset's devices, wired to their lines.

use std::io::{self, Write};
use std::sync::Arc;

use devices::chipset::debugcon::{DebugCon, DebugSink};
use devices::chipset::i8042::{I8042, I8042Mode};
use devices::chipset::lpc::LpcBridge;
use devices::chipset::pm::{PmConfig, PowerManagement};
use devices::chipset::reset::{Port92, ResetControl};
use devices::chipset::rtc::{Rtc, RtcOptions};
use devices::clock::{Clock, HostClock};
use devices::flash::{CodeFlash, VarsFlash};
use devices::fw_cfg::FwCfg;
use devices::pci::{ConfigPorts, Ecam, HostBridge, PciTopology};
use devices::serial::{COM1, COM1_IRQ, SerialPort};
use devices::{InterruptFabric, Region};
use firmware::RamSplit;

use super::address_space::Decoded;
use super::layout::{DIRECT_ECAM, RTC_GSI, SCI_GSI};

/// What of the board is the user's choice.
pub struct BoardOptions {
    /// There is no firmware: the board comes up as OVMF would have left it.
    pub preset: bool,
    /// Guest RAM, which CMOS tells.
    pub ram: RamSplit,
    /// What the real-time clock shows, in seconds east of UTC.
    pub utc_offset_s: i32,
    /// Where COM1 leads.
    pub serial: Box<dyn Write + Send>,
    /// Where the firmware's debug port leads.
    pub debug: DebugSink,
}

impl std::fmt::Debug for BoardOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BoardOptions")
            .field("preset", &self.preset)
            .field("ram", &self.ram)
            .finish_non_exhaustive()
    }
}

/// The chipset's devices.
#[derive(Debug)]
pub struct Board {
    /// Power management: timer, power button, SCI.
    pub pm: Arc<PowerManagement>,
    /// The function the PM block hangs on.
    pub lpc: Arc<LpcBridge>,
    /// The function that holds the ECAM base.
    pub host_bridge: Arc<HostBridge>,
    /// Clock and CMOS.
    pub rtc: Arc<Rtc>,
    /// The time the devices live in.
    pub clock: Arc<dyn Clock>,
    /// COM1.
    pub serial: Arc<SerialPort>,
    i8042: Arc<I8042>,
    port92: Arc<Port92>,
    reset_control: Arc<ResetControl>,
    debugcon: Arc<DebugCon>,
}

impl Board {
    /// Puts the devices on the board.
    ///
    /// # Errors
    /// The host has no event or thread left.
    pub fn new(options: BoardOptions, fabric: &dyn InterruptFabric) -> io::Result<Self> {
        let clock: Arc<dyn Clock> = Arc::<HostClock>::default();
        let pm_config = PmConfig {
            sci_enabled_at_reset: options.preset,
            ..PmConfig::default()
        };
        let pm = Arc::new(PowerManagement::new(
            pm_config,
            Arc::clone(&clock),
            fabric.line(SCI_GSI),
        ));
        let lpc = if options.preset {
            LpcBridge::preset(Arc::clone(&pm))
        } else {
            LpcBridge::new(Arc::clone(&pm))
        };
        let host_bridge = if options.preset {
            HostBridge::with_ecam_at(DIRECT_ECAM)
        } else {
            HostBridge::new()
        };
        let rtc_options = RtcOptions {
            ram_below_4g: options.ram.low,
            ram_above_4g: options.ram.high,
            utc_offset_s: options.utc_offset_s,
        };
        Ok(Self {
            rtc: Rtc::new(rtc_options, Arc::clone(&clock), fabric.line(RTC_GSI))?,
            serial: SerialPort::new(COM1, fabric.line(COM1_IRQ), options.serial)?,
            i8042: I8042::new(I8042Mode::default()),
            port92: Port92::new(),
            reset_control: ResetControl::new(),
            debugcon: DebugCon::new(options.debug)?,
            host_bridge: Arc::new(host_bridge),
            lpc: Arc::new(lpc),
            pm,
            clock,
        })
    }

    /// Joins the board with what is plugged into it.
    pub fn assemble(self, topology: Arc<PciTopology>, firmware: Option<FirmwareParts>) -> Chipset {
        let config_ports = ConfigPorts::new(Arc::clone(&topology), Arc::clone(&self.reset_control) as _);
        let ecam = Ecam::new(Arc::clone(&topology), Arc::clone(&self.host_bridge));
        Chipset {
            config_ports: Arc::new(config_ports),
            ecam: Arc::new(ecam),
            board: self,
            topology,
            firmware,
        }
    }
}

/// What only a machine with firmware has.
#[derive(Debug)]
pub struct FirmwareParts {
    /// The code, read-only.
    pub code: Arc<CodeFlash>,
    /// The variable store.
    pub vars: Arc<VarsFlash>,
    /// What the firmware is told.
    pub fw_cfg: Arc<FwCfg>,
}

/// Everything on the board and in its slots.
#[derive(Debug)]
pub struct Chipset {
    /// The devices of the board.
    pub board: Board,
    /// The PCI functions.
    pub topology: Arc<PciTopology>,
    config_ports: Arc<ConfigPorts>,
    ecam: Arc<Ecam>,
    firmware: Option<FirmwareParts>,
}

impl Chipset {
    /// What everything decodes now. Fixed devices come first, so that no BAR can take their addresses.
    pub fn decode(&self, decoded: &mut Decoded) {
        let regions: &mut Vec<Region> = &mut decoded.regions;
        if let Some(firmware) = &self.firmware {
            firmware.code.regions(regions);
            firmware.vars.regions(regions);
            firmware.fw_cfg.regions(regions);
        }
        let board = &self.board;
        board.rtc.regions(regions);
        board.serial.regions(regions);
        board.i8042.regions(regions);
        board.port92.regions(regions);
        board.debugcon.regions(regions);
        regions.push(self.config_ports.region());
        regions.extend(self.ecam.region());
        regions.extend(self.topology.regions());
        decoded.io_events.extend(self.topology.io_events());
    }

    /// Everything back to power-on, assigned devices included.
    pub fn reset(&self) {
        // Functions first: whatever still masters the bus is stopped before the rest of the board changes under it.
        self.topology.reset();
        self.config_ports.reset();
        if let Some(firmware) = &self.firmware {
            firmware.vars.reset();
            firmware.fw_cfg.reset();
        }
        let board = &self.board;
        board.rtc.reset();
        board.serial.reset();
        board.i8042.reset();
        board.port92.reset();
        board.reset_control.reset();
    }

    /// The variable store, to be flushed at the end.
    pub fn vars(&self) -> Option<&Arc<VarsFlash>> {
        self.firmware.as_ref().map(|firmware| &firmware.vars)
    }
}
