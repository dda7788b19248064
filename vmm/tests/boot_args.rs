//! `tenon boot-args` as a program, on trees of its own: what only a real file system shows.
#![expect(clippy::unwrap_used, reason = "all of this is a test")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use vmm_sys_util::tempdir::TempDir;

fn resource(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../resources").join(path)
}

/// Runs a shell script in a mount namespace of its own; `None` where that is not allowed.
fn in_namespace(name: &str, distribution: &str, script: &str, dir: &Path) -> Option<Output> {
    let allowed = Command::new("unshare").args(["--mount", "true"]).status();
    if !allowed.is_ok_and(|status| status.success()) {
        println!("skipped: {name}: no mount namespace can be made here");
        return None;
    }
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-euc", script])
        .env("TENON", env!("CARGO_BIN_EXE_tenon"))
        .env("TREE", resource(&format!("distributions/{distribution}/root")))
        .env("HOST", resource("hosts/z77.tar.zst"))
        .env("DIR", dir)
        .output()
        .unwrap();
    Some(output)
}

fn assert_passed(output: &Output) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{}\n{}",
        text(&output.stdout),
        text(&output.stderr)
    );
}

#[test]
fn a_full_disk_leaves_everything_as_it_was() {
    let dir = TempDir::new().unwrap();
    let script = r#"
        mount -t tmpfs -o size=256k tenon "$DIR"
        mkdir "$DIR/root"
        cp -a "$TREE/." "$DIR/root"
        apply() { "$TENON" boot-args 01:00.0 --host "$HOST" --root "$DIR/root" --apply; }
        # Each amount of room: none, enough for some of the files, enough for all.
        failures=0
        for blocks in 0 1 2 3 5 8 12 16 20; do
            rm -f "$DIR/fill"
            dd if=/dev/zero of="$DIR/fill" bs=4k 2> /dev/null || true
            truncate -s -$((blocks * 4096)) "$DIR/fill"
            if apply > "$DIR/../out" 2> "$DIR/../err"; then
                break
            fi
            failures=$((failures + 1))
            grep -q 'No space left on device' "$DIR/../err"
            grep -q 'nothing was changed' "$DIR/../err"
            diff -r --no-dereference "$TREE" "$DIR/root"
        done
        test "$failures" -ge 3
        rm -f "$DIR/fill"
        apply > /dev/null
        ! diff -rq --no-dereference "$TREE" "$DIR/root" > /dev/null
        "$TENON" boot-args --root "$DIR/root" --remove > /dev/null
        diff -r --no-dereference "$TREE" "$DIR/root"
    "#;
    let inner = dir.as_path().join("inner");
    std::fs::create_dir(&inner).unwrap();
    if let Some(output) = in_namespace("full disk", "fedora", script, &inner) {
        assert_passed(&output);
    }
}

#[test]
fn nothing_outside_the_root_has_to_be_writable() {
    let dir = TempDir::new().unwrap();
    let script = r#"
        mount -t tmpfs tenon "$DIR"
        cp -a "$TREE/." "$DIR"
        mount -o remount,bind,ro /
        ! touch /tenon-was-here 2> /dev/null
        "$TENON" boot-args 01:00.0 --host "$HOST" --root "$DIR" --apply > /dev/null
        grep -q 'vfio-pci.ids=10de:1401,10de:0fba' "$DIR/etc/default/grub" "$DIR/etc/kernel/cmdline"
        "$TENON" boot-args --root "$DIR" --remove > /dev/null
        diff -r --no-dereference "$TREE" "$DIR"
    "#;
    if let Some(output) = in_namespace("outside the root", "fedora", script, dir.as_path()) {
        assert_passed(&output);
    }
}

/// As on a running system, in a root of its own whose commands only say that they were run.
#[test]
fn commands_are_run_when_that_is_asked_for() {
    let dir = TempDir::new().unwrap();
    let script = r#"
        mount -t tmpfs tenon "$DIR"
        cd "$DIR"
        cp -a "$TREE/." .
        rm -rf etc/dracut.conf.d
        mkdir -p bin proc sys
        mount --rbind /proc proc
        mount --rbind /sys sys
        for program in "$TENON" /bin/sh; do
            cp -L "$program" bin/
            for library in $(ldd "$program" | grep -o '/[^ ]*'); do
                mkdir -p ".${library%/*}"
                cp -L "$library" ".$library"
            done
        done
        printf '#!/bin/sh\necho "$@" >> /ran\ntest ! -e /fail\n' > bin/mkinitcpio
        chmod +x bin/mkinitcpio
        export PATH="$PATH:/usr/sbin:/sbin"
        tenon() { PATH="/bin:$PATH" chroot . /bin/tenon boot-args "$@"; }
        tenon --apply --run-commands > out
        grep -q 'iommu=pt' etc/kernel/cmdline out
        test "$(cat ran)" = -P
        tenon --apply > out
        grep -q 'the kernel was started without' out
        grep -q 'mkinitcpio -P' out
        test "$(cat ran)" = -P
        tenon --remove > out
        grep -q 'mkinitcpio -P' out
        tenon --apply > /dev/null
        touch fail
        ! tenon --remove --run-commands > out 2> err
        grep -q 'mkinitcpio -P. failed' err
        ! grep -q 'iommu=pt' etc/kernel/cmdline
    "#;
    if let Some(output) = in_namespace("commands", "arch-uki", script, dir.as_path()) {
        assert_passed(&output);
    }
}

