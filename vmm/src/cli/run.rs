//! `tenon run`.

use std::path::PathBuf;

use clap::{ArgAction, Args, ValueEnum};
use serde::Serialize;
use vfio::host::bind::BindPlan;

use super::advice::Advice;
use super::bind::table;
use super::handover::{print, print_json};
use super::loan::{self, Loan};
use crate::config::{
    BindMode, Config, CpuConfig, Device, Disk, FirmwareChoice, Identity, MemorySize, RtcBase, RunConfig, SerialTarget,
};
use crate::exit::{ExitStatus, Failure};
use crate::kvm::feature::WithoutFeature;
use crate::machine::plan::Plan;
use crate::machine::summary::Summary;
use crate::machine::{self, Outcome};

const EXAMPLES: &str = "\
Examples:
  A GPU and its HDMI audio for a guest on OVMF:
    tenon run --name gaming --memory 8G --cpus 4 --disk path=win.img,bootindex=0 \\
              --device 0000:01:00.0 --device 0000:01:00.1 --serial none
  The same from a file, with more memory this time, and only shown:
    tenon run gaming.toml --memory 12G --dry-run
  The card taken from the host's driver for the run with all that belongs to it, and given back after:
    tenon run gaming.toml --device 01:00.0 --bind auto
  A kernel without firmware:
    tenon run --kernel /boot/vmlinuz --initrd initrd.img --cmdline console=ttyS0

Paths in CONFIG are relative to the directory it is in. Flags win over the file; --disk and --device add to it.";

/// The flags of `tenon run`. Each is also a setting of the configuration file.
#[derive(Debug, Args)]
#[command(after_help = format!("{EXAMPLES}\n\n{}", crate::exit::EXIT_STATUS_HELP))]
pub(super) struct RunArgs {
    /// Configuration file (TOML)
    config: Option<PathBuf>,
    /// Check everything, the host included, and print what would be built
    #[arg(long)]
    dry_run: bool,
    /// Print what would be built as JSON
    #[arg(long, requires = "dry_run")]
    json: bool,
    /// With --bind, take the display of the host's own console too: its screen goes dark until the run ends
    #[arg(long)]
    yes_this_is_my_display: bool,
    #[command(flatten)]
    settings: Settings,
}

#[derive(Debug, Args)]
struct Settings {
    /// What the machine is called [default: the configuration file's name, else `default`]
    #[arg(long)]
    name: Option<String>,
    /// Guest memory: a number with M or G, a multiple of 2M [default: 2G]
    #[arg(long, value_name = "SIZE")]
    memory: Option<MemorySize>,
    /// Number of vCPUs [default: 1]
    #[arg(long, value_name = "N")]
    cpus: Option<u32>,
    /// OVMF code image, or `auto` for the distribution's [default: auto]
    #[arg(long, value_name = "auto|PATH")]
    firmware: Option<FirmwareChoice>,
    /// UEFI variables, made on first use [default: $XDG_STATE_HOME/tenon/NAME/VARS.fd]
    #[arg(long, value_name = "FILE")]
    vars: Option<PathBuf>,
    /// Raw disk image or block device; may be repeated
    #[arg(long = "disk", value_name = "path=FILE[,readonly][,bootindex=N]")]
    disks: Vec<Disk>,
    /// Host PCI function for the guest; may be repeated
    #[arg(long = "device", value_name = "BDF[,romfile=FILE]")]
    devices: Vec<Device>,
    /// Take devices that are not on vfio-pci from their drivers for the run, and give them back after it; with `auto`
    /// their whole groups and cards, for the guest too [default: off]
    #[arg(long, value_name = "auto", num_args = 0..=1, default_missing_value = "named")]
    bind: Option<BindMode>,
    /// Where the serial port leads [default: stdio]
    #[arg(long, value_name = "stdio|file=PATH|none")]
    serial: Option<SerialTarget>,
    /// Keep the guest from seeing KVM [default: on with a display adapter assigned]
    #[arg(long, value_name = "on|off", hide_possible_values = true)]
    hide_kvm: Option<Switch>,
    /// Let CPUID say that there is a hypervisor [default: on]
    #[arg(long, value_name = "on|off", hide_possible_values = true)]
    hypervisor_bit: Option<Switch>,
    /// Linux kernel to start without firmware: bzImage or vmlinux with PVH entry
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,
    /// Initial RAM disk of the kernel
    #[arg(long, value_name = "FILE")]
    initrd: Option<PathBuf>,
    /// Command line of the kernel
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    cmdline: Option<String>,
    /// What the real-time clock shows [default: utc]
    #[arg(long, value_name = "utc|localtime")]
    rtc: Option<RtcBase>,
    /// Width of guest physical addresses [default: what CPU and IOMMU both reach]
    #[arg(long, value_name = "BITS")]
    phys_bits: Option<u8>,
    /// Processor features the guest is not to have, named as in /proc/cpuinfo: -avx512f,-kvm-pv-eoi; may be repeated
    #[arg(long, value_name = "-NAME,...", value_delimiter = ',', allow_hyphen_values = true)]
    cpu_features: Vec<WithoutFeature>,
    /// What the machine calls itself: manufacturer, product, version, serial, uuid, sku, family, oem-id,
    /// oem-table-id; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_identity, action = ArgAction::Append)]
    identity: Vec<Assignment>,
    /// File for the firmware's debug messages (port 0x402)
    #[arg(long, value_name = "FILE")]
    debug_log: Option<PathBuf>,
}

