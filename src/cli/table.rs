//! Rows of columns, as wide as they have to be and, on a terminal, no wider than that: cells are
//! broken between words, and characters count for the columns that they take. No word is broken, for
//! an id is there to be copied: where words are too long for columns, each row is a block of lines.

use crate::log::escape;
use std::borrow::Cow;
use unicode_width::UnicodeWidthStr;

/// Between two columns.
const GAP: usize = 2;

/// A column of texts is made no narrower than this for the others' sake.
const NARROWEST: usize = 12;

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
    if let Some(width) = width
        && !shrink(&mut widths, &narrowest(&rows, header.len()), width)
    {
        return blocks(&rows);
    }
    rows.iter().flat_map(|row| row_lines(row, &widths)).collect()
}

/// The least that each column needs, so that no word of it is broken.
fn narrowest(rows: &[Vec<Cow<'_, str>>], columns: usize) -> Vec<usize> {
    let mut least = vec![0; columns];
    for row in rows {
        for (least, cell) in least.iter_mut().zip(row) {
            let longest = cell.split(' ').map(UnicodeWidthStr::width).max().unwrap_or(0);
            *least = longest.max(cell.width().min(NARROWEST)).max(*least);
        }
    }
    least
}

/// Takes from the widest columns until the whole fits; can it?
fn shrink(widths: &mut [usize], least: &[usize], width: usize) -> bool {
    let gaps = GAP * widths.len().saturating_sub(1);
    while widths.iter().sum::<usize>() + gaps > width {
        let loose = widths.iter_mut().zip(least).filter(|(width, least)| **width > **least);
        match loose.map(|(width, _)| width).max() {
            Some(widest) => *widest -= 1,
            None => return false,
        }
    }
    true
}

/// Each row by itself, a line for each cell that says something; an empty line between two.
fn blocks(rows: &[Vec<Cow<'_, str>>]) -> Vec<String> {
    let Some((header, rows)) = rows.split_first() else { return Vec::new() };
    let block = |row: &Vec<Cow<'_, str>>| {
        let cells = header.iter().zip(row).filter(|(_, cell)| !cell.is_empty());
        cells.map(|(name, cell)| format!("{name}: {cell}")).collect::<Vec<_>>().join("\n")
    };
    let all: Vec<String> = rows.iter().map(block).collect();
    all.join("\n\n").split('\n').map(String::from).collect()
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

/// A text in lines of this width, which each of its words fits into.
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
        line.push_str(word);
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
            &["2", "x", "no-longer"],
        ]);
        let shown = lines(&["No", "What", "Why"], &all, Some(30));
        assert!(shown.iter().all(|line| line.width() <= 30), "{shown:#?}");
        assert_eq!(shown[1], "1   the quick brown  end");
        let words: Vec<&str> = shown[1..].iter().flat_map(|line| line.split_whitespace()).collect();
        assert!(["brown", "jumps", "lazy", "dog"].iter().all(|word| words.contains(word)));
    }

    #[test]
    fn what_is_there_to_be_copied_stays_whole() {
        let id = "0192f0c4-5e2a-7c3e-9d5b-1c2d3e4f5a6b";
        let all = rows(&[&["1", id, "some words of text", ""], &["2", id, "x", "media"]]);
        let header = ["No", "Id", "Detail", "Queue"];
        for (width, is_table) in
            [(None, true), (Some(80), true), (Some(60), false), (Some(40), false)]
        {
            let shown = lines(&header, &all, width);
            assert_eq!(shown.iter().filter(|line| line.contains(id)).count(), 2, "{shown:#?}");
            assert_eq!(shown[0].starts_with("No  Id"), is_table, "{shown:#?}");
        }
        let blocks = format!(
            "No: 1\nId: {id}\nDetail: some words of text\n\nNo: 2\nId: {id}\nDetail: x\nQueue: media"
        );
        assert_eq!(lines(&header, &all, Some(1)).join("\n"), blocks);
    }
}
