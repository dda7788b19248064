//! `cargo lab`: see README.md.

use std::time::{Duration, Instant};
use tests::lab::{Config, LabHost, Set};

fn main() {
    let t = Instant::now();
    let mut host = LabHost::boot(&Config::new(Set::New, "/tmp/w/lab-out/try".into())).unwrap();
    println!("booted {:?}", t.elapsed());
    let script = std::env::args().nth(1).unwrap_or_else(|| "bind_vfio 0000:01:00.0 0000:01:00.1 0000:00:1b.0; for d in /sys/bus/pci/devices/*; do d=${d##*/}; echo $d $(group_of $d) $(driver_of $d); done; ls -l /dev/kvm /dev/vfio; free; mount; tenon; echo $?; ls /store".into());
    println!(
        "{:?}",
        host.exec(&script, Duration::from_secs(60))
            .map(|o| println!("{}\n{}\n{}", o.status, o.stdout, o.stderr))
    );
    println!("{:?}", host.screendump("gpu").map(|p| p.len()));
    host.stop().unwrap();
    println!("done {:?}", t.elapsed());
}