/// A setting that is on or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Switch {
    On,
    Off,
}

impl Switch {
    fn is_on(self) -> bool {
        self == Self::On
    }
}

/// One `KEY=VALUE` of the identity, known to be good.
#[derive(Clone, Debug)]
struct Assignment(String);

fn parse_identity(text: &str) -> Result<Assignment, crate::config::ValueError> {
    Identity::default().set(text).map(|()| Assignment(text.to_owned()))
}

impl Settings {
    fn into_config(self) -> Result<Config, crate::config::ValueError> {
        let mut identity = Identity::default();
        self.identity
            .iter()
            .try_for_each(|Assignment(text)| identity.set(text))?;
        Ok(Config {
            name: self.name,
            memory: self.memory,
            cpus: self.cpus,
            firmware: self.firmware,
            vars: self.vars,
            serial: self.serial,
            hide_kvm: self.hide_kvm.map(Switch::is_on),
            hypervisor_bit: self.hypervisor_bit.map(Switch::is_on),
            disks: self.disks,
            devices: self.devices,
            bind: self.bind,
            kernel: self.kernel,
            initrd: self.initrd,
            cmdline: self.cmdline,
            identity,
            cpu: CpuConfig {
                phys_bits: self.phys_bits,
                features: self.cpu_features,
            },
            rtc: self.rtc,
            debug_log: self.debug_log,
            fallback_name: None,
        })
    }
}

/// Runs a virtual machine until it powers off, or shows what would be built.
pub(super) fn run(args: RunArgs) -> Result<ExitStatus, Box<dyn Failure>> {
    let (dry_run, json, consent) = (args.dry_run, args.json, args.yes_this_is_my_display);
    let file = args.config.clone();
    let mut config = configuration(args)?.validate()?;
    let advice = Advice::new(file, &config);
    let bind = loan::plan(&mut config, consent)?;
    if dry_run {
        return show(config, bind, json)
            .map(|()| ExitStatus::Success)
            .map_err(|error| advice.on(error));
    }
    let Some(bind) = bind else {
        let plan = Plan::check(config).map_err(|error| advice.on(error.into()))?;
        return Ok(status(machine::run(plan, &|| false)?));
    };
    // What is wrong apart from the devices is better found before the host loses them.
    Plan::check(without_devices(&config)).map_err(|error| advice.on(error.into()))?;
    let loan = Loan::take(&bind.for_guest(), config.memory)?;
    let outcome = Plan::check(config).and_then(|plan| machine::run(plan, &|| loan.is_interrupted()));
    // The machine and its container are gone by now, and with them all that held the functions.
    let given = loan.give_back();
    let status = status(outcome?);
    given.map(|()| status).map_err(Into::into)
}

fn status(outcome: Outcome) -> ExitStatus {
    match outcome {
        Outcome::PoweredOff => ExitStatus::Success,
        Outcome::Stopped => ExitStatus::Stopped,
    }
}

fn without_devices(config: &RunConfig) -> RunConfig {
    RunConfig {
        devices: Vec::new(),
        ..config.clone()
    }
}

fn configuration(args: RunArgs) -> Result<Config, Box<dyn Failure>> {
    let flags = args.settings.into_config()?;
    match args.config {
        Some(path) => Ok(Config::from_file(&path)?.overlaid_with(flags)),
        None => Ok(flags),
    }
}

/// What `--dry-run --json` prints.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Shown {
    #[serde(flatten)]
    machine: Summary,
    /// What would be taken from the host first; the devices are missing above then.
    #[serde(skip_serializing_if = "Option::is_none")]
    bind: Option<BindPlan>,
}

