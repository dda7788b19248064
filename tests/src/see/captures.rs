//! The recognisers on pictures captured from real boots (QEMU's bochs-display, 1280x800).

use super::{Font, Image, Place, Scene, console, find, firmware, frame, grub, kernel_log, scenes, splash};
use std::path::Path;

fn capture(name: &str) -> Image {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fixtures/see")
        .join(name)
        .with_added_extension("png");
    Image::read(&path).unwrap()
}

#[test]
fn each_capture_shows_what_it_shows_and_nothing_else() {
    let expected: [(&str, &[Scene]); 17] = [
        ("no-mode", &[Scene::NoMode]),
        ("blank", &[Scene::Blank]),
        ("splash-2022.11", &[Scene::Splash]),
        ("splash-2025.02", &[Scene::Splash]),
        ("booting-2022.11", &[Scene::Splash, Scene::Booting]),
        ("booting-2025.02", &[Scene::Splash, Scene::Booting]),
        ("shell-2022.11", &[Scene::Shell]),
        ("shell-2025.02", &[Scene::Shell]),
        ("grub-2.06", &[Scene::Grub]),
        ("grub-2.12", &[Scene::Grub]),
        ("grub-2.12-graphical", &[Scene::Grub]),
        ("grub-command-line", &[]),
        ("kernel-log", &[Scene::KernelLog]),
        ("console", &[Scene::Console]),
        ("frame", &[Scene::Frame]),
        ("frame-torn", &[]),
        ("frame-written-over", &[Scene::KernelLog]),
    ];
    for (name, scenes_in_it) in expected {
        assert_eq!(scenes(&capture(name)), scenes_in_it, "{name}");
    }
}

#[test]
fn the_logo_must_be_whole_and_in_the_middle() {
    let picture = capture("splash-2025.02");
    let place = splash(&picture).unwrap();
    assert_eq!(place, Place { x: 543, y: 371 });
    let logo = picture.crop(place.x, place.y, 193, 58);

    let mut elsewhere = Image::filled(1280, 800, [0; 3]);
    elsewhere.paste(&logo, 100, 100);
    assert_eq!(splash(&elsewhere), None);

    let mut smaller_mode = Image::filled(800, 600, [0; 3]);
    smaller_mode.paste(&logo, 303, 271);
    assert_eq!(splash(&smaller_mode), Some(Place { x: 303, y: 271 }));

    let mut half_drawn = picture.clone();
    half_drawn.paste(&Image::filled(193, 20, [0; 3]), 543, 409);
    assert_eq!(splash(&half_drawn), None);

    let mut red_and_blue_swapped = picture;
    let swapped = logo.pixels().iter().map(|[red, green, blue]| [*blue, *green, *red]);
    for (index, pixel) in swapped.enumerate() {
        red_and_blue_swapped.paste(&Image::filled(1, 1, pixel), 543 + index % 193, 371 + index / 193);
    }
    assert_eq!(splash(&red_and_blue_swapped), None);
    assert_eq!(splash(&Image::filled(100, 50, [0; 3])), None, "smaller than the logo");
}

#[test]
fn the_menu_must_have_our_entry_chosen() {
    assert_eq!(grub(&capture("grub-2.12")).map(|place| place.y), Some(181));
    let mut without_entry = capture("grub-2.12");
    without_entry.paste(&Image::filled(1280, 19, [0; 3]), 0, 181);
    assert_eq!(grub(&without_entry), None);
}

#[test]
fn text_is_found_in_its_font_only_and_pixel_by_pixel() {
    let picture = capture("shell-2025.02");
    assert!(find(&picture, Font::firmware(), "Mapping table").is_some(), "yellow");
    assert!(find(&picture, Font::console(), "Mapping table").is_none());
    assert!(find(&picture, Font::firmware(), "Mapping tables").is_none());
    assert!(find(&picture, Font::firmware(), "   ").is_none(), "no ink");
    assert!(find(&picture, Font::firmware(), "Größe").is_none(), "not in the font");
    let place = find(&picture, Font::firmware(), "Shell>").unwrap();
    let mut damaged = picture;
    damaged.paste(&Image::filled(1, 1, [1, 2, 3]), place.x + 3, place.y + 3);
    assert_eq!(find(&damaged, Font::firmware(), "Shell>"), None);
}

#[test]
fn screens_are_read() {
    let shell = firmware(&capture("shell-2025.02"));
    assert_eq!(shell[0], "UEFI Interactive Shell v2.2");
    assert!(
        shell.iter().any(|line| line == "@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_"),
        "{shell:#?}"
    );
    let old = firmware(&capture("booting-2022.11"));
    assert!(
        old.iter()
            .any(|line| line.starts_with("BdsDxe: starting Boot0001 \"UEFI Misc Device\"")),
        "{old:#?}"
    );
    let menu = firmware(&capture("grub-2.06"));
    assert!(
        menu.iter().any(|line| line.contains("executed automatically in ")),
        "{menu:#?}"
    );
    let text = console(&capture("console"));
    assert_eq!(text[1], "  TENON GUEST CONSOLE");
    let log = kernel_log(&capture("kernel-log"));
    assert!(
        log.iter().any(|line| line.contains("Run /init as init process")),
        "{log:#?}"
    );
}

#[test]
fn the_frame_may_have_a_cursor_but_no_text() {
    let mut with_cursor = capture("frame");
    with_cursor.paste(&Image::filled(8, 2, [0; 3]), 0, 14);
    assert!(frame(&with_cursor));
    with_cursor.paste(&Image::filled(400, 16, [0; 3]), 0, 64);
    assert!(!frame(&with_cursor));
    assert!(!frame(&Image::filled(10, 10, [0xfe; 3])));
}
