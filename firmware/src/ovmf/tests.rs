use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

const FFS: [u8; 16] = [
    0x78, 0xe5, 0x8c, 0x8c, 0x3d, 0x8a, 0x1c, 0x4f, 0x99, 0x35, 0x89, 0x61, 0x85, 0xc3, 0x2d, 0xd3,
];
const NV: [u8; 16] = [
    0x8d, 0x2b, 0xf1, 0xff, 0x96, 0x76, 0x8b, 0x4c, 0xa9, 0x85, 0x27, 0x47, 0x07, 0x5b, 0x4f, 0x50,
];
/// What Debian's OVMF_VARS_4M.fd has after the volume header.
const STORE: [u8; 24] = [
    0x78, 0x2c, 0xf3, 0xaa, 0x7b, 0x94, 0x9a, 0x43, 0xa1, 0x80, 0x2e, 0x14, 0x4e, 0xc3, 0x77, 0x92, 0xb8, 0xff, 0x03,
    0, 0x5a, 0xfe, 0, 0,
];

/// A folder of its own for a test, removed afterwards.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "tenon-ovmf-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }

    /// A descriptor in the folder's /usr or /etc, for the image `code` with its template.
    fn descriptor(&self, file: &str, code: &str, change: impl Fn(&mut serde_json::Value)) {
        let mut json = serde_json::json!({
            "description": format!("image {code}"),
            "interface-types": ["uefi"],
            "mapping": {
                "device": "flash",
                "executable": { "filename": format!("/fw/{code}"), "format": "raw" },
                "nvram-template": { "filename": "/fw/VARS.fd", "format": "raw" },
            },
            "targets": [{ "architecture": "x86_64", "machines": ["pc-i440fx-*", "pc-q35-*"] }],
            "features": ["acpi-s3"],
            "tags": [],
        });
        change(&mut json);
        self.write(&format!("{file}.json"), json.to_string());
        if !self.0.join("fw").join(code).exists() {
            self.write(&format!("fw/{code}"), [0; 4096]);
        }
        self.write("fw/VARS.fd", [0; 4096]);
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn volume(kind: [u8; 16], size: usize) -> Vec<u8> {
    let mut bytes = vec![0xff; size];
    bytes[..0x48].fill(0);
    bytes[0x10..0x20].copy_from_slice(&kind);
    bytes[0x20..0x28].copy_from_slice(&(size as u64).to_le_bytes());
    bytes[0x28..0x30].copy_from_slice(&[0x5f, 0x46, 0x56, 0x48, 0xff, 0xfe, 4, 0]);
    bytes[0x30] = 0x48;
    bytes[0x37] = 2;
    bytes[0x38..0x3c].copy_from_slice(&(size as u32 / 4096).to_le_bytes());
    bytes[0x3d] = 0x10;
    let sum = bytes[..0x48]
        .chunks(2)
        .fold(0u16, |sum, w| sum.wrapping_sub(u16::from_le_bytes([w[0], w[1]])));
    bytes[0x32..0x34].copy_from_slice(&sum.to_le_bytes());
    bytes
}

fn vars(size: usize) -> Vec<u8> {
    let mut bytes = volume(NV, size);
    bytes[0x48..0x60].copy_from_slice(&STORE);
    // The 4 MiB layout's store does not fit the smaller flash.
    bytes[0x58..0x5c].copy_from_slice(&(size as u32 / 2).to_le_bytes());
    bytes
}

/// Two volumes and a reset vector, as OVMF_CODE is.
fn code(size: usize) -> Vec<u8> {
    let mut bytes = volume(FFS, size - 0x3_4000);
    bytes.extend(volume(FFS, 0x3_4000));
    bytes[size - 16..].copy_from_slice(&[0x90, 0x90, 0xe9, 0x5b, 0xff, 0x90, 0x90, 0x90, 0, 0, 0, 0, 0, 0, 0, 0]);
    bytes
}

#[test]
fn the_checksum_is_that_of_a_real_header() {
    // Debian's OVMF_VARS_4M.fd has 0xB8AF at 0x32.
    assert_eq!(vars(0x8_4000)[0x32..0x34], [0xaf, 0xb8]);
}

#[test]
fn a_pair_is_loaded_and_placed_below_4_gib() {
    for (code_size, vars_size, vars_gpa) in [(0x37_c000, 0x8_4000, 0xffc0_0000), (0x1e_0000, 0x2_0000, 0xffe0_0000)] {
        let folder = Folder::new();
        let path = folder.write("OVMF_CODE_X.fd", code(code_size));
        let template = folder.write("OVMF_VARS_X.fd", vars(vars_size));
        let image = FirmwareImage::named(&path, None).unwrap();
        assert_eq!(image.vars_template, Some(template));
        let loaded = image.load().unwrap();
        assert_eq!((loaded.code.len(), loaded.vars_template.len()), (code_size, vars_size));
        assert_eq!(loaded.layout.vars, AddressRange::new(vars_gpa, vars_size as u64));
        assert_eq!(loaded.layout.code.base, vars_gpa + vars_size as u64);
        assert_eq!(loaded.layout.flash().end(), Some(1 << 32));
    }
}

#[test]
fn a_unified_image_is_taken_apart() {
    let folder = Folder::new();
    let path = folder.write("OVMF.fd", [vars(0x8_4000), code(0x37_c000)].concat());
    let image = FirmwareImage::named(&path, None).unwrap();
    assert_eq!(image.vars_template, None);
    let loaded = image.load().unwrap();
    assert!(loaded.vars_template == vars(0x8_4000) && loaded.code == code(0x37_c000));
    assert_eq!(loaded.layout.vars.base, 0xffc0_0000);
}

#[test]
fn broken_code_is_refused_with_its_path_and_the_reason() {
    let good = code(0x37_c000);
    let mut blank_end = good.clone();
    let end = blank_end.len() - 16;
    blank_end[end..].fill(0xff);
    let mut bad_sum = good.clone();
    bad_sum[0x21] ^= 1;
    let cases = [
        (
            good[..0x10_0000].to_vec(),
            "truncated: 1048576 bytes, but its firmware volumes reach to byte 3440640",
        ),
        (good[..0x37_b000].to_vec(), "reach to byte 3653632"),
        (good[..0x34_8000].to_vec(), "reset vector"),
        ([&good[..], &[0; 4096]].concat(), "at byte 0x37c000"),
        (blank_end, "reset vector"),
        (bad_sum, "checksum"),
        (b"QFI\xfb rest".to_vec(), "qemu-img convert"),
        (b"hello".to_vec(), "no firmware volume"),
        (Vec::new(), "empty"),
        (vec![0; 9 << 20], "8 MiB"),
        (vars(0x8_4000), "variable store (VARS)"),
    ];
    let folder = Folder::new();
    folder.write("OVMF_VARS_4M.fd", vars(0x8_4000));
    for (bytes, expected) in cases {
        let path = folder.write("OVMF_CODE_4M.fd", bytes);
        let error = FirmwareImage::named(&path, None)
            .and_then(|image| image.load())
            .unwrap_err()
            .to_string();
        assert!(
            error.contains(expected) && error.contains("OVMF_CODE_4M.fd"),
            "{expected}: {error}"
        );
    }
    let error = FirmwareImage::named(&folder.0.join("none.fd"), None)
        .unwrap_err()
        .to_string();
    assert!(error.contains("none.fd"), "{error}");
}

#[test]
fn every_cut_of_an_image_is_noticed() {
    let whole = code(0x8_0000);
    for size in (0..whole.len())
        .step_by(0x1000)
        .chain([whole.len() - 1, whole.len() - 16])
    {
        assert!(
            volume::check_image(Path::new("x"), &whole[..size]).is_err(),
            "{size:#x}"
        );
    }
    volume::check_image(Path::new("x"), &whole).unwrap();
}

#[test]
fn a_variable_store_of_another_size_or_shape_is_refused() {
    let image = FirmwareImage {
        code: "CODE.fd".into(),
        vars_template: None,
    };
    let layout = FlashLayout::for_code(0x37_c000);
    let check = |bytes: &[u8]| image.check_vars(Path::new("my.fd"), bytes, &layout).unwrap_err();
    let error = check(&vars(0x2_0000));
    assert!(
        matches!(
            error,
            OvmfError::VarsSize {
                size: 0x2_0000,
                wanted: 0x8_4000,
                ..
            }
        ),
        "{error}"
    );
    assert!(error.to_string().contains("540672"), "{error}");
    let mut broken = vars(0x8_4000);
    broken[0x49] = 0;
    assert!(matches!(check(&broken), OvmfError::VarsHeader { .. }));
    assert!(matches!(check(&vec![0xff; 0x8_4000]), OvmfError::VarsHeader { .. }));
    image.check_vars(Path::new("my.fd"), &vars(0x8_4000), &layout).unwrap();
}

#[test]
fn code_without_a_template_says_where_it_looked() {
    let folder = Folder::new();
    let path = folder.write("OVMF_CODE_4M.secboot.fd", code(0x37_c000));
    let error = FirmwareImage::named(&path, None).unwrap_err().to_string();
    assert!(
        error.contains("OVMF_VARS_4M.secboot.fd") && error.contains("OVMF_VARS_4M.fd"),
        "{error}"
    );
    let template = folder.write("OVMF_VARS_4M.fd", []);
    assert_eq!(FirmwareImage::named(&path, None).unwrap().vars_template, Some(template));
    let nameless = folder.write("mine.fd", code(0x37_c000));
    let error = FirmwareImage::named(&nameless, None).unwrap_err().to_string();
    assert!(error.contains("mine.fd") && error.contains("beside it"), "{error}");

    // A machine that has run already needs no template, and one that lies there is still preferred.
    let store = folder.write("my-store.fd", vars(0x8_4000));
    let image = FirmwareImage::named(&nameless, Some(&store)).unwrap();
    assert_eq!(image.load().unwrap().layout.vars.size, 0x8_4000);
    let other = FirmwareImage::named(&path, Some(&store)).unwrap();
    assert_eq!(other.vars_template, Some(folder.0.join("OVMF_VARS_4M.fd")));
}

#[test]
fn a_damaged_image_is_called_that_though_it_lacks_a_template_too() {
    let folder = Folder::new();
    let path = folder.write("copy.fd", &code(0x37_c000)[..0x10_0000]);
    let error = FirmwareImage::named(&path, None).unwrap_err().to_string();
    assert!(error.contains("copy.fd is truncated"), "{error}");
}

#[test]
fn descriptors_are_judged_and_the_best_is_chosen() {
    let folder = Folder::new();
    let usr = |name: &str| format!("usr/share/qemu/firmware/{name}");
    folder.write("fw/small.fd", [0; 4096]);
    folder.write("fw/large.fd", [0; 8192]);
    folder.write("fw/secure.fd", [0; 8192]);
    folder.descriptor(&usr("10-smm"), "smm.fd", |d| {
        d["features"] = serde_json::json!(["requires-smm", "secure-boot"]);
    });
    folder.descriptor(&usr("20-secure"), "secure.fd", |d| {
        d["features"] = serde_json::json!(["secure-boot"]);
    });
    folder.descriptor(&usr("30-small"), "small.fd", |_| ());
    folder.descriptor(&usr("40-large"), "large.fd", |_| ());
    folder.descriptor(&usr("50-qcow2"), "q.fd", |d| {
        d["mapping"]["executable"]["format"] = "qcow2".into();
    });
    folder.descriptor(&usr("60-arm"), "arm.fd", |d| {
        d["targets"][0]["architecture"] = "aarch64".into();
    });
    folder.descriptor(&usr("70-memory"), "m.fd", |d| {
        d["mapping"] = serde_json::json!({"device": "memory", "filename": "/m"});
    });
    folder.descriptor(&usr("80-stateless"), "s.fd", |d| {
        d["mapping"]["mode"] = "stateless".into();
    });
    folder.descriptor(&usr("85-gone"), "gone.fd", |_| ());
    fs::remove_file(folder.0.join("fw/gone.fd")).unwrap();
    folder.write(&usr("90-junk.json"), "{");
    folder.write(&usr("readme.txt"), "{");

    let search = FirmwareSearch::under(&folder.0);
    assert_eq!(search.find().unwrap().code, folder.0.join("fw/large.fd"));
    let verdicts: Vec<_> = search.candidates().unwrap().iter().map(ToString::to_string).collect();
    let expected = [
        "requires-smm",
        "secure.fd",
        "small.fd",
        "large.fd",
        "qcow2",
        "not for x86_64",
        "`memory`",
        "stateless",
        "No such file",
        "not a firmware descriptor",
    ];
    assert_eq!(verdicts.len(), expected.len(), "{verdicts:#?}");
    for (verdict, expected) in verdicts.iter().zip(expected) {
        assert!(verdict.contains(expected), "{expected}: {verdict}");
    }
}

#[test]
fn etc_overrides_and_masks() {
    let folder = Folder::new();
    folder.descriptor("usr/share/qemu/firmware/10-a", "a.fd", |_| ());
    folder.descriptor("usr/share/qemu/firmware/20-b", "b.fd", |_| ());
    folder.descriptor("etc/qemu/firmware/10-a", "other.fd", |_| ());
    let search = FirmwareSearch::under(&folder.0);
    assert_eq!(search.find().unwrap().code, folder.0.join("fw/other.fd"));
    folder.write("etc/qemu/firmware/10-a.json", "");
    assert_eq!(search.find().unwrap().code, folder.0.join("fw/b.fd"));
    folder.write("etc/qemu/firmware/20-b.json", "");
    let error = search.find().unwrap_err().to_string();
    assert!(
        error.contains("there is none") && error.contains("usr/share/qemu/firmware"),
        "{error}"
    );
}

#[test]
fn an_smm_image_named_by_the_user_is_refused() {
    let folder = Folder::new();
    let path = folder.write("fw/OVMF_CODE_4M.secboot.fd", code(0x37_c000));
    folder.write("fw/OVMF_VARS_4M.fd", vars(0x8_4000));
    folder.descriptor("usr/share/qemu/firmware/50-smm", "OVMF_CODE_4M.secboot.fd", |d| {
        d["features"] = serde_json::json!(["requires-smm"]);
    });
    let search = FirmwareSearch::under(&folder.0);
    let error = search.named(&path, None).unwrap_err().to_string();
    assert!(
        error.contains("system management mode") && error.contains("50-smm.json"),
        "{error}"
    );
}

/// The images of the distribution, where they are installed.
#[test]
fn the_installed_images_load() {
    let search = FirmwareSearch::default();
    let Ok(image) = search.find() else {
        println!("skipped: the_installed_images_load: no OVMF is installed (apt-get install ovmf)");
        return;
    };
    let loaded = image.load().unwrap();
    assert_eq!(loaded.layout.flash().end(), Some(1 << 32));
    for path in [
        "/usr/share/OVMF/OVMF_CODE.fd",
        "/usr/share/OVMF/OVMF_CODE_4M.fd",
        "/usr/share/ovmf/OVMF.fd",
    ] {
        if Path::new(path).exists() {
            search.named(Path::new(path), None).unwrap().load().unwrap();
        }
    }
}
