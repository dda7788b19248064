//! Text of a log as it may be shown on a terminal: a log is anybody's, and a guest can write what it likes into one.

/// The most characters that are shown of a line.
const LONGEST: usize = 200;

/// The line without what a terminal obeys (control characters, escapes, marks that turn the direction of writing), and cut.
pub fn quote(line: &str) -> String {
    let line = line.trim();
    let mut text: String = line
        .chars()
        .take(LONGEST)
        .map(|letter| match letter {
            '\t' => ' ',
            letter if letter.is_control() || turns(letter) => '\u{fffd}',
            letter => letter,
        })
        .collect();
    if line.chars().nth(LONGEST).is_some() {
        text.push('…');
    }
    text
}

/// Unicode's marks that reorder, hide or separate what is around them.
fn turns(letter: char) -> bool {
    matches!(letter, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_obeys_is_taken_out() {
        assert_eq!(quote(" vfio\t1 "), "vfio 1");
        assert_eq!(
            quote("a\u{1b}[2Jb\u{9b}c\r\u{7}"),
            "a\u{fffd}[2Jb\u{fffd}c\u{fffd}\u{fffd}"
        );
        assert_eq!(quote("a\u{202e}b\u{200b}"), "a\u{fffd}b\u{fffd}");
        let long = quote(&"x".repeat(1000));
        assert_eq!(long.chars().count(), LONGEST + 1);
        assert!(long.ends_with('…'));
    }
}
