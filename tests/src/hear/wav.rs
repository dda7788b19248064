use super::Error;
use std::{fs, path::Path};

/// A recording of 16-bit samples.
#[derive(Debug, Clone, PartialEq)]
pub struct Wav {
    /// Frames a second.
    pub rate: u32,
    /// Each channel's samples, from -1 to 1.
    pub channels: Vec<Vec<f64>>,
}

impl Wav {
    /// Reads a file, also one still being written: QEMU fills the lengths in only when it exits, so what is in the file
    /// counts and not what the header says.
    ///
    /// # Errors
    /// The file cannot be read, or is no 16-bit PCM.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let bytes = fs::read(path).map_err(|source| Error::Io {
            path: path.into(),
            source,
        })?;
        Self::parse(&bytes).map_err(|why| Error::Format { path: path.into(), why })
    }

    /// Takes a file's bytes apart.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        if bytes.get(..4) != Some(b"RIFF") || bytes.get(8..12) != Some(b"WAVE") {
            return Err("not a WAV file".into());
        }
        let mut format = None;
        let mut rest = &bytes[12..];
        loop {
            let (Some(name), Some(length)) = (rest.get(..4), word(rest, 4)) else {
                return Err("no data in it".into());
            };
            let body = &rest[8..];
            if name == b"data" {
                let (channels, rate) = format.ok_or("its data comes before its format")?;
                return Ok(Self {
                    rate,
                    channels: split(body, channels),
                });
            }
            let length = length as usize;
            if name == b"fmt " {
                format = Some(parse_format(body)?);
            }
            // Chunks are padded to even lengths.
            rest = body
                .get(length.next_multiple_of(2)..)
                .ok_or("its header is cut short")?;
        }
    }

    /// How many frames it has.
    #[must_use]
    pub fn frames(&self) -> usize {
        self.channels.first().map_or(0, Vec::len)
    }

    /// How long it is.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        self.frames() as f64 / f64::from(self.rate)
    }

    /// What comes after so many frames.
    #[must_use]
    pub fn since(&self, frames: usize) -> Self {
        let channels = self.channels.iter();
        Self {
            rate: self.rate,
            channels: channels
                .map(|samples| samples.get(frames..).unwrap_or_default().to_vec())
                .collect(),
        }
    }
}

/// Number of channels and frames a second.
fn parse_format(body: &[u8]) -> Result<(usize, u32), String> {
    let half = |at: usize| Some(u16::from_le_bytes(body.get(at..at + 2)?.try_into().ok()?));
    let fields = (half(0), half(2), word(body, 4), half(14));
    let (Some(kind), Some(channels), Some(rate), Some(bits)) = fields else {
        return Err("its header is cut short".into());
    };
    if (kind, bits) != (1, 16) || channels == 0 || rate == 0 {
        return Err(format!(
            "format {kind} of {bits} bits, {channels} channels, {rate} Hz: only 16-bit PCM is read"
        ));
    }
    Ok((usize::from(channels), rate))
}

fn split(data: &[u8], channels: usize) -> Vec<Vec<f64>> {
    let samples: Vec<f64> = data
        .as_chunks()
        .0
        .iter()
        .map(|bytes| f64::from(i16::from_le_bytes(*bytes)) / 32768.0)
        .collect();
    let frames = samples.len() / channels;
    (0..channels)
        .map(|channel| {
            samples
                .iter()
                .skip(channel)
                .step_by(channels)
                .take(frames)
                .copied()
                .collect()
        })
        .collect()
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::Wav;

    /// As QEMU starts a file: 44.1 kHz stereo, lengths still zero.
    fn unfinished(frames: &[[i16; 2]]) -> Vec<u8> {
        let mut bytes =
            b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0\x01\0\x02\0\x44\xac\0\0\x10\xb1\x02\0\x04\0\x10\0data\0\0\0\0".to_vec();
        bytes.extend(frames.iter().flatten().flat_map(|sample| sample.to_le_bytes()));
        bytes
    }

    #[test]
    fn a_file_still_being_written_counts() {
        let wav = Wav::parse(&unfinished(&[[0, 16384], [-32768, 1]])).unwrap();
        assert_eq!(wav.rate, 44_100);
        assert_eq!(wav.channels, [[0.0, -1.0], [0.5, 1.0 / 32768.0]]);
        let mut odd = unfinished(&[[1, 2], [3, 4]]);
        odd.truncate(odd.len() - 3);
        assert_eq!(Wav::parse(&odd).unwrap().channels, [[1.0 / 32768.0], [2.0 / 32768.0]]);
        assert!(Wav::parse(&unfinished(&[])).unwrap().seconds() == 0.0);
        assert_eq!(
            (wav.frames(), wav.since(1).channels),
            (2, vec![vec![-1.0], vec![1.0 / 32768.0]])
        );
        assert_eq!(wav.since(3).frames(), 0, "shorter than it was");
    }

    #[test]
    fn other_files_are_refused() {
        assert!(Wav::parse(b"").is_err());
        assert!(Wav::parse(b"RIFF\0\0\0\0WAVE").unwrap_err().contains("no data"));
        let mut eight_bits = unfinished(&[]);
        eight_bits[34] = 8;
        assert!(Wav::parse(&eight_bits).unwrap_err().contains("only 16-bit"));
        let mut no_format = unfinished(&[]);
        no_format[12] = b'F';
        assert!(Wav::parse(&no_format).unwrap_err().contains("before its format"));
    }
}
