use std::{
    fs,
    io::{self, BufReader, BufWriter},
    path::{Path, PathBuf},
};

/// Red, green, blue.
pub type Pixel = [u8; 3];

/// A picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Pixels a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    pixels: Vec<Pixel>,
}

/// A picture could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file itself.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What is in it.
    #[error("{path}: {why}")]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io { path, source }
}

fn format_error(path: &Path) -> impl FnOnce(String) -> Error {
    let path = path.to_owned();
    move |why| Error::Format { path, why }
}

impl Image {
    /// A picture of one colour.
    #[must_use]
    pub fn filled(width: usize, height: usize, pixel: Pixel) -> Self {
        Self {
            width,
            height,
            pixels: vec![pixel; width * height],
        }
    }

    /// Reads a PPM (P6) as QEMU's `screendump` writes it, or a PNG, told apart by their first bytes.
    ///
    /// # Errors
    /// The file cannot be read, or is neither, or is cut short.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let bytes = fs::read(path).map_err(io_error(path))?;
        Self::parse(&bytes).map_err(format_error(path))
    }

    /// Takes a picture in memory: what QMP's `screendump` made, or a PNG.
    ///
    /// # Errors
    /// It is neither, or cut short: says why.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        if bytes.starts_with(b"P6") {
            ppm(bytes)
        } else {
            png(bytes)
        }
    }

    /// Writes a PNG.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_png(&self, path: &Path) -> Result<(), Error> {
        let file = BufWriter::new(fs::File::create(path).map_err(io_error(path))?);
        let size = |side: usize| u32::try_from(side).unwrap_or(u32::MAX);
        let mut encoder = png::Encoder::new(file, size(self.width), size(self.height));
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        encoder.set_compression(png::Compression::High);
        let written = encoder
            .write_header()
            .and_then(|mut writer| writer.write_image_data(self.pixels.as_flattened()));
        written.map_err(|error| format_error(path)(error.to_string()))
    }

    /// The pixel at a place; none outside.
    #[must_use]
    pub fn at(&self, x: usize, y: usize) -> Option<Pixel> {
        if x < self.width {
            self.pixels.get(y * self.width + x).copied()
        } else {
            None
        }
    }

    /// One row; empty outside.
    #[must_use]
    pub fn row(&self, y: usize) -> &[Pixel] {
        self.pixels
            .get(y * self.width..(y + 1) * self.width)
            .unwrap_or_default()
    }

    /// All pixels, row by row.
    #[must_use]
    pub fn pixels(&self) -> &[Pixel] {
        &self.pixels
    }

    /// The part of `width` by `height` at a place, cut at the edges.
    #[must_use]
    pub fn crop(&self, x: usize, y: usize, width: usize, height: usize) -> Self {
        let width = width.min(self.width.saturating_sub(x));
        let height = height.min(self.height.saturating_sub(y));
        let pixels = (y..y + height)
            .flat_map(|y| self.row(y)[x..x + width].iter().copied())
            .collect();
        Self { width, height, pixels }
    }

    /// Puts `part` at a place, cut at the edges.
    pub fn paste(&mut self, part: &Self, x: usize, y: usize) {
        for (index, pixel) in part.pixels.iter().enumerate() {
            let (x, y) = (x + index % part.width, y + index / part.width);
            if x < self.width
                && let Some(place) = self.pixels.get_mut(y * self.width + x)
            {
                *place = *pixel;
            }
        }
    }
}

fn ppm(bytes: &[u8]) -> Result<Image, String> {
    let mut numbers = Vec::new();
    let mut at = 2;
    // Width, height and the largest value, each behind white space or a comment; then one white space.
    while numbers.len() < 3 {
        match bytes.get(at) {
            Some(b'#') => {
                let end = bytes[at..].iter().position(|&byte| byte == b'\n');
                at += end.ok_or("a comment without end")?;
            }
            Some(byte) if byte.is_ascii_whitespace() => at += 1,
            Some(byte) if byte.is_ascii_digit() => {
                let digits: String = bytes[at..]
                    .iter()
                    .take_while(|byte| byte.is_ascii_digit())
                    .map(|&byte| char::from(byte))
                    .collect();
                at += digits.len();
                numbers.push(digits.parse::<usize>().map_err(|error| error.to_string())?);
            }
            _ => return Err("its PPM header is cut short or malformed".into()),
        }
    }
    let (width, height, largest) = (numbers[0], numbers[1], numbers[2]);
    if largest != 255 {
        return Err(format!("PPM with values up to {largest}, not 255"));
    }
    let size = width
        .checked_mul(height)
        .and_then(|pixels| pixels.checked_mul(3))
        .ok_or("an absurd size")?;
    let data = bytes.get(at + 1..).and_then(|data| data.get(..size));
    let data = data.ok_or_else(|| format!("PPM of {width}x{height} is cut short"))?;
    Ok(Image {
        width,
        height,
        pixels: triples(data),
    })
}

fn png(bytes: &[u8]) -> Result<Image, String> {
    let decoder = png::Decoder::new(BufReader::new(io::Cursor::new(bytes)));
    let mut reader = decoder.read_info().map_err(|error| error.to_string())?;
    let mut data = vec![0; reader.output_buffer_size().ok_or("an absurd size")?];
    let info = reader.next_frame(&mut data).map_err(|error| error.to_string())?;
    if (info.color_type, info.bit_depth) != (png::ColorType::Rgb, png::BitDepth::Eight) {
        return Err(format!(
            "PNG of {:?}, {:?} bits: only 8-bit RGB is read",
            info.color_type, info.bit_depth
        ));
    }
    Ok(Image {
        width: info.width as usize,
        height: info.height as usize,
        pixels: triples(&data),
    })
}

fn triples(data: &[u8]) -> Vec<Pixel> {
    data.as_chunks().0.to_vec()
}

#[cfg(test)]
mod tests {
    use super::{Image, ppm};

    #[test]
    fn ppm_with_and_without_comment() {
        let image = ppm(b"P6\n# CREATOR\n2 1\n255\n\x01\x02\x03\x04\x05\x06").unwrap();
        assert_eq!((image.width, image.height), (2, 1));
        assert_eq!(image.at(1, 0), Some([4, 5, 6]));
        assert_eq!((image.at(2, 0), image.at(0, 1)), (None, None));
    }

    #[test]
    fn a_picture_still_being_written_is_refused() {
        assert!(
            ppm(b"P6\n2 1\n255\n\x01\x02\x03\x04")
                .unwrap_err()
                .contains("cut short")
        );
        assert!(ppm(b"P6\n2").unwrap_err().contains("cut short"));
        assert!(ppm(b"P6\n99999999999 99999999999\n255\n").is_err());
        assert!(ppm(b"P6\n1 1\n65535\n000000").is_err());
    }

    #[test]
    fn png_round_trip() {
        let mut image = Image::filled(30, 20, [1, 2, 3]);
        image.paste(&Image::filled(5, 5, [200, 100, 50]), 27, 10);
        let path = std::env::temp_dir().join(format!("tenon-see-{}.png", std::process::id()));
        image.write_png(&path).unwrap();
        let back = Image::read(&path);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(back.unwrap(), image);
        assert_eq!(image.crop(26, 9, 9, 2).at(1, 1), Some([200, 100, 50]));
    }
}