#[test]
fn who_may_not_write_is_told_to_be_root() {
    let dir = TempDir::new().unwrap();
    let script = r#"
        cp -a "$TREE" "$DIR/root"
        chmod 755 "$DIR"
        setpriv --reuid 65534 --clear-groups "$TENON" boot-args --host "$HOST" --root "$DIR/root" --apply 2> "$DIR/err" && exit 1
        grep -q 'Permission denied' "$DIR/err"
        grep -q 'hint: run it as root' "$DIR/err"
        diff -r --no-dereference "$TREE" "$DIR/root"
    "#;
    let reachable = Command::new("setpriv")
        .args([
            "--reuid",
            "65534",
            "--clear-groups",
            env!("CARGO_BIN_EXE_tenon"),
            "--version",
        ])
        .output();
    if !reachable.is_ok_and(|output| output.status.success()) {
        println!("skipped: permissions: another user cannot be made to run tenon here");
        return;
    }
    if let Some(output) = in_namespace("permissions", "fedora", script, dir.as_path()) {
        assert_passed(&output);
    }
}

#[test]
fn scripts_get_json() {
    let output = Command::new(env!("CARGO_BIN_EXE_tenon"))
        .args(["boot-args", "01:00.0", "--json", "--host"])
        .arg(resource("hosts/z77-by-mistake.tar.zst"))
        .output()
        .unwrap();
    assert_passed(&output);
    let plan: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(plan["processor"], "intel");
    assert_eq!(plan["functions"][1]["bdf"], "0000:01:00.1");
    assert_eq!(plan["functions"][1]["by"], "id");
    assert_eq!(plan["wrong"][0]["defeats"], true);
    let words: Vec<&str> = plan["arguments"]
        .as_array()
        .unwrap()
        .iter()
        .map(|word| word.as_str().unwrap())
        .collect();
    assert!(words.contains(&"vfio-pci.ids=10de:1401,10de:0fba"), "{words:?}");
}

#[test]
fn a_card_and_its_twin_get_a_script_that_shells_can_read() {
    for (distribution, script) in [
        ("fedora", "usr/lib/dracut/modules.d/90tenon-vfio/tenon-vfio.sh"),
        ("fedora", "usr/lib/dracut/modules.d/90tenon-vfio/module-setup.sh"),
        ("debian", "etc/initramfs-tools/scripts/init-top/00-tenon-vfio"),
        ("arch-uki", "etc/initcpio/tenon-vfio-claim"),
        ("arch-uki", "etc/initcpio/install/tenon-vfio"),
        ("arch-uki", "etc/mkinitcpio.conf.d/90-tenon-vfio.conf"),
    ] {
        let path = resource(&format!("distributions/{distribution}/twins/applied/{script}"));
        let text = std::fs::read_to_string(&path).unwrap();
        let shell = if text.starts_with("#!/bin/sh") { "sh" } else { "bash" };
        let checked = Command::new(shell).arg("-n").arg(&path).output().unwrap();
        assert_passed(&checked);
    }
}

/// The script runs against files in place of `/sys`, with a modprobe that says that it was called.
#[test]
fn the_script_claims_by_address_and_only_what_it_was_made_for() {
    let dir = TempDir::new().unwrap();
    let root = dir.as_path();
    let script = resource("distributions/debian/twins/applied/etc/initramfs-tools/scripts/init-top/00-tenon-vfio");
    let text = std::fs::read_to_string(script).unwrap();
    let text = text.replace("/sys/", &format!("{}/sys/", root.display()));
    let text = text.replace("/dev/kmsg", &format!("{}/kmsg", root.display()));
    std::fs::write(root.join("claim"), text).unwrap();
    std::fs::write(root.join("modprobe"), "#!/bin/sh\necho \"$@\" > \"${0%/*}/called\"\n").unwrap();
    Command::new("chmod")
        .arg("+x")
        .arg(root.join("modprobe"))
        .status()
        .unwrap();
    let function = |bdf: &str, vendor: &str, device: &str| {
        let path = root.join("sys/bus/pci/devices").join(bdf);
        std::fs::create_dir_all(path.join("driver")).unwrap();
        for (name, text) in [
            ("vendor", vendor),
            ("device", device),
            ("driver_override", "(null)"),
            ("driver/unbind", ""),
        ] {
            std::fs::write(path.join(name), format!("{text}\n")).unwrap();
        }
    };
    function("0000:0a:00.0", "0x1002", "0x73bf");
    // After cards were moved a disk controller stands where the audio was.
    function("0000:0a:00.1", "0x144d", "0xa808");
    let path = format!("{}:{}", root.display(), std::env::var("PATH").unwrap());
    let run = |arguments: &[&str]| {
        let output = Command::new("sh")
            .arg(root.join("claim"))
            .args(arguments)
            .env("PATH", &path)
            .output()
            .unwrap();
        assert_passed(&output);
    };
    let read = |name: &str| std::fs::read_to_string(root.join(name)).unwrap_or_default();
    run(&["prereqs"]);
    assert_eq!(read("sys/bus/pci/devices/0000:0a:00.0/driver_override"), "(null)\n");
    run(&[]);
    assert_eq!(read("sys/bus/pci/devices/0000:0a:00.0/driver_override"), "vfio-pci\n");
    assert_eq!(read("sys/bus/pci/devices/0000:0a:00.0/driver/unbind"), "0000:0a:00.0\n");
    assert_eq!(read("sys/bus/pci/devices/0000:0a:00.1/driver_override"), "(null)\n");
    assert!(
        read("kmsg").contains("0000:0a:00.1 is now 0x144d:0xa808"),
        "{}",
        read("kmsg")
    );
    assert_eq!(
        (read("called"), read("sys/bus/pci/drivers_probe")),
        ("vfio-pci\n".into(), "0000:0a:00.0\n".into())
    );
}
