//! The lab's eyes: what a picture of the assigned adapter shows, told by what is in it and where.
//!
//! Text is recognised by the glyphs of the three fonts that a boot goes through (`fonts/`: the firmware's, read off its
//! shell; Linux's, out of its kernel image; GRUB's), the splash by the logo's pixels at the logo's place. There is no
//! tolerance to speak of: a screendump has no noise.

mod font;
mod image;
mod scene;
mod text;

#[cfg(test)]
mod captures;

pub use font::Font;
pub use image::{Error as ImageError, Image, Pixel};
pub use scene::{CONSOLE_TEXT, Scene, frame, grub, kernel_log, scenes, shows, splash};
pub use text::{Place, console, find, firmware, read};
