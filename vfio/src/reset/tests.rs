use super::*;
use crate::fake::{Bench, FakeDevice};
use crate::fixtures;
use devices::pci::PciFunction;

fn resets(bench: &Bench) -> Vec<String> {
    bench
        .drain()
        .into_iter()
        .filter(|line| line.ends_with("reset"))
        .collect()
}

/// A GPU and its audio function share a bus and have no reset of their own.
fn pair() -> Bench {
    let hit = [("01:00.0", 1), ("01:00.1", 1)];
    Bench::new(|log| {
        vec![
            (
                "01:00.0",
                FakeDevice::new("gpu", fixtures::gtx_960(), log)
                    .bar(0, 4096, true)
                    .hit_by_hot_reset(&hit),
            ),
            (
                "01:00.1",
                FakeDevice::new("audio", fixtures::intel_hda(), log)
                    .irq(1, 1, true)
                    .hit_by_hot_reset(&hit),
            ),
        ]
    })
}

#[test]
fn the_bus_is_reset_once_all_its_functions_are_stopped() {
    let bench = pair();
    assert_eq!(resets(&bench), ["audio hot reset"], "before first use");
    bench.devices[1].reset();
    assert!(resets(&bench).is_empty(), "the other one may still be running");
    bench.devices[0].reset();
    assert_eq!(resets(&bench), ["gpu hot reset"]);
}

#[test]
fn interrupts_and_dma_stop_before_the_reset() {
    let bench = pair();
    let audio = &bench.devices[1];
    let _ = audio.config_write(4, 6, devices::pci::ByteEnables::of(0, 2));
    let _ = audio.config_write(0x60, 1 << 16, devices::pci::ByteEnables::of(2, 2));
    bench.drain();
    audio.reset();
    bench.devices[0].reset();
    let order = [
        "audio disable 1",
        "audio config 0x4 [00, 00]",
        "gpu config 0x4 [00, 00]",
        "gpu hot reset",
    ];
    assert_eq!(bench.drain(), order);
}

#[test]
fn a_function_with_flr_is_reset_alone() {
    let bench = Bench::new(|log| {
        vec![
            (
                "03:00.0",
                FakeDevice::new("nvme", fixtures::nvme(), log)
                    .resettable()
                    .hit_by_hot_reset(&[("03:00.0", 1)]),
            ),
            ("00:1b.0", FakeDevice::new("hda", fixtures::ich9_hda(), log)),
        ]
    });
    assert_eq!(
        resets(&bench),
        ["nvme reset"],
        "and what cannot be reset is only warned about"
    );
    bench.devices[0].reset();
    assert_eq!(resets(&bench), ["nvme reset"]);
}

#[test]
fn a_bus_shared_with_somebody_else_is_not_reset() {
    let log = crate::fake::Log::default();
    let hit = [("01:00.0", 1), ("02:00.0", 9)];
    let gpu = FakeDevice::new("gpu", fixtures::gtx_960(), &log).hit_by_hot_reset(&hit);
    let layout = crate::discover::discover(crate::discover::Config(&fixtures::gtx_960())).unwrap();
    let bdf = "01:00.0".parse().unwrap();
    let ResetMethod::None(reason) = method(&gpu, bdf, &layout, |group| group == 1) else {
        panic!()
    };
    assert!(
        reason.contains("0000:02:00.0") && reason.contains("group 9"),
        "{reason}"
    );
}
