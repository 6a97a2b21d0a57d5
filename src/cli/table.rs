//! Rows of columns, as wide as they have to be and, on a terminal, no wider than that: cells are
//! broken between words, and characters count for the columns that they take.

use crate::log::escape;
use std::borrow::Cow;
use unicode_width::UnicodeWidthStr;

/// Between two columns.
const GAP: usize = 2;

/// A column is made no narrower than this for the others' sake.
const NARROWEST: usize = 8;

/// The lines of a table; `width` is that of the terminal, if there is one.
pub(super) fn lines(header: &[&str], rows: &[Vec<String>], width: Option<usize>) -> Vec<String> {
    let rows: Vec<Vec<Cow<'_, str>>> = [header.iter().map(|cell| Cow::from(*cell)).collect()]
        .into_iter()
        .chain(rows.iter().map(|row| row.iter().map(|cell| escape::line(cell)).collect()))
        .collect();
    let mut widths = vec![0; header.len()];
    for row in &rows {
        for (widest, cell) in widths.iter_mut().zip(row) {
            *widest = cell.width().max(*widest);
        }
    }
    if let Some(width) = width {
        shrink(&mut widths, width);
    }
    rows.iter().flat_map(|row| row_lines(row, &widths)).collect()
}

/// Takes from the widest columns until the whole fits, or nothing can be taken any more.
fn shrink(widths: &mut [usize], width: usize) {
    let gaps = GAP * widths.len().saturating_sub(1);
    loop {
        let surplus = (widths.iter().sum::<usize>() + gaps).saturating_sub(width);
        let Some(widest) = widths.iter_mut().max().filter(|widest| **widest > NARROWEST) else {
            return;
        };
        if surplus == 0 {
            return;
        }
        *widest -= 1;
    }
}

fn row_lines(row: &[Cow<'_, str>], widths: &[usize]) -> Vec<String> {
    let cells: Vec<Vec<String>> =
        row.iter().zip(widths).map(|(cell, width)| wrap(cell, *width)).collect();
    let height = cells.iter().map(Vec::len).max().unwrap_or(0);
    let line = |number: usize| {
        let mut line = String::new();
        for (cell, width) in cells.iter().zip(widths) {
            let part = cell.get(number).map_or("", String::as_str);
            line.push_str(part);
            line.push_str(&" ".repeat(width.saturating_sub(part.width()) + GAP));
        }
        line.truncate(line.trim_end().len());
        line
    };
    (0..height).map(line).collect()
}

/// A text in lines of this width at the most; only a word that is longer by itself is cut.
fn wrap(text: &str, width: usize) -> Vec<String> {
    if text.width() <= width {
        return vec![text.into()];
    }
    let (mut lines, mut line) = (Vec::new(), String::new());
    for word in text.split(' ') {
        if !line.is_empty() && line.width() + 1 + word.width() > width {
            lines.push(std::mem::take(&mut line));
        }
        if !line.is_empty() {
            line.push(' ');
        }
        for letter in word.chars() {
            if line.width() + UnicodeWidthStr::width(letter.encode_utf8(&mut [0; 4])) > width
                && !line.is_empty()
            {
                lines.push(std::mem::take(&mut line));
            }
            line.push(letter);
        }
    }
    lines.push(line);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(cells: &[&[&str]]) -> Vec<Vec<String>> {
        cells.iter().map(|row| row.iter().map(|cell| cell.to_string()).collect()).collect()
    }

    #[test]
    fn characters_count_for_the_columns_that_they_take() {
        let all = rows(&[&["日本", "x"], &["a\u{301}b", "y\u{1b}[31m\n"]]);
        assert_eq!(
            lines(&["Name", "Text"], &all, None),
            ["Name  Text", "日本  x", "a\u{301}b    y\\x1b[31m\\n"]
        );
    }

    #[test]
    fn a_terminal_is_not_made_wider() {
        let all = rows(&[
            &["1", "the quick brown fox jumps over the lazy dog", "end"],
            &["2", "x", "a-word-that-is-longer-than-its-column"],
        ]);
        let shown = lines(&["No", "What", "Why"], &all, Some(30));
        assert!(shown.iter().all(|line| line.width() <= 30), "{shown:#?}");
        assert_eq!(shown[1], "1   the quick     end");
        let words: Vec<&str> = shown[2..].iter().flat_map(|line| line.split_whitespace()).collect();
        assert!(["brown", "jumps", "lazy", "dog"].iter().all(|word| words.contains(word)));
        // Too narrow for anything: it is wider, and ends.
        assert!(!lines(&["No", "What", "Why"], &all, Some(1)).is_empty());
    }
}
