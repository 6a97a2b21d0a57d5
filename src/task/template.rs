//! The templates of `exec`: text with `{name}` in it, where an argument is to stand.

use std::fmt;

/// A part of one word of `exec`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TemplatePart {
    /// As it stands; doubled braces are single ones here.
    Text(String),
    /// `{name}`: the argument of that name.
    Name(String),
    /// `{1}`: the first positional argument, and so on; from 1.
    Position(usize),
    /// `{*}`: all positional arguments, each a word of its own.
    All,
}

/// What is wrong with a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wrong {
    /// A brace without its other one.
    Unpaired(char),
    /// What stands in braces is no name, no number from 1 and no `*`.
    NoName(String),
    /// `{*}` is not the whole word: it stands for many.
    NotAlone,
}

impl fmt::Display for Wrong {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Wrong::Unpaired(brace) => {
                write!(out, "a single {brace}; write {brace}{brace} for the character itself")
            }
            Wrong::NoName(text) => {
                let short: String = text.chars().take(60).collect();
                write!(
                    out,
                    "{{{short}}} is no argument; write {{{{ and }}}} for the characters themselves"
                )
            }
            Wrong::NotAlone => {
                write!(out, "{{*}} stands for many words and must be a word of its own")
            }
        }
    }
}

/// One word of `exec`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateWord {
    text: String,
    pieces: Vec<TemplatePart>,
}

impl TemplateWord {
    /// Reads a word. An empty one has no pieces.
    ///
    /// # Errors
    /// What is wrong with its braces.
    pub fn parse(text: &str) -> Result<TemplateWord, Wrong> {
        Ok(TemplateWord { text: text.into(), pieces: parse(text)? })
    }

    /// As it stands in the file.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What becomes of it.
    pub fn pieces(&self) -> &[TemplatePart] {
        &self.pieces
    }
}

fn parse(word: &str) -> Result<Vec<TemplatePart>, Wrong> {
    let mut pieces = Vec::new();
    let mut text = String::new();
    let mut rest = word;
    while let Some(at) = rest.find(['{', '}']) {
        text.push_str(&rest[..at]);
        let tail = &rest[at..];
        if tail.starts_with("{{") || tail.starts_with("}}") {
            text.push_str(&tail[..1]);
            rest = &tail[2..];
            continue;
        }
        let Some(end) = tail.find('}').filter(|end| *end > 0) else {
            return Err(Wrong::Unpaired(if tail.starts_with('{') { '{' } else { '}' }));
        };
        if !text.is_empty() {
            pieces.push(TemplatePart::Text(std::mem::take(&mut text)));
        }
        pieces.push(argument(&tail[1..end])?);
        rest = &tail[end + 1..];
    }
    text.push_str(rest);
    if !text.is_empty() {
        pieces.push(TemplatePart::Text(text));
    }
    if pieces.len() > 1 && pieces.contains(&TemplatePart::All) {
        return Err(Wrong::NotAlone);
    }
    Ok(pieces)
}

fn argument(inner: &str) -> Result<TemplatePart, Wrong> {
    match inner {
        "*" => Ok(TemplatePart::All),
        name if is_identifier(name) => Ok(TemplatePart::Name(name.into())),
        number => match number.parse() {
            Ok(position) if position > 0 && !number.starts_with('+') => {
                Ok(TemplatePart::Position(position))
            }
            _ => Err(Wrong::NoName(inner.into())),
        },
    }
}

/// Could Python have a parameter of this name?
pub fn is_identifier(text: &str) -> bool {
    let mut chars = text.chars();
    chars.next().is_some_and(|c| c.is_alphabetic() || c == '_')
        && chars.all(|c| c.is_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        let text = |t: &str| TemplatePart::Text(t.into());
        let name = |n: &str| TemplatePart::Name(n.into());
        let cases = [
            ("", Ok(vec![])),
            ("-resize", Ok(vec![text("-resize")])),
            ("{path}.png", Ok(vec![name("path"), text(".png")])),
            ("a{b}{c}d", Ok(vec![text("a"), name("b"), name("c"), text("d")])),
            ("{1}", Ok(vec![TemplatePart::Position(1)])),
            ("{*}", Ok(vec![TemplatePart::All])),
            ("{{print $1}}", Ok(vec![text("{print $1}")])),
            ("{{{a}}}", Ok(vec![text("{"), name("a"), text("}")])),
            ("ü{größe}", Ok(vec![text("ü"), name("größe")])),
            ("{*}x", Err(Wrong::NotAlone)),
            ("{0}", Err(Wrong::NoName("0".into()))),
            ("{+1}", Err(Wrong::NoName("+1".into()))),
            ("{}", Err(Wrong::NoName("".into()))),
            ("{print $1}", Err(Wrong::NoName("print $1".into()))),
            ("{a", Err(Wrong::Unpaired('{'))),
            ("a}", Err(Wrong::Unpaired('}'))),
        ];
        for (word, pieces) in cases {
            assert_eq!(parse(word), pieces, "{word}");
        }
    }

    #[test]
    fn any_word_is_read_or_refused() {
        let mut random = fastrand::Rng::with_seed(3);
        for _ in 0..20_000 {
            let letters = ["{", "}", "*", "1", "a", "é", " "];
            let word: String =
                (0..random.usize(..12)).map(|_| letters[random.usize(..7)]).collect();
            if let Err(wrong) = parse(&word) {
                assert!(!wrong.to_string().is_empty());
            }
        }
    }
}