fn show(config: RunConfig, bind: Option<BindPlan>, json: bool) -> Result<(), Box<dyn Failure>> {
    // Functions on other drivers cannot be opened, and so not be looked at.
    let config = if bind.is_some() {
        without_devices(&config)
    } else {
        config
    };
    let machine = Plan::check(config)?.summary();
    if json {
        return Ok(print_json(&Shown { machine, bind })?);
    }
    print(&machine.to_string())?;
    if let Some(bind) = &bind {
        print(&format!("to be taken for the run\n{}", table(bind)))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Only {
        #[command(flatten)]
        run: RunArgs,
    }

    fn parse(words: &[&str]) -> Result<RunArgs, clap::Error> {
        Only::try_parse_from([&["run"], words].concat()).map(|only| only.run)
    }

    #[test]
    fn every_flag_reaches_its_setting() {
        let words = "--name a --memory 8G --cpus 4 --firmware auto --vars V.fd --disk path=a.img,bootindex=1 \
                     --disk path=b.img,readonly --device 0000:01:00.0 --device 01:00.1 --bind auto --serial file=s.log \
                     --hide-kvm off --hypervisor-bit on --kernel k --initrd i --cmdline -s --rtc localtime \
                     --phys-bits 39 --identity product=P --identity oem-id=ACME --debug-log d.log";
        let words: Vec<&str> = words.split_whitespace().collect();
        let config = configuration(parse(&words).unwrap()).unwrap();
        assert_eq!(
            (config.name.as_deref(), config.cpus, config.cpu.phys_bits),
            (Some("a"), Some(4), Some(39))
        );
        assert_eq!(config.memory, Some(MemorySize::from_bytes(8 << 30)));
        assert_eq!(
            (config.disks.len(), config.disks[1].readonly, config.devices.len()),
            (2, true, 2)
        );
        assert_eq!((config.hide_kvm, config.hypervisor_bit), (Some(false), Some(true)));
        assert_eq!(
            (config.rtc, config.firmware),
            (Some(RtcBase::Localtime), Some(FirmwareChoice::Auto))
        );
        assert_eq!(config.serial, Some(SerialTarget::File("s.log".into())));
        assert_eq!((config.kernel, config.initrd), (Some("k".into()), Some("i".into())));
        assert_eq!(
            (config.vars, config.debug_log),
            (Some("V.fd".into()), Some("d.log".into()))
        );
        assert_eq!(config.bind, Some(BindMode::Auto));
        assert_eq!(config.identity.product.as_deref(), Some("P"));
        assert_eq!(config.identity.oem_id.as_deref(), Some("ACME"));
        assert_eq!(config.cmdline.as_deref(), Some("-s"));
    }

    #[test]
    fn flags_are_laid_over_the_file() {
        let directory = vmm_sys_util::tempdir::TempDir::new().unwrap();
        let file = directory.as_path().join("vm.toml");
        std::fs::write(&file, "memory = \"4G\"\ncpus = 2\nhide-kvm = true\n").unwrap();
        let words = [file.to_str().unwrap(), "--memory", "8G", "--dry-run", "--json"];
        let args = parse(&words).unwrap();
        assert!(args.dry_run && args.json);
        let config = configuration(args).unwrap();
        assert_eq!(
            (config.memory.unwrap().bytes(), config.cpus, config.hide_kvm),
            (8 << 30, Some(2), Some(true))
        );
    }

    #[test]
    fn bind_needs_no_value() {
        for (words, expected) in [
            (&["--bind"][..], Some(BindMode::Named)),
            (&["--bind=auto"], Some(BindMode::Auto)),
            (&["--bind", "off"], Some(BindMode::Off)),
            (&["--bind", "--device", "01:00.0"], Some(BindMode::Named)),
            (&[], None),
        ] {
            assert_eq!(
                configuration(parse(words).unwrap()).unwrap().bind,
                expected,
                "{words:?}"
            );
        }
    }

    #[test]
    fn bad_flags_say_what_they_take() {
        for (words, expected) in [
            (&["--hide-kvm", "yes"][..], "on"),
            (&["--device", "gpu"], "0000:01:00.0"),
            (&["--disk", "a.img"], "path=FILE"),
            (&["--json"], "--dry-run"),
            (&["--identity", "colour=red"], "manufacturer"),
            (&["--memory", "8"], "8G or 1536M"),
            (&["--bind", "vm.toml"], "CONFIG goes before"),
        ] {
            let message = parse(words).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }
}
