//! A host without interrupt remapping, on which the kernel refuses every guest with devices.

use std::path::Path;
use std::time::Duration;

use crate::lab::{Hardware, LabHost};
use crate::scenario::{Failure, Scenario, Wish};
use crate::scenarios::monitor::SHORT;

/// `tenon check` where interrupts are not remapped.
#[derive(Debug)]
pub struct WithoutRemapping;

impl Scenario for WithoutRemapping {
    fn name(&self) -> &'static str {
        "prepare-no-intremap"
    }

    fn shows(&self) -> &'static str {
        "on a host without interrupt remapping the check says so, with the remedy, and is right: the kernel refuses a run"
    }

    fn wish(&self) -> Wish {
        let iommu = "intel-iommu,intremap=off,caching-mode=on,device-iotlb=on";
        Wish {
            hardware: Hardware {
                iommu: vec!["-device".to_owned(), iommu.to_owned()],
                ..Hardware::default()
            },
            ..Wish::default()
        }
    }

    fn cost(&self) -> Duration {
        Duration::from_secs(30)
    }

    fn run(&self, host: &mut LabHost, _logs: &Path) -> Result<(), Failure> {
        let kernel = super::halting::kernel();
        host.put("/tmp/halting.elf", &kernel)?;
        let checked = host.exec("tenon check --json", SHORT)?;
        // Both are asked before anything is judged: what was seen of one explains the other.
        let run = "tenon run --memory 128M --serial none --kernel /tmp/halting.elf --device 0000:00:1b.0 --bind";
        let ran = host.exec(run, SHORT)?;
        let after = host.exec("tenon check; driver_of 0000:00:1b.0; ls /run/tenon", SHORT)?;
        let all = format!("{}\n{}\n{}\n{}", checked.stdout, ran.stderr, after.stdout, after.stderr);
        let answer: serde_json::Value = serde_json::from_str(&checked.stdout)
            .map_err(|error| Failure::Wrong(format!("the check's answer is no JSON: {error}\n{all}")))?;
        let lines = answer["lines"].as_array().into_iter().flatten();
        let line = lines.clone().find(|line| line["requirement"] == "interrupt-remapping");
        let right = line.is_some_and(|line| {
            let remedy = line["remedy"].as_str().unwrap_or_default();
            line["status"] == "fail"
                && line["symptom"] == "no-interrupt-remapping"
                && remedy.contains("allow_unsafe_interrupts=1")
        });
        Failure::unless(right && checked.status == 3 && ran.status == 3, || {
            format!("check: status {}, run: status {}\n{all}", checked.status, ran.status)
        })?;
        // What was taken for the run that was refused is back.
        let back = !after.stdout.contains("vfio-pci\n") && !after.stdout.contains("taken.json");
        Failure::unless(back, || format!("the function was not given back:\n{all}"))
    }
}
