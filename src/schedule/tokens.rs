//! Splits a line of a crontab into words: separated by blanks, quoted as in a shell, with JSON
//! between them. `#` at the beginning of a word starts a comment up to the end of the line.

use serde_json::value::RawValue;

/// One word.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Token {
    /// Its text, without quotes.
    pub text: String,
    /// Whether some of it was quoted.
    pub quoted: bool,
    /// The place of the first `=` that is not quoted.
    equals: Option<usize>,
}

impl Token {
    /// The parts of `key=value`, if the key is a name and neither it nor the sign is quoted.
    pub fn option(&self) -> Option<(&str, &str)> {
        let at = self.equals?;
        let (key, value) = (&self.text[..at], &self.text[at + 1..]);
        let is_name = !key.is_empty()
            && !key.starts_with(|c: char| c.is_ascii_digit())
            && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        is_name.then_some((key, value))
    }
}

/// How far a line is read.
#[derive(Debug, Clone, Copy)]
pub struct Cursor<'a> {
    rest: &'a str,
}

impl<'a> Cursor<'a> {
    /// At the beginning of a line.
    pub fn new(line: &'a str) -> Cursor<'a> {
        Cursor { rest: line.trim_start() }
    }

    /// Whether there is no further word.
    pub fn is_at_end(&self) -> bool {
        self.rest.is_empty() || self.rest.starts_with('#')
    }

    /// What is not read yet, without blanks in front.
    pub fn rest(&self) -> &'a str {
        self.rest
    }

    /// The next word; `None` at the end, or where a comment begins.
    ///
    /// # Errors
    /// Quotes that are not closed, a backslash at the end: a sentence about it.
    pub fn word(&mut self) -> Result<Option<Token>, String> {
        if self.is_at_end() {
            self.rest = "";
            return Ok(None);
        }
        let mut token = Token::default();
        let mut letters = self.rest.char_indices();
        let mut end = self.rest.len();
        while let Some((at, letter)) = letters.next() {
            match letter {
                blank if blank.is_whitespace() => {
                    end = at;
                    break;
                }
                '\'' | '"' => {
                    token.quoted = true;
                    quoted(letter, &mut letters, &mut token.text)?;
                }
                '\\' => {
                    token.quoted = true;
                    let (_, letter) = letters.next().ok_or("a backslash at the end of the line")?;
                    token.text.push(letter);
                }
                _ => {
                    if letter == '=' && !token.quoted && token.equals.is_none() {
                        token.equals = Some(token.text.len());
                    }
                    token.text.push(letter);
                }
            }
        }
        self.rest = self.rest[end..].trim_start();
        Ok(Some(token))
    }

    /// The JSON array or object that is next; `None` if neither is.
    pub fn json(&self) -> Option<Result<Box<RawValue>, String>> {
        self.rest.starts_with(['[', '{']).then(|| self.value().map(|(json, _)| json.to_owned()))
    }

    /// Continues after the JSON that [`Cursor::json`] returns.
    pub fn skip_json(&mut self) {
        self.rest = self.value().map_or("", |(_, rest)| rest.trim_start());
    }

    /// A value and what follows it.
    fn value(&self) -> Result<(&'a RawValue, &'a str), String> {
        let advice = "a word that begins with [ or { stands in quotes";
        let mut values = serde_json::Deserializer::from_str(self.rest).into_iter::<&RawValue>();
        match values.next() {
            Some(Ok(value)) => {
                let rest = &self.rest[values.byte_offset()..];
                match rest.is_empty() || rest.starts_with(char::is_whitespace) {
                    true => Ok((value, rest)),
                    false => {
                        let word = rest.split(char::is_whitespace).next().unwrap_or_default();
                        Err(format!("found {word:?} right behind JSON, expected a blank; {advice}"))
                    }
                }
            }
            Some(Err(wrong)) => {
                let place = format!(" at line {} column {}", wrong.line(), wrong.column());
                let wrong = wrong.to_string().replace(&place, "");
                Err(format!("found what is no JSON ({wrong}); {advice}"))
            }
            None => Err("found nothing, expected JSON".into()),
        }
    }
}

/// The text up to the closing quote. In double quotes, a backslash escapes `"` and itself.
fn quoted(
    quote: char,
    letters: &mut std::str::CharIndices<'_>,
    text: &mut String,
) -> Result<(), String> {
    while let Some((_, letter)) = letters.next() {
        match letter {
            _ if letter == quote => return Ok(()),
            '\\' if quote == '"' => match letters.next() {
                Some((_, next @ ('"' | '\\'))) => text.push(next),
                Some((_, next)) => text.extend(['\\', next]),
                None => break,
            },
            _ => text.push(letter),
        }
    }
    Err(format!("found {quote} without a second one, expected both"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Result<Vec<String>, String> {
        let mut cursor = Cursor::new(line);
        let mut found = Vec::new();
        while let Some(token) = cursor.word()? {
            found.push(match token.option() {
                Some((key, value)) => format!("<{key}>{value}"),
                None => token.text,
            });
        }
        Ok(found)
    }

    #[test]
    fn words_are_those_of_a_shell() {
        let cases: &[(&str, &[&str])] = &[
            ("a  b\tc", &["a", "b", "c"]),
            ("'a b' \"c d\" e\\ f g'h i'j", &["a b", "c d", "e f", "gh ij"]),
            (r#""a \"b\" \\ \n" '\n'"#, &[r#"a "b" \ \n"#, r"\n"]),
            ("'' \"\"", &["", ""]),
            ("a #b c", &["a"]),
            ("a#b '#c' # d", &["a#b", "#c"]),
            ("k=v key_2='x y' k= a=b=c", &["<k>v", "<key_2>x y", "<k>", "<a>b=c"]),
            (
                "'k=v' k\\=v --k=v 1=2 =x http://h?a=b",
                &["k=v", "k=v", "--k=v", "1=2", "=x", "http://h?a=b"],
            ),
            ("é=ü 日本", &["é=ü", "日本"]),
            ("", &[]),
        ];
        for (line, expected) in cases {
            assert_eq!(words(line).unwrap(), *expected, "{line}");
        }
        for line in ["'a", "\"a", "a\\", "\"a\\"] {
            assert!(words(line).is_err(), "{line}");
        }
    }

    #[test]
    fn json_between_words() {
        let mut cursor = Cursor::new("[1, {\"a\": \"] #\"}]  {\"k\": 1} x");
        assert_eq!(cursor.json().unwrap().unwrap().get(), "[1, {\"a\": \"] #\"}]");
        cursor.skip_json();
        assert_eq!(cursor.json().unwrap().unwrap().get(), "{\"k\": 1}");
        cursor.skip_json();
        assert!(cursor.json().is_none());
        assert_eq!(cursor.rest(), "x");
        for wrong in ["[1", "[a]", "{", "[1]x", "{\"a\": 1}]"] {
            assert!(Cursor::new(wrong).json().unwrap().is_err(), "{wrong}");
        }
    }
}
