use super::{Error, Wav};
use std::path::Path;

/// Quieter than this (of full scale) is silence: -46 dB.
const SILENCE: f64 = 0.005;
/// And so is what is quieter than this part of the loudest piece: the edge of a gap.
const EDGE: f64 = 0.7;
/// Pieces in which loudness is judged, a second.
const PIECES: usize = 100;

/// What a recording sounds like between its first and its last sound.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tone {
    /// The pitch, from its zero crossings.
    pub hz: f64,
    /// Seconds of sound: the pieces of a hundredth of a second that are not silent, wherever they are.
    pub seconds: f64,
    /// Loudness of those, of full scale; a sine at full scale has 0.71.
    pub rms: f64,
    /// How much of the sound's power is at `hz`, from 0 (noise) to 1 (a pure, uninterrupted tone).
    pub purity: f64,
}

impl Tone {
    /// Whether it is a tone of `hz`, give or take a part `tolerance` (0.02 is 2 %), and not something else that happens
    /// to cross zero as often.
    #[must_use]
    pub fn is(&self, hz: f64, tolerance: f64) -> bool {
        (self.hz / hz - 1.0).abs() <= tolerance && self.purity > 0.5
    }
}

/// Measures the tone in a WAV file, finished or not.
///
/// # Errors
/// The file cannot be read, or is silent.
pub fn tone(path: &Path) -> Result<Tone, Error> {
    let wav = Wav::read(path)?;
    measure(&wav).ok_or_else(|| Error::Silence {
        path: path.into(),
        seconds: wav.seconds(),
    })
}

/// Measures the loudest channel; none when all are silent.
#[must_use]
pub fn measure(wav: &Wav) -> Option<Tone> {
    let loudest = wav
        .channels
        .iter()
        .max_by(|one, other| power(one).total_cmp(&power(other)))?;
    let piece = (wav.rate as usize / PIECES).max(1);
    let stretches = stretches(loudest, piece);
    let rate = f64::from(wav.rate);
    let sound: Vec<&[f64]> = stretches.iter().map(|range| &loudest[range.clone()]).collect();
    let samples = sound.iter().map(|stretch| stretch.len()).sum::<usize>() as f64;
    // The pitch of the whole is that of its stretches, each by its length.
    let hz = sound
        .iter()
        .map(|stretch| pitch(stretch, rate) * stretch.len() as f64)
        .sum::<f64>()
        / samples;
    let rms = (sound
        .iter()
        .map(|stretch| power(stretch) * stretch.len() as f64)
        .sum::<f64>()
        / samples)
        .sqrt();
    let at_pitch = sound
        .iter()
        .flat_map(|stretch| stretch.chunks(piece * 5))
        .map(|it| power_at(it, hz / rate))
        .sum::<f64>();
    (samples > 0.0 && hz.is_finite()).then(|| Tone {
        hz,
        seconds: samples / rate,
        rms,
        purity: (at_pitch / (samples * rms * rms)).min(1.0),
    })
}

/// Ranges without a silent piece. The first and last piece of each are left out where there are others: sound may
/// start and end inside them.
fn stretches(samples: &[f64], piece: usize) -> Vec<std::ops::Range<usize>> {
    let loudness: Vec<f64> = samples.chunks(piece).map(|it| power(it).sqrt()).collect();
    let least = loudness.iter().fold(SILENCE, |least, it| least.max(it * EDGE));
    let loud: Vec<bool> = loudness.iter().map(|it| *it > least).collect();
    let mut found = Vec::new();
    let mut at = 0;
    while at < loud.len() {
        let length = loud[at..].iter().take_while(|loud| **loud).count();
        match length {
            0 => at += 1,
            1 | 2 => at += length,
            _ => {
                found.push((at + 1) * piece..(at + length - 1) * piece);
                at += length;
            }
        }
    }
    found
}

/// Mean square.
fn power(samples: &[f64]) -> f64 {
    samples.iter().map(|sample| sample * sample).sum::<f64>() / samples.len().max(1) as f64
}

/// Cycles a second between the first and the last upward crossing of zero, those placed between samples.
fn pitch(samples: &[f64], rate: f64) -> f64 {
    let crossings = samples
        .windows(2)
        .enumerate()
        .filter(|(_, pair)| pair[0] < 0.0 && pair[1] >= 0.0);
    let places: Vec<f64> = crossings
        .map(|(at, pair)| at as f64 + pair[0] / (pair[0] - pair[1]))
        .collect();
    match places[..] {
        [first, .., last] => (places.len() - 1) as f64 * rate / (last - first),
        _ => 0.0,
    }
}

