//! Escapes text from outside for a log or a terminal: an id, a name or an argument must not end a
//! line, move the cursor, or reverse the direction of the text that follows.

use std::borrow::Cow;
use std::fmt::Write;

/// Characters of a name or an id that a line shows. Celery's own stores have 155.
const NAME_MAX: usize = 255;

/// `text` on one line: control characters are written as Python's `repr` writes them.
pub fn line(text: &str) -> Cow<'_, str> {
    escape(text, |_| false)
}

/// `text` on as many lines as it has.
pub fn lines(text: &str) -> Cow<'_, str> {
    escape(text, |c| matches!(c, '\n' | '\t'))
}

/// A name or an id within a line, truncated if it is very long.
pub fn name(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(NAME_MAX) {
        Some((at, _)) => Cow::Owned(format!("{}...", line(&text[..at]))),
        None => line(text),
    }
}

fn escape(text: &str, keeps: impl Fn(char) -> bool) -> Cow<'_, str> {
    let harms = |c: char| is_control(c) && !keeps(c);
    if !text.contains(harms) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        // Writing to a String cannot fail.
        let _ = match c {
            '\n' if !keeps(c) => out.write_str("\\n"),
            '\r' => out.write_str("\\r"),
            '\t' if !keeps(c) => out.write_str("\\t"),
            c if harms(c) && u32::from(c) < 0x100 => write!(out, "\\x{:02x}", u32::from(c)),
            c if harms(c) => write!(out, "\\u{:04x}", u32::from(c)),
            c => out.write_char(c),
        };
    }
    Cow::Owned(out)
}

/// Control characters, Unicode line separators, and marks that change the direction of text.
fn is_control(c: char) -> bool {
    let turns =
        matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    c.is_control() || turns || matches!(c, '\u{061c}' | '\u{2028}' | '\u{2029}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_moves_a_cursor_is_shown() {
        for (text, expected) in [
            ("plain \u{e9} \u{1f600} \\ \"", "plain \u{e9} \u{1f600} \\ \""),
            ("a\n[b", "a\\n[b"),
            ("\x1b[31m\r\t\0\x7f", "\\x1b[31m\\r\\t\\x00\\x7f"),
            ("\u{9b}2J\u{202e}\u{2028}", "\\x9b2J\\u202e\\u2028"),
        ] {
            assert_eq!(line(text), expected);
        }
        assert_eq!(lines("a\n\tb\r\x1b"), "a\n\tb\\r\\x1b");
        assert_eq!(name(&"x".repeat(256)), format!("{}...", "x".repeat(255)));
    }
}
