use super::{
    Font, Image, Pixel, Place,
    text::{self, find},
};
use crate::guest::MENU_TITLE;
use std::{fmt, path::Path, sync::LazyLock};

/// The TianoCore logo as OVMF draws it.
static LOGO: LazyLock<Option<Image>> = LazyLock::new(|| Image::parse(include_bytes!("tianocore.png")).ok());

/// The text that the guest's word `console` prints.
pub const CONSOLE_TEXT: &str = "TENON GUEST CONSOLE";

/// The picture of the guest's word `frame` (`init.sh`): quarters in reading order inside a white border.
const QUARTERS: [Pixel; 4] = [
    [0xe0, 0x20, 0x20],
    [0x20, 0xc0, 0x20],
    [0x30, 0x30, 0xe0],
    [0xe0, 0xe0, 0x20],
];
const BORDER: usize = 32;
const WHITE: Pixel = [0xfe, 0xfe, 0xfe];

/// Something that a picture shows. One picture can show several: the firmware prints beside its logo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scene {
    /// QEMU's own words where no mode has been set on the adapter.
    NoMode,
    /// One colour only.
    Blank,
    /// The TianoCore logo in the middle.
    Splash,
    /// The firmware says that it starts a boot option.
    Booting,
    /// The UEFI Shell at its prompt or on its way there.
    Shell,
    /// GRUB's menu with the guest's entry chosen.
    Grub,
    /// The kernel's messages on its framebuffer console.
    KernelLog,
    /// The guest's own text on that console.
    Console,
    /// The guest's frame of four colours.
    Frame,
}

impl Scene {
    /// All there are, in the order in which a boot shows them.
    pub const ALL: [Self; 9] = [
        Self::NoMode,
        Self::Blank,
        Self::Splash,
        Self::Booting,
        Self::Shell,
        Self::Grub,
        Self::KernelLog,
        Self::Console,
        Self::Frame,
    ];

    /// Whether the picture shows it.
    #[must_use]
    pub fn is_in(self, image: &Image) -> bool {
        match self {
            Self::NoMode => find(image, Font::console(), "Guest has not initialized the display").is_some(),
            Self::Blank => image.pixels().iter().all(|pixel| Some(pixel) == image.pixels().first()),
            Self::Splash => splash(image).is_some(),
            Self::Booting => find(image, Font::firmware(), "BdsDxe: starting Boot").is_some(),
            Self::Shell => find(image, Font::firmware(), "UEFI Interactive Shell v").is_some(),
            Self::Grub => grub(image).is_some(),
            Self::KernelLog => kernel_log(image).len() >= 5,
            Self::Console => find(image, Font::console(), CONSOLE_TEXT).is_some(),
            Self::Frame => frame(image),
        }
    }
}

impl fmt::Display for Scene {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::NoMode => "no mode",
            Self::Blank => "blank",
            Self::Splash => "splash",
            Self::Booting => "booting",
            Self::Shell => "shell",
            Self::Grub => "grub",
            Self::KernelLog => "kernel log",
            Self::Console => "console",
            Self::Frame => "frame",
        })
    }
}

/// All that a picture shows.
#[must_use]
pub fn scenes(image: &Image) -> Vec<Scene> {
    Scene::ALL.into_iter().filter(|scene| scene.is_in(image)).collect()
}

/// Reads a picture and says whether it shows `scene`.
///
/// # Errors
/// The file cannot be read as a picture.
pub fn shows(path: &Path, scene: Scene) -> Result<bool, super::ImageError> {
    Ok(scene.is_in(&Image::read(path)?))
}

/// Where the TianoCore logo is, if it is in the middle: OVMF centres it (`BootLogoLib`), give or take rounding.
#[must_use]
pub fn splash(image: &Image) -> Option<Place> {
    const SLACK: usize = 2;
    let logo = LOGO.as_ref()?;
    let x = image.width.checked_sub(logo.width)? / 2;
    let y = image.height.checked_sub(logo.height)? / 2;
    let around = |middle: usize| middle.saturating_sub(SLACK)..=middle + SLACK;
    let mut places = around(y).flat_map(|y| around(x).map(move |x| Place { x, y }));
    places.find(|place| image.crop(place.x, place.y, logo.width, logo.height) == *logo)
}

/// Where GRUB's entry for the guest is, if its menu is shown, with that entry highlighted.
#[must_use]
pub fn grub(image: &Image) -> Option<Place> {
    [Font::firmware(), Font::grub()].into_iter().find_map(|font| {
        find(image, font, "GNU GRUB  version ")?;
        find(image, font, &format!("*{MENU_TITLE}"))
    })
}

/// The lines of the framebuffer console that are kernel messages with their time.
#[must_use]
pub fn kernel_log(image: &Image) -> Vec<String> {
    let is_message = |line: &String| {
        let time = line.strip_prefix('[').and_then(|rest| rest.split_once("] "));
        time.is_some_and(|(time, message)| time.trim().parse::<f64>().is_ok() && !message.is_empty())
    };
    text::console(image).into_iter().filter(is_message).collect()
}

/// Whether the guest's frame fills the picture. A few pixels may be wrong (a cursor), a line of text may not.
#[must_use]
pub fn frame(image: &Image) -> bool {
    if image.width <= 2 * BORDER || image.height <= 2 * BORDER || image.at(0, 0) != Some(WHITE) {
        return false;
    }
    let right = image.pixels().iter().enumerate().filter(|(index, pixel)| {
        let (x, y) = (index % image.width, index / image.width);
        let inside = (BORDER..image.width - BORDER).contains(&x) && (BORDER..image.height - BORDER).contains(&y);
        let quarter = usize::from(y >= image.height / 2) * 2 + usize::from(x >= image.width / 2);
        **pixel == if inside { QUARTERS[quarter] } else { WHITE }
    });
    right.count() * 1000 >= image.pixels().len() * 999
}