/// The power (not mean: summed over samples) of the sine of so many cycles a sample that fits best (Goertzel).
fn power_at(samples: &[f64], cycles: f64) -> f64 {
    let (mut real, mut imaginary) = (0.0, 0.0);
    for (at, sample) in samples.iter().enumerate() {
        let (sin, cos) = (at as f64 * cycles * std::f64::consts::TAU).sin_cos();
        real += sample * cos;
        imaginary += sample * sin;
    }
    2.0 * (real * real + imaginary * imaginary) / samples.len() as f64
}

#[cfg(test)]
mod tests {
    use super::measure;
    use crate::hear::Wav;

    const RATE: u32 = 44_100;

    fn sine(hz: f64, seconds: f64, amplitude: f64) -> Vec<f64> {
        let phase = move |at: usize| at as f64 * hz / f64::from(RATE) * std::f64::consts::TAU;
        (0..(seconds * f64::from(RATE)) as usize)
            .map(|at| phase(at).sin() * amplitude)
            .collect()
    }

    /// A linear congruential generator: the same noise every time.
    fn noise(seconds: f64) -> Vec<f64> {
        let mut state = 1u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            f64::from(state >> 8) / f64::from(1 << 23) - 1.0
        };
        (0..(seconds * f64::from(RATE)) as usize).map(|_| next()).collect()
    }

    fn mono(parts: &[Vec<f64>]) -> Wav {
        Wav {
            rate: RATE,
            channels: vec![parts.concat()],
        }
    }

    #[test]
    fn a_tone_between_silences() {
        let wav = mono(&[vec![0.0; 30_000], sine(1000.0, 2.0, 0.4), vec![0.0; 50_000]]);
        let tone = measure(&wav).unwrap();
        assert!((tone.hz - 1000.0).abs() < 0.5, "{tone:?}");
        assert!((tone.seconds - 2.0).abs() < 0.05, "{tone:?}");
        assert!((tone.rms - 0.283).abs() < 0.01, "{tone:?}");
        assert!(tone.purity > 0.99 && tone.is(1000.0, 0.02), "{tone:?}");
    }

    #[test]
    fn a_tone_with_gaps_is_still_that_tone() {
        let parts: Vec<_> = (0..20)
            .map(|_| [sine(1000.0, 0.093, 0.5), vec![0.0; 700]].concat())
            .collect();
        let tone = measure(&mono(&parts)).unwrap();
        assert!(tone.is(1000.0, 0.02) && tone.seconds > 1.0, "{tone:?}");
    }

    #[test]
    fn another_tone_is_not_it() {
        for hz in [440.0, 960.0, 1040.0, 2000.0] {
            let tone = measure(&mono(&[sine(hz, 1.0, 0.4)])).unwrap();
            assert!((tone.hz - hz).abs() < 1.0 && !tone.is(1000.0, 0.02), "{tone:?}");
        }
    }

    #[test]
    fn noise_is_no_tone() {
        let tone = measure(&mono(&[noise(1.0)])).unwrap();
        assert!(tone.purity < 0.1 && !tone.is(tone.hz, 0.02), "{tone:?}");
        let mixed = sine(1000.0, 1.0, 0.3)
            .iter()
            .zip(noise(1.0))
            .map(|(tone, noise)| tone + noise)
            .collect();
        assert!(!measure(&mono(&[mixed])).unwrap().is(1000.0, 0.02));
    }

    #[test]
    fn silence_is_none() {
        assert_eq!(measure(&mono(&[vec![0.0; 44_100]])), None);
        assert_eq!(
            measure(&mono(&[sine(1000.0, 1.0, 0.001)])),
            None,
            "muted, but for dither"
        );
        assert_eq!(measure(&mono(&[])), None);
        assert_eq!(
            measure(&Wav {
                rate: RATE,
                channels: vec![]
            }),
            None
        );
    }

    #[test]
    fn the_louder_channel_counts() {
        let wav = Wav {
            rate: RATE,
            channels: vec![vec![0.0; 44_100], sine(1000.0, 1.0, 0.2)],
        };
        assert!(measure(&wav).unwrap().is(1000.0, 0.001));
    }
}
