use super::*;
use crate::clock::ManualClock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// 2024-02-29 12:34:56, a Thursday.
const EPOCH: u64 = 1_709_210_096;

#[derive(Debug, Default)]
struct Line {
    level: AtomicBool,
    edges: AtomicUsize,
}

impl IrqLine for Line {
    fn set(&self, level: bool) {
        if level && !self.level.swap(level, Ordering::Relaxed) {
            self.edges.fetch_add(1, Ordering::Relaxed);
        }
        self.level.store(level, Ordering::Relaxed);
    }
}

struct Rig {
    rtc: Arc<Rtc>,
    clock: Arc<ManualClock>,
    line: Arc<Line>,
}

impl Rig {
    fn new(options: RtcOptions) -> Self {
        let clock = Arc::new(ManualClock::new(EPOCH));
        let line = Arc::new(Line::default());
        let rtc = Rtc::new(options, Arc::<ManualClock>::clone(&clock), Arc::<Line>::clone(&line)).unwrap();
        Self { rtc, clock, line }
    }

    fn get(&self, index: u8) -> u8 {
        let _ = self.rtc.write(0, &[index]);
        let mut byte = [0];
        self.rtc.read(1, &mut byte);
        byte[0]
    }

    fn set(&self, index: u8, value: u8) {
        let _ = self.rtc.write(0, &[index]);
        let _ = self.rtc.write(1, &[value]);
    }

    fn time(&self) -> [u8; 8] {
        [0x32, 9, 8, 7, 6, 4, 2, 0].map(|index| self.get(index))
    }

    fn wait(&self, milliseconds: u64) {
        self.clock.advance(Duration::from_millis(milliseconds));
    }

    fn edges(&self) -> usize {
        self.line.edges.load(Ordering::Relaxed)
    }

    /// Runs the event loop's part for a while; how often it had to wake.
    fn run(&self, milliseconds: u64) -> usize {
        let end = self.clock.now() + Duration::from_millis(milliseconds);
        let mut wakes = 0;
        while let Some(deadline) = self.rtc.next_deadline().filter(|deadline| *deadline <= end) {
            self.clock.advance(deadline.saturating_sub(self.clock.now()));
            self.rtc.tick();
            wakes += 1;
        }
        self.clock.advance(end - self.clock.now());
        wakes
    }
}

#[test]
fn shows_the_time_in_bcd_and_binary_utc_and_local() {
    let rig = Rig::new(RtcOptions::default());
    assert_eq!(rig.time(), [0x20, 0x24, 0x02, 0x29, 0x05, 0x12, 0x34, 0x56]);
    rig.set(0x0b, 0x06);
    assert_eq!(rig.time(), [20, 24, 2, 29, 5, 12, 34, 56]);
    rig.set(0x0b, 0x00);
    assert_eq!(rig.get(4), 0x92);
    rig.wait(4_000);
    assert_eq!((rig.get(0), rig.get(2)), (0x00, 0x35));
    let local = Rig::new(RtcOptions {
        utc_offset_s: 12 * 3600,
        ..RtcOptions::default()
    });
    assert_eq!(local.time(), [0x20, 0x24, 0x03, 0x01, 0x06, 0x00, 0x34, 0x56]);
}

#[test]
fn the_clock_is_set_under_set_and_runs_on_from_there() {
    let rig = Rig::new(RtcOptions::default());
    rig.set(0x0b, 0x82);
    rig.wait(5_000);
    assert_eq!(rig.get(0), 0x56, "stands still");
    for (index, value) in [
        (0, 0x58),
        (2, 0x59),
        (4, 0x23),
        (7, 0x31),
        (8, 0x12),
        (9, 0x99),
        (0x32, 0x19),
    ] {
        rig.set(index, value);
    }
    rig.set(0x0b, 0x02);
    assert_eq!(rig.time(), [0x19, 0x99, 0x12, 0x31, 0x06, 0x23, 0x59, 0x58]);
    rig.wait(2_000);
    assert_eq!(rig.time(), [0x20, 0x00, 0x01, 0x01, 0x07, 0x00, 0x00, 0x00]);
    rig.rtc.reset();
    assert_eq!(rig.get(9), 0x00, "a reset keeps the time");
}

#[test]
fn set_without_a_time_loses_none_and_nonsense_is_ignored() {
    let rig = Rig::new(RtcOptions::default());
    rig.set(0x0b, 0x82);
    rig.wait(5_000);
    rig.set(0x0b, 0x02);
    assert_eq!((rig.get(2), rig.get(0)), (0x35, 0x01));
    rig.set(8, 0x55);
    assert_eq!(rig.get(8), 0x02);
    rig.set(0, 0x30);
    assert_eq!(rig.get(0), 0x30, "without SET too");
}

#[test]
fn the_divider_s_release_starts_half_a_second() {
    let rig = Rig::new(RtcOptions::default());
    rig.wait(900);
    rig.set(0x0a, 0x76);
    rig.set(0x0a, 0x26);
    rig.wait(499);
    assert_eq!(rig.get(0), 0x56);
    rig.wait(1);
    assert_eq!(rig.get(0), 0x57);
}

