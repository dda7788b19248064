//! The settings of one virtual machine. The configuration file and the command line fill the same [`Config`]; it is
//! parsed, then checked into a [`RunConfig`], and only that is used to build anything.

mod error;
mod file;
mod validate;
mod value;

use std::path::PathBuf;

use serde::Deserialize;

use crate::kvm::feature::WithoutFeature;
pub use error::ConfigError;
pub(crate) use validate::MEMORY_DEFAULT;
pub use validate::{Boot, RunConfig};
pub use value::{BindMode, Device, Disk, FirmwareChoice, MemorySize, RtcBase, SerialTarget, Uuid, ValueError};

/// Settings as the user wrote them, each still optional.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Config {
    /// What the machine is called: in its thread and log names and in the place of its UEFI variables.
    pub name: Option<String>,
    /// Guest memory.
    pub memory: Option<MemorySize>,
    /// Number of vCPUs.
    pub cpus: Option<u32>,
    /// The OVMF image, or `auto` to find one.
    pub firmware: Option<FirmwareChoice>,
    /// The file that holds the UEFI variables.
    pub vars: Option<PathBuf>,
    /// Where the first serial port leads.
    pub serial: Option<SerialTarget>,
    /// Whether the guest is kept from seeing KVM. The machine decides when nothing is said.
    pub hide_kvm: Option<bool>,
    /// Whether CPUID says that there is a hypervisor at all.
    pub hypervisor_bit: Option<bool>,
    /// Disk images, as virtio-blk.
    #[serde(rename = "disk")]
    pub disks: Vec<Disk>,
    /// Host PCI functions given to the guest.
    #[serde(rename = "device")]
    pub devices: Vec<Device>,
    /// Whether they are taken from the host's drivers for the run.
    pub bind: Option<BindMode>,
    /// A Linux kernel to start without firmware.
    pub kernel: Option<PathBuf>,
    /// Its initial RAM disk.
    pub initrd: Option<PathBuf>,
    /// Its command line.
    pub cmdline: Option<String>,
    /// What the machine calls itself.
    pub identity: Identity,
    /// Properties of the processor.
    pub cpu: CpuConfig,
    /// What the real-time clock shows.
    pub rtc: Option<RtcBase>,
    /// Where the firmware's debug messages (port 0x402) are written.
    pub debug_log: Option<PathBuf>,
    /// The name taken from the configuration file's, used when `name` is not set.
    #[serde(skip)]
    pub fallback_name: Option<String>,
}

/// What the machine calls itself, in SMBIOS and in the headers of the ACPI tables.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Identity {
    /// SMBIOS system manufacturer.
    pub manufacturer: Option<String>,
    /// SMBIOS product name.
    pub product: Option<String>,
    /// SMBIOS system version.
    pub version: Option<String>,
    /// SMBIOS system serial number.
    pub serial: Option<String>,
    /// SMBIOS system UUID.
    pub uuid: Option<Uuid>,
    /// SMBIOS SKU number.
    pub sku: Option<String>,
    /// SMBIOS family.
    pub family: Option<String>,
    /// OEM id of the ACPI tables, 6 characters at most.
    pub oem_id: Option<String>,
    /// OEM table id of the ACPI tables, 8 characters at most.
    pub oem_table_id: Option<String>,
}

/// Properties of the processor the guest sees.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct CpuConfig {
    /// Width of guest physical addresses in bits; at most what CPU and IOMMU reach.
    pub phys_bits: Option<u8>,
    /// Features the guest is not to have, each written `-name`.
    pub features: Vec<WithoutFeature>,
}

impl Config {
    /// Lays `over` on top: its scalars replace these, its lists are added to these.
    #[must_use]
    pub fn overlaid_with(self, over: Self) -> Self {
        Self {
            name: over.name.or(self.name),
            memory: over.memory.or(self.memory),
            cpus: over.cpus.or(self.cpus),
            firmware: over.firmware.or(self.firmware),
            vars: over.vars.or(self.vars),
            serial: over.serial.or(self.serial),
            hide_kvm: over.hide_kvm.or(self.hide_kvm),
            hypervisor_bit: over.hypervisor_bit.or(self.hypervisor_bit),
            disks: joined(self.disks, over.disks),
            devices: joined(self.devices, over.devices),
            bind: over.bind.or(self.bind),
            kernel: over.kernel.or(self.kernel),
            initrd: over.initrd.or(self.initrd),
            cmdline: over.cmdline.or(self.cmdline),
            identity: self.identity.overlaid_with(over.identity),
            cpu: CpuConfig {
                phys_bits: over.cpu.phys_bits.or(self.cpu.phys_bits),
                features: joined(self.cpu.features, over.cpu.features),
            },
            rtc: over.rtc.or(self.rtc),
            debug_log: over.debug_log.or(self.debug_log),
            fallback_name: over.fallback_name.or(self.fallback_name),
        }
    }

