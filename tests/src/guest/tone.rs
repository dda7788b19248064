/// Frames a second of the guest's tone.
pub const RATE: u32 = 48_000;
/// Its pitch.
pub const HERTZ: u32 = 1_000;

/// One second of the tone as `S16_LE` stereo frames: whole periods, so that seconds can be played end to end.
pub fn second() -> Vec<u8> {
    let frames = (0..RATE).map(|frame| {
        let phase = f64::from(frame % (RATE / HERTZ)) * f64::from(HERTZ) / f64::from(RATE);
        (phase * std::f64::consts::TAU).sin() * 16_000.0
    });
    // The cast saturates; the amplitude is well inside.
    #[expect(clippy::cast_possible_truncation, reason = "a sample is rounded to 16 bits")]
    frames
        .flat_map(|sample| [(sample as i16).to_le_bytes(); 2].concat())
        .collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn is_a_second_of_stereo() {
        let bytes = super::second();
        assert_eq!(bytes.len(), 192_000);
        assert_eq!(bytes[..4], [0; 4]);
    }
}