#[test]
fn an_update_is_in_progress_just_before_the_second() {
    let rig = Rig::new(RtcOptions::default());
    assert_eq!(rig.get(0x0a), 0x26);
    rig.wait(998);
    assert_eq!(rig.get(0x0a), 0xa6);
    rig.set(0x0b, 0x82);
    assert_eq!(rig.get(0x0a), 0x26, "not while the clock is set");
    rig.set(0x0b, 0x02);
    rig.wait(2);
    assert_eq!((rig.get(0x0a), rig.get(0)), (0x26, 0x57));
}

#[test]
fn status_registers_are_read_only_and_c_clears() {
    let rig = Rig::new(RtcOptions::default());
    rig.set(0x0d, 0);
    assert_eq!(rig.get(0x0d), 0x80);
    rig.wait(1_000);
    rig.set(0x0c, 0);
    assert_eq!(
        rig.get(0x0c),
        0x50,
        "periodic and update, none enabled; no alarm before midnight"
    );
    assert_eq!(rig.get(0x0c), 0);
}

#[test]
fn memory_sizes_are_where_firmware_looks() {
    let rig = Rig::new(RtcOptions {
        ram_below_4g: 0xc000_0000,
        ram_above_4g: 0x1_4000_0000,
        utc_offset_s: 0,
    });
    let pair = |low, high| u16::from_le_bytes([rig.get(low), rig.get(high)]);
    assert_eq!(
        (pair(0x15, 0x16), pair(0x17, 0x18), pair(0x30, 0x31)),
        (640, 0xffff, 0xffff)
    );
    assert_eq!(pair(0x34, 0x35), 0xbf00);
    assert_eq!([0x5b, 0x5c, 0x5d].map(|index| rig.get(index)), [0x00, 0x40, 0x01]);
    rig.set(0x0f, 0xfe);
    rig.set(0x34, 1);
    rig.set(0x40, 7);
    rig.rtc.reset();
    assert_eq!((rig.get(0x0f), rig.get(0x34), rig.get(0x40)), (0, 0, 7));
    assert_eq!(rig.get(0x80 | 0x40), 7, "bit 7 of the index is the NMI's");
}

#[test]
fn no_timer_runs_without_an_interrupt() {
    let rig = Rig::new(RtcOptions::default());
    assert_eq!(rig.rtc.next_deadline(), None);
    assert!(rig.rtc.timer_event().read().is_err());
    rig.set(0x0b, 0x42);
    assert!(rig.rtc.timer_event().read().is_ok());
    assert!(rig.rtc.next_deadline().is_some());
}

#[test]
fn periodic_interrupts_wait_for_the_guest() {
    let rig = Rig::new(RtcOptions::default());
    rig.set(0x0b, 0x42);
    let _ = rig.get(0x0c);
    assert_eq!(rig.run(1_000), 1);
    assert_eq!(rig.edges(), 1, "one until the guest has seen it");
    let mut count = 0;
    let end = rig.clock.now() + Duration::from_secs(1);
    while rig.clock.now() < end {
        assert_eq!(rig.get(0x0c) & 0xc0, 0xc0);
        let deadline = rig.rtc.next_deadline().unwrap();
        rig.clock.advance(deadline - rig.clock.now());
        rig.rtc.tick();
        count += 1;
    }
    assert!((1023..=1025).contains(&count), "{count}");
    rig.set(0x0a, 0x20);
    let _ = rig.get(0x0c);
    assert_eq!(rig.rtc.next_deadline(), None, "rate 0 is none");
}

#[test]
fn the_update_interrupt_comes_with_the_second() {
    let rig = Rig::new(RtcOptions::default());
    rig.wait(300);
    rig.set(0x0b, 0x12);
    assert_eq!(rig.rtc.next_deadline(), Some(Duration::from_secs(1)));
    assert_eq!(rig.run(700), 1);
    assert_eq!(rig.edges(), 1);
    assert_eq!(rig.get(0x0c) & 0x90, 0x90);
    assert!(!rig.line.level.load(Ordering::Relaxed));
}

#[test]
fn the_alarm_comes_at_its_time() {
    let rig = Rig::new(RtcOptions::default());
    for (index, value) in [(1, 0x00), (3, 0x40), (5, 0xff)] {
        rig.set(index, value);
    }
    rig.set(0x0b, 0x22);
    assert!(rig.run(303_999) >= 5, "looks again each minute");
    assert_eq!(rig.edges(), 0);
    assert_eq!(rig.run(1), 1);
    assert_eq!(rig.edges(), 1);
    assert_eq!(rig.get(0x0c) & 0xa0, 0xa0);
    assert_eq!((rig.get(2), rig.get(0)), (0x40, 0x00));
    rig.rtc.reset();
    assert_eq!(rig.rtc.next_deadline(), None);
}

#[test]
fn accesses_of_any_shape_and_any_registers_are_survived() {
    let rig = Rig::new(RtcOptions::default());
    let mut wide = [0; 8];
    for offset in [0, 1, 2, u64::MAX] {
        rig.rtc.read(offset, &mut wide);
        let _ = rig.rtc.write(offset, &[0xff; 8]);
    }
    for value in [0x00, 0x7f, 0x99, 0xff] {
        for index in 0..=255 {
            rig.set(index, value);
            let _ = rig.get(index);
            let _ = rig.rtc.next_deadline();
            rig.clock.advance(Duration::from_secs(u64::from(index) * 40_000));
        }
    }
}
