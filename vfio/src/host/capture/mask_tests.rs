use super::*;

fn masks() -> Masks {
    Masks::new(
        &["tower.example.net".into(), "tower".into(), "fedora".into()],
        &["john".into(), "root".into(), "9".into(), "John Doe".into()],
    )
}

#[test]
fn what_is_personal_is_replaced() {
    for (text, expected) in [
        ("eth0: 00:1b:21:AA:bb:cc", "eth0: 02:00:00:00:00:01"),
        ("enx001b21aabbcc: link", "enx020000000001: link"),
        ("MAC=ff-ee-dd-cc-bb-aa", "MAC=02:00:00:00:00:01"),
        (
            "root=UUID=8310a096-b9cf-4246-9fd8-91555a279f04 ro",
            "root=UUID=00000000-0000-4000-8000-000000000001 ro",
        ),
        ("resume=UUID=1A2B-3C4D", "resume=UUID=0000-0001"),
        ("root=LABEL=johns-disk quiet", "root=LABEL=label1 quiet"),
        (
            "/dev/disk/by-id/nvme-Samsung_SSD_980_S64ANS0 /",
            "/dev/disk/by-id/label1 /",
        ),
        (
            "/dev/mapper/luks-8310A096-b9cf-4246-9fd8-91555a279f04",
            "/dev/mapper/luks-00000000-0000-4000-8000-000000000001",
        ),
        (
            "LVM-jQ2UfJmXBnZgSPqKTJ2f1cQvBfLqX8sE0XzqTgq3KjP0u7WLtwWmC6fD1hR5y2Zo",
            "LVM-00000000-0000-4000-8000-000000000001",
        ),
        (
            "/boot/0123456789abcdef0123456789abcdef/6.1/linux",
            "/boot/00000000-0000-4000-8000-000000000001/6.1/linux",
        ),
        (
            "BTRFS: device label holidays devid 1",
            "BTRFS: device label label1 devid 1",
        ),
        ("ip=192.168.1.20::192.168.1.1", "ip=192.0.2.1::192.0.2.2"),
        ("peer fe80::21b:21ff:feaa:bbcc up", "peer 2001:db8::1 up"),
        (
            "/home/john/vm.img /home/jane/x /home/john",
            "/home/user1/vm.img /home/user2/x /home/user1",
        ),
        ("/run/media/john/STICK", "/run/media/user1/STICK"),
        ("usb 1-4: SerialNumber: 60A44C3FB1", "usb 1-4: SerialNumber: SERIAL1"),
        ("Serial Number: XYZ-1234", "Serial Number: SERIAL1"),
        ("S/N: 12345678, ok", "S/N: SERIAL1, ok"),
        ("wwn-0x5002538e40a5f1b2", "wwn-0xSERIAL1"),
        ("iqn.2003-01.org.example.tower:sn.42", "iqn.address1"),
        ("Linux version 6.1 (john@tower)", "Linux version 6.1 (address1)"),
        ("root=/dev/mapper/vg_tower-root", "root=/dev/mapper/vg_host1-root"),
        ("tower.example.net tower towers", "host1 host2 towers"),
        ("owned by John Doe and john", "owned by user1 and user2"),
        (
            "cifs: username=jdoe,password=secret",
            "cifs: username=address1,password=address2",
        ),
    ] {
        assert_eq!(masks().text(text), expected, "{text}");
    }
}

#[test]
fn what_only_looks_like_it_stays() {
    for text in [
        "0000:01:00.0 0000:00:1f.3 pci0000:00 0000:01:00",
        "pci-stub: add 8086:0152 sub=FFFFFFFF:FFFFFFFF cls=00000000/00000000",
        "vfio_pci: add [10de:25a0[ffffffff:ffffffff]] class 0x000000/00000000",
        "BAR 1: can't reserve [mem 0xc0000000-0xcfffffff 64bit pref]",
        "DMAR: dmar0: reg_base_addr fed90000 ver 1:0 cap c0000020660462 ecap f0101a",
        "usb usb1: SerialNumber: 0000:00:14.0",
        "usb 1-1: New USB device strings: Mfr=1, Product=2, SerialNumber=3",
        "Serial: 8250/16550 driver, 32 ports, IRQ sharing enabled",
        "Kernel 6.12.1-arch1-1 at 12:34:56 on 2026-01-31",
        "listening on 0.0.0.0 127.0.0.1 ::1 255.255.255.0",
        "BOOT_IMAGE=/vmlinuz-4.2.6-201.fc22.x86_64 root=/dev/mapper/fedora--server-root ro",
        "SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c",
        "target0:0:0 0:0:0:0 PNP0A08:00 1-4:1.0 ata1.00",
        "foo::bar a:b::c:d:xyz rootfs",
        "cpu cores : 8, flags: vmx svm",
    ] {
        assert_eq!(masks().text(text), text);
    }
}

