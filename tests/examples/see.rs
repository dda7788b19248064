//! Looks at pictures: `see FILE...` says what each shows, `see png IN OUT` converts, `see crop IN OUT X Y WIDTH HEIGHT`
//! cuts, `see text FILE` reads.

use std::{env, error::Error, path::Path};
use tests::see::{Image, console, firmware, scenes};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["png", from, to] => Ok(Image::read(Path::new(from))?.write_png(Path::new(to))?),
        ["crop", from, to, x, y, width, height] => {
            let part = Image::read(Path::new(from))?.crop(x.parse()?, y.parse()?, width.parse()?, height.parse()?);
            Ok(part.write_png(Path::new(to))?)
        }
        ["text", file] => {
            let image = Image::read(Path::new(file))?;
            for (name, lines) in [("firmware", firmware(&image)), ("console", console(&image))] {
                println!("{name}:\n{}", lines.join("\n").trim());
            }
            Ok(())
        }
        _ => {
            for file in words {
                let shown: Vec<_> = scenes(&Image::read(Path::new(file))?)
                    .iter()
                    .map(ToString::to_string)
                    .collect();
                println!("{file}: {}", shown.join(", "));
            }
            Ok(())
        }
    }
}
