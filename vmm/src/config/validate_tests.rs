//! Tests of the checks, on small files in a directory of their own.

use vmm_sys_util::tempdir::TempDir;

use super::*;

struct Files(TempDir);

impl Files {
    fn new(names: &[&str]) -> Self {
        let files = Self(TempDir::new().unwrap());
        for name in names {
            fs::write(files.path(name), b"x").unwrap();
        }
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.as_path().join(name)
    }

    /// Reads a configuration in which `@` stands for the directory.
    fn check(&self, text: &str) -> Result<RunConfig, ConfigError> {
        let text = text.replace('@', self.0.as_path().to_str().unwrap());
        toml::from_str::<Config>(&text)
            .unwrap()
            .validate_with(Some("/state".into()))
    }

    fn refusal(&self, text: &str) -> String {
        self.check(text).unwrap_err().to_string()
    }
}

#[test]
fn nothing_said_means_the_defaults() {
    let config = Files::new(&[]).check("").unwrap();
    assert_eq!(
        (config.memory, config.cpus, config.hypervisor_bit, config.hide_kvm),
        (2 << 30, 1, true, None)
    );
    assert_eq!(config.serial, SerialTarget::Stdio);
    let vars = "/state/tenon/default/VARS.fd".into();
    assert_eq!(
        config.boot,
        Boot::Firmware {
            image: FirmwareChoice::Auto,
            vars
        }
    );
    assert!(matches!(
        Config::default().validate_with(None),
        Err(ConfigError::NoStateHome)
    ));
}

#[test]
fn the_name_comes_from_the_file_if_not_said() {
    let config = Config {
        fallback_name: Some("gaming".into()),
        ..Config::default()
    };
    assert_eq!(config.clone().validate_with(Some("/s".into())).unwrap().name, "gaming");
    let named = Config {
        name: Some("other".into()),
        ..config
    };
    assert_eq!(named.validate_with(Some("/s".into())).unwrap().name, "other");
    let files = Files::new(&[]);
    for name in ["", "..", "a/b", ".hidden", "zwei Worte"] {
        assert!(
            files.refusal(&format!("name = \"{name}\"")).starts_with("`name` is"),
            "{name}"
        );
    }
}

#[test]
fn numbers_stay_in_their_ranges() {
    let files = Files::new(&[]);
    assert_eq!(
        files.refusal("memory = \"64M\""),
        "`memory` is 64 MiB; give at least 128 MiB"
    );
    assert_eq!(
        files.refusal("memory = \"1025M\""),
        "`memory` is 1025 MiB; make it a multiple of 2 MiB"
    );
    assert_eq!(files.refusal("cpus = 0"), "`cpus` is 0; choose from 1 to 255");
    assert_eq!(files.refusal("cpus = 256"), "`cpus` is 256; choose from 1 to 255");
    assert_eq!(files.check("cpus = 255").unwrap().cpus, 255);
    assert_eq!(
        files.refusal("[cpu]\nphys-bits = 32"),
        "`phys-bits` is 32; choose from 36 to 52"
    );
}

#[test]
fn kernel_and_firmware_exclude_each_other() {
    let files = Files::new(&["vmlinuz", "initrd", "code.fd", "disk.img"]);
    let kernel = "kernel = \"@/vmlinuz\"\n";
    assert!(
        files
            .refusal(&format!("{kernel}firmware = \"auto\""))
            .contains("`firmware` belongs to firmware")
    );
    assert!(files.refusal(&format!("{kernel}vars = \"@/v.fd\"")).contains("`vars`"));
    assert!(
        files
            .refusal("initrd = \"@/initrd\"")
            .starts_with("`initrd` is only used with `kernel`")
    );
    assert!(
        files
            .refusal("cmdline = \"quiet\"")
            .starts_with("`cmdline` is only used with `kernel`")
    );
    let order = format!("{kernel}[[disk]]\npath = \"@/disk.img\"\nbootindex = 1");
    assert!(files.refusal(&order).contains("`bootindex`"));
    let config = files.check(&format!("{kernel}initrd = \"@/initrd\"")).unwrap();
    let expected = Boot::Kernel {
        kernel: files.path("vmlinuz"),
        initrd: Some(files.path("initrd")),
        cmdline: String::new(),
    };
    assert_eq!(config.boot, expected);
}

#[test]
fn files_must_be_there() {
    let files = Files::new(&["vmlinuz"]);
    for (text, key) in [
        ("[[disk]]\npath = \"@/none.img\"", "disk"),
        ("kernel = \"@/none.img\"", "kernel"),
        ("kernel = \"@/vmlinuz\"\ninitrd = \"@/none.img\"", "initrd"),
        ("firmware = \"@/none.img\"", "firmware"),
        ("[[device]]\naddress = \"01:00.0\"\nromfile = \"@/none.img\"", "romfile"),
    ] {
        let message = files.refusal(text);
        let path = files.path("none.img");
        assert!(message.starts_with(&format!("`{key}` {}", path.display())), "{message}");
    }
    assert!(
        files
            .refusal("[[disk]]\npath = \"@\"")
            .contains("is a directory; name a file")
    );
    assert!(files.refusal("kernel = \"/dev/null\"").contains("is a special file"));
}

#[test]
fn devices_and_disks_are_given_once() {
    let files = Files::new(&["a.img", "b.img"]);
    let twice = "[[device]]\naddress = \"0000:01:00.0\"\n[[device]]\naddress = \"1:0.0\"";
    assert_eq!(files.refusal(twice), "`device` 0000:01:00.0 is given twice; remove one");
    fs::hard_link(files.path("a.img"), files.path("link.img")).unwrap();
    let same = files.refusal("[[disk]]\npath = \"@/a.img\"\n[[disk]]\npath = \"@/link.img\"");
    assert!(same.contains("link.img is the same file as `disk`"), "{same}");
    assert!(
        files
            .refusal("vars = \"@/a.img\"\n[[disk]]\npath = \"@/a.img\"")
            .contains("`vars`")
    );
    assert!(
        files
            .refusal("vars = \"@/new\"\ndebug-log = \"@/new\"")
            .contains("`debug-log`")
    );
    assert!(
        files
            .check("serial = \"file=/dev/null\"\ndebug-log = \"/dev/null\"")
            .is_ok()
    );
    let clash = "[[disk]]\npath = \"@/a.img\"\nbootindex = 1\n[[disk]]\npath = \"@/b.img\"\nbootindex = 1";
    assert!(files.refusal(clash).starts_with("`bootindex` 1 is given to"));
}

#[test]
fn identity_fits_its_fields() {
    let files = Files::new(&[]);
    assert!(files.refusal("[identity]\noem-id = \"TOOLONG\"").contains("1 to 6"));
    assert!(files.refusal("[identity]\noem-table-id = \"\"").contains("1 to 8"));
    assert!(
        files
            .refusal("[identity]\nproduct = \"Gerät\"")
            .contains("printable ASCII")
    );
    assert!(files.check("[identity]\noem-id = \"ACME\"\nproduct = \"PC 1\"").is_ok());
}

#[test]
fn a_checked_configuration_is_shown_as_json() {
    let files = Files::new(&["a.img"]);
    let config = files
        .check("[[disk]]\npath = \"@/a.img\"\n[[device]]\naddress = \"1:0.0\"")
        .unwrap();
    let json = serde_json::to_value(&config).unwrap();
    assert_eq!(json["devices"][0]["address"], "0000:01:00.0");
    assert_eq!(json["disks"][0]["readonly"], false);
    assert_eq!(json["boot"]["firmware"]["image"], "auto");
}
