use super::{
    Image, Pixel,
    font::{Font, WIDTH},
};

/// Where the top left corner of something was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Pixels from the left.
    pub x: usize,
    /// Pixels from the top.
    pub y: usize,
}

/// Finds a text of one line, in any two colours, at any place. Every pixel of every glyph must be right.
#[must_use]
pub fn find(image: &Image, font: &Font, text: &str) -> Option<Place> {
    let stencil = Stencil::new(font, text)?;
    let last_y = image.height.checked_sub(stencil.rows.len())?;
    (0..=last_y).find_map(|y| stencil.find_in_row(image, y))
}

/// The pixels of a text: for each row, which are ink.
struct Stencil {
    width: usize,
    rows: Vec<Vec<bool>>,
    ink: Place,
    paper: Place,
}

impl Stencil {
    /// None when a character is not in the font, or there is no ink at all.
    fn new(font: &Font, text: &str) -> Option<Self> {
        let glyphs: Vec<&[u8]> = text
            .chars()
            .map(|character| font.glyph(character))
            .collect::<Option<_>>()?;
        let rows: Vec<Vec<bool>> = (0..font.height)
            .map(|row| glyphs.iter().flat_map(|glyph| bits(glyph[row])).collect())
            .collect();
        let first = |wanted: bool| {
            let places = rows.iter().enumerate();
            places
                .filter_map(|(y, row)| {
                    Some(Place {
                        x: row.iter().position(|&it| it == wanted)?,
                        y,
                    })
                })
                .next()
        };
        let (ink, paper) = (first(true)?, first(false)?);
        Some(Self {
            width: glyphs.len() * WIDTH,
            rows,
            ink,
            paper,
        })
    }

    /// The first place with its top in row `y`.
    fn find_in_row(&self, image: &Image, y: usize) -> Option<Place> {
        let places = (image.width + 1).checked_sub(self.width)?;
        let inks = &image.row(y + self.ink.y)[self.ink.x..];
        let papers = &image.row(y + self.paper.y)[self.paper.x..];
        // Nearly every row of a picture has one colour and ends here.
        let length = inks.len().min(papers.len());
        if inks[..length].as_flattened() == papers[..length].as_flattened() {
            return None;
        }
        let differing = inks
            .iter()
            .zip(papers)
            .take(places)
            .enumerate()
            .filter(|(_, (ink, paper))| ink != paper);
        let mut candidates = differing.map(|(x, (ink, paper))| (Place { x, y }, *ink, *paper));
        candidates
            .find(|(place, ink, paper)| self.fits(image, *place, *ink, *paper))
            .map(|(place, ..)| place)
    }

    fn fits(&self, image: &Image, at: Place, ink: Pixel, paper: Pixel) -> bool {
        self.rows.iter().enumerate().all(|(y, row)| {
            let pixels = &image.row(at.y + y)[at.x..];
            row.iter()
                .zip(pixels)
                .all(|(&is_ink, &pixel)| pixel == if is_ink { ink } else { paper })
        })
    }
}

fn bits(row: u8) -> impl Iterator<Item = bool> {
    (0..WIDTH).map(move |bit| row & (0x80 >> bit) != 0)
}

/// Reads all text that stands on a grid of cells with its first cell at `origin`. What is no character of the font
/// (frames, pictures) becomes a space; lines lose their trailing spaces.
#[must_use]
pub fn read(image: &Image, font: &Font, origin: Place) -> Vec<String> {
    let lines = image.height.saturating_sub(origin.y) / font.height;
    let columns = image.width.saturating_sub(origin.x) / WIDTH;
    let line = |line: usize| {
        let text: String = (0..columns)
            .map(|column| {
                let place = Place {
                    x: origin.x + column * WIDTH,
                    y: origin.y + line * font.height,
                };
                cell(image, font, place).unwrap_or(' ')
            })
            .collect();
        text.trim_end().to_owned()
    };
    (0..lines).map(line).collect()
}

/// The text of Linux's framebuffer console, which starts in the corner.
#[must_use]
pub fn console(image: &Image) -> Vec<String> {
    read(image, Font::console(), Place { x: 0, y: 0 })
}

/// The text of the firmware's console: it centres a grid of one of these sizes (`GraphicsConsoleDxe`), or of as many
/// cells as fit. The size in which most can be read is taken.
#[must_use]
pub fn firmware(image: &Image) -> Vec<String> {
    let font = Font::firmware();
    let sizes = [
        (80, 25),
        (80, 50),
        (100, 31),
        (128, 40),
        (image.width / WIDTH, image.height / font.height),
    ];
    let origins = sizes.iter().filter_map(|(columns, rows)| {
        let (x, y) = (
            image.width.checked_sub(columns * WIDTH)?,
            image.height.checked_sub(rows * font.height)?,
        );
        Some(Place { x: x / 2, y: y / 2 })
    });
    let readings = origins.map(|origin| read(image, font, origin));
    let weight = |lines: &Vec<String>| -> usize {
        lines
            .iter()
            .map(|line| line.chars().filter(|character| *character != ' ').count())
            .sum()
    };
    readings.max_by_key(weight).unwrap_or_default()
}

/// The character in the cell at `place`, in any two colours.
fn cell(image: &Image, font: &Font, place: Place) -> Option<char> {
    // No glyph has ink in its corner, so that is the paper.
    let paper = image.at(place.x, place.y)?;
    let mut ink: Option<Pixel> = None;
    let mut rows = vec![0; font.height];
    for (y, row) in rows.iter_mut().enumerate() {
        for (x, &pixel) in image.row(place.y + y).get(place.x..place.x + WIDTH)?.iter().enumerate() {
            if pixel != paper {
                if *ink.get_or_insert(pixel) != pixel {
                    return None;
                }
                *row |= 0x80 >> x;
            }
        }
    }
    font.character(&rows)
}