#[test]
fn the_same_value_becomes_the_same_placeholder_everywhere() {
    let mut masks = masks();
    assert_eq!(
        masks.text("00:1b:21:aa:bb:cc 00:1b:21:aa:bb:cd"),
        "02:00:00:00:00:01 02:00:00:00:00:02"
    );
    assert_eq!(masks.text("wlx001b21aabbcd"), "wlx020000000002");
    assert_eq!(
        masks.text("UUID=8310A096-B9CF-4246-9FD8-91555A279F04"),
        "UUID=00000000-0000-4000-8000-000000000001"
    );
    assert_eq!(
        masks.text("by 8310a096-b9cf-4246-9fd8-91555a279f04"),
        "by 00000000-0000-4000-8000-000000000001"
    );
    assert_eq!(
        (masks.text("/home/john"), masks.text("of john")),
        ("/home/user1".into(), "of user1".into())
    );
    assert_eq!(masks.count(), 4);
}

#[test]
fn placeholders_are_left_alone() {
    let all = "02:00:00:00:00:07 enx020000000007 00000000-0000-4000-8000-000000000003 UUID=0000-0004 LABEL=label5 \
               192.0.2.6 198.18.0.9 2001:db8::8 /home/user9 SerialNumber: SERIAL10 wwn-0xSERIAL2 username=address3";
    let mut masks = masks();
    let once = masks.text(all);
    assert_eq!(once.replace("192.0.2.1", "198.18.0.9"), all);
}

#[test]
fn routes_keep_their_form() {
    let table = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
                 enp3s0\t00000000\t0101A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\n\
                 enx001b21aabbcc\t0001A8C0\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0\n";
    let expected = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
                    enp3s0\t00000000\t010200C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\n\
                    enx020000000001\t020200C0\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0\n";
    assert_eq!(masks().route(table), expected);

    let table = "00000000000000000000000000000000 00 00000000000000000000000000000000 00 fe80000000000000021b21fffeaabbcc 00000400 00000001 00000000 00000003 enp3s0\n";
    let expected = table.replace("fe80000000000000021b21fffeaabbcc", "20010db8000000000000000000000001");
    assert_eq!(masks().route6(table), expected);
}

#[test]
fn mounts_keep_what_they_are_of() {
    let table = "25 1 253:0 / / rw,relatime shared:1 - xfs /dev/mapper/vg_tower-root rw,attr2\n\
                 30 25 0:31 /@home /home rw - btrfs /dev/nvme0n1p2 rw,ssd,subvolid=257,subvol=/@home\n\
                 40 25 0:50 / /home/john/nas rw - cifs //nas.example.net/john rw,username=john,addr=10.0.0.9\n";
    let expected = "25 1 253:0 / / rw,relatime shared:1 - xfs /dev/mapper/vg_host1-root rw\n\
                    30 25 0:31 /@home /home rw - btrfs /dev/nvme0n1p2 rw,subvolid=257,subvol=/@home\n\
                    40 25 0:50 / /home/user1/nas rw - cifs address1 rw\n";
    assert_eq!(masks().mounts(table), expected);
    assert_eq!(
        masks().mounts("//nas/x /mnt cifs rw,username=john 0 0\n"),
        "address1 /mnt cifs rw 0 0\n"
    );
}

#[test]
fn the_log_loses_the_lines_of_sessions() {
    let log = "[    1.0] DMAR: IOMMU enabled\n\
               [    2.0] input: John's AirPods (AVRCP) as /devices/virtual/input/input30\n\
               [    3.0] audit: type=1100 acct=\"john\" addr=10.0.0.1\n\
               [    4.0] vfio-pci 0000:01:00.0: enabling device\n";
    assert_eq!(
        masks().log(log),
        "[    1.0] DMAR: IOMMU enabled\n[    4.0] vfio-pci 0000:01:00.0: enabling device\n"
    );
}
