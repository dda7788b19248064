//! Looks at a picture: `see png IN OUT` converts.

use std::{env, error::Error, path::Path};
use tests::see::Image;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["png", from, to] => Ok(Image::read(Path::new(from))?.write_png(Path::new(to))?),
        _ => Err("usage: see the top of examples/see.rs".into()),
    }
}
