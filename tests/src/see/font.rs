use std::{collections::HashMap, sync::LazyLock};

/// A fixed-width bitmap font, eight pixels wide, of the printable ASCII characters.
#[derive(Debug)]
pub struct Font {
    /// Rows a glyph.
    pub height: usize,
    glyphs: HashMap<char, Vec<u8>>,
    characters: HashMap<Vec<u8>, char>,
}

/// Pixels a glyph is wide, in every font here.
pub const WIDTH: usize = 8;

static FIRMWARE: LazyLock<Font> = LazyLock::new(|| Font::parse(include_str!("fonts/ovmf.hex")));
static CONSOLE: LazyLock<Font> = LazyLock::new(|| Font::parse(include_str!("fonts/vga.hex")));
static GRUB: LazyLock<Font> = LazyLock::new(|| Font::parse(include_str!("fonts/grub.hex")));

impl Font {
    /// The 8x19 font of the firmware's text console: its own messages, its shell, and GRUB when it prints through it.
    #[must_use]
    pub fn firmware() -> &'static Self {
        &FIRMWARE
    }

    /// The 8x16 font of Linux's framebuffer console.
    #[must_use]
    pub fn console() -> &'static Self {
        &CONSOLE
    }

    /// The 8x16 font of GRUB's graphical terminal.
    #[must_use]
    pub fn grub() -> &'static Self {
        &GRUB
    }

    /// A `.hex` font: `CODE:ROWS` a line, two hexadecimal digits a row.
    fn parse(text: &str) -> Self {
        let mut font = Self {
            height: 0,
            glyphs: HashMap::new(),
            characters: HashMap::new(),
        };
        for (code, rows) in text.lines().filter_map(|line| line.split_once(':')) {
            let Some(character) = u32::from_str_radix(code, 16).ok().and_then(char::from_u32) else {
                continue;
            };
            let rows: Vec<u8> = (0..rows.len() / 2)
                .filter_map(|row| u8::from_str_radix(rows.get(row * 2..row * 2 + 2)?, 16).ok())
                .collect();
            font.height = font.height.max(rows.len());
            font.characters.insert(rows.clone(), character);
            font.glyphs.insert(character, rows);
        }
        font
    }

    /// The rows of a character, the leftmost pixel in the highest bit.
    #[must_use]
    pub fn glyph(&self, character: char) -> Option<&[u8]> {
        self.glyphs.get(&character).map(Vec::as_slice)
    }

    /// The character of such rows.
    #[must_use]
    pub fn character(&self, rows: &[u8]) -> Option<char> {
        self.characters.get(rows).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::Font;

    #[test]
    fn fonts_are_whole() {
        for (font, height) in [(Font::firmware(), 19), (Font::console(), 16), (Font::grub(), 16)] {
            assert_eq!(font.height, height);
            for character in ' '..='~' {
                let rows = font.glyph(character).unwrap();
                assert_eq!((rows.len(), font.character(rows)), (height, Some(character)));
            }
        }
    }
}
