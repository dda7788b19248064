//! The lab's eyes: what a picture of the assigned adapter shows, told by what is in it and where.

mod image;

pub use image::{Image, Pixel};