    /// Every path in the settings, to be made absolute.
    fn paths_mut(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        let firmware = match &mut self.firmware {
            Some(FirmwareChoice::Path(path)) => Some(path),
            _ => None,
        };
        let serial = match &mut self.serial {
            Some(SerialTarget::File(path)) => Some(path),
            _ => None,
        };
        [
            firmware,
            serial,
            self.vars.as_mut(),
            self.kernel.as_mut(),
            self.initrd.as_mut(),
            self.debug_log.as_mut(),
        ]
        .into_iter()
        .flatten()
        .chain(self.disks.iter_mut().map(|disk| &mut disk.path))
        .chain(self.devices.iter_mut().filter_map(|device| device.romfile.as_mut()))
    }
}

impl Identity {
    fn overlaid_with(self, over: Self) -> Self {
        Self {
            manufacturer: over.manufacturer.or(self.manufacturer),
            product: over.product.or(self.product),
            version: over.version.or(self.version),
            serial: over.serial.or(self.serial),
            uuid: over.uuid.or(self.uuid),
            sku: over.sku.or(self.sku),
            family: over.family.or(self.family),
            oem_id: over.oem_id.or(self.oem_id),
            oem_table_id: over.oem_table_id.or(self.oem_table_id),
        }
    }

    /// Takes one `key=value` of the command line.
    ///
    /// # Errors
    /// When there is no such key or the value does not suit it.
    pub fn set(&mut self, assignment: &str) -> Result<(), ValueError> {
        let refused = |why: &'static str| ValueError::new("identity", assignment, why);
        let (key, value) = assignment
            .split_once('=')
            .ok_or_else(|| refused("write it as key=value"))?;
        let text = Some(value.to_owned());
        match key {
            "manufacturer" => self.manufacturer = text,
            "product" => self.product = text,
            "version" => self.version = text,
            "serial" => self.serial = text,
            "uuid" => self.uuid = Some(value.parse()?),
            "sku" => self.sku = text,
            "family" => self.family = text,
            "oem-id" => self.oem_id = text,
            "oem-table-id" => self.oem_table_id = text,
            _ => {
                return Err(refused(
                    "the keys are manufacturer, product, version, serial, uuid, sku, family, oem-id and oem-table-id",
                ));
            }
        }
        Ok(())
    }
}

fn joined<T>(mut first: Vec<T>, second: Vec<T>) -> Vec<T> {
    first.extend(second);
    first
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_replace_scalars_and_add_to_lists() {
        let file: Config = toml::from_str(
            "memory = \"4G\"\ncpus = 2\n[[disk]]\npath = \"a.img\"\n[identity]\nproduct = \"A\"\nsku = \"S\"\n",
        )
        .unwrap();
        let mut identity = Identity::default();
        identity.set("product=B").unwrap();
        let flags = Config {
            memory: Some("8G".parse().unwrap()),
            disks: vec!["path=b.img,readonly".parse().unwrap()],
            identity,
            ..Config::default()
        };
        let both = file.overlaid_with(flags);
        assert_eq!(both.memory.unwrap().bytes(), 8 << 30);
        assert_eq!(both.cpus, Some(2));
        assert_eq!(
            both.disks
                .iter()
                .map(|disk| disk.path.to_str().unwrap())
                .collect::<Vec<_>>(),
            ["a.img", "b.img"]
        );
        assert_eq!(
            (both.identity.product.as_deref(), both.identity.sku.as_deref()),
            (Some("B"), Some("S"))
        );
    }

    #[test]
    fn every_key_has_its_place_in_the_file() {
        let config: Config = toml::from_str(include_str!("../../../resources/examples/gaming.toml")).unwrap();
        assert_eq!(config.name.as_deref(), Some("gaming"));
        assert_eq!(config.disks.len(), 2);
        assert_eq!(config.devices.len(), 2);
        assert_eq!(config.hide_kvm, Some(true));
        assert_eq!(config.cpu.phys_bits, Some(39));
        assert_eq!(config.serial, Some(SerialTarget::File("serial.log".into())));
        assert_eq!(config.rtc, Some(RtcBase::Localtime));
        assert_eq!(config.bind, Some(BindMode::Auto));
        assert_eq!(config.identity.oem_id.as_deref(), Some("ACME"));
    }

    #[test]
    fn identity_refuses_what_it_does_not_know() {
        let mut identity = Identity::default();
        assert!(
            identity
                .set("colour=red")
                .unwrap_err()
                .to_string()
                .contains("manufacturer")
        );
        assert!(identity.set("uuid=12").is_err());
        assert!(identity.set("product").is_err());
    }
}
