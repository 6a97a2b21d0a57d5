//! What YAML is read into: values that know their line, and what each may be taken for.

use super::units;

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct YamlNode {
    /// Line it begins at, from 1; 0 for a value that comes from no file.
    pub line: usize,
    /// The value.
    pub data: Data,
    /// A mapping of which a mistake has been reported already, so that an entry is missing.
    pub flawed: bool,
}

/// The value of a [`YamlNode`].
#[derive(Debug, Clone, PartialEq)]
pub enum Data {
    /// A text, number, truth value or null, as it is written.
    Scalar(String, Style),
    /// A sequence.
    List(Vec<YamlNode>),
    /// A mapping, in its order, without duplicates.
    Map(Vec<(YamlKey, YamlNode)>),
}

/// How a scalar is written, which decides what it may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Without quotes: it may be a number, a truth value or null.
    Plain,
    /// In quotes or as a block: text.
    Quoted,
    /// From the environment or the command line, where everything is text: it is
    /// whatever is asked for.
    Bare,
}

/// A key of a mapping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct YamlKey {
    /// Its line, from 1.
    pub line: usize,
    /// Its text as written.
    pub text: String,
}

impl YamlNode {
    /// A value from outside of any file: the text may be whatever type is asked for.
    pub fn bare(text: &str) -> YamlNode {
        YamlNode::scalar(0, text.into(), Style::Bare)
    }

    /// A value of JSON, which is YAML: `text` is what stands there. Of a list or an object it is
    /// known only that it is one.
    pub fn json(text: &str) -> YamlNode {
        match serde_json::from_str(text) {
            Ok(text) => YamlNode::scalar(0, text, Style::Quoted),
            Err(_) if text.starts_with(['[', '{']) => {
                YamlNode { line: 0, data: Data::List(Vec::new()), flawed: false }
            }
            Err(_) => YamlNode::scalar(0, text.into(), Style::Plain),
        }
    }

    /// A scalar; `line` counts from 1.
    pub(super) fn scalar(line: usize, text: String, style: Style) -> YamlNode {
        YamlNode { line, data: Data::Scalar(text, style), flawed: false }
    }

    /// How many values this is, itself included.
    pub(super) fn size(&self) -> usize {
        match &self.data {
            Data::Scalar(..) => 1,
            Data::List(list) => 1 + list.iter().map(YamlNode::size).sum::<usize>(),
            Data::Map(map) => 1 + map.iter().map(|(_, value)| 1 + value.size()).sum::<usize>(),
        }
    }

    /// Has a mistake in it, at any depth, been reported by the parser?
    pub fn is_flawed(&self) -> bool {
        self.flawed
            || match &self.data {
                Data::Scalar(..) => false,
                Data::List(list) => list.iter().any(YamlNode::is_flawed),
                Data::Map(map) => map.iter().any(|(_, value)| value.is_flawed()),
            }
    }

    /// Is it null, written or left empty?
    pub fn is_null(&self) -> bool {
        matches!(self.untyped(), Some("" | "~" | "null" | "Null" | "NULL"))
    }

    /// As a truth value. `yes`, `no`, `on` and `off` count, as in YAML 1.1, which Python
    /// programs read; letters and digits only where everything is text.
    pub fn as_bool(&self) -> Option<bool> {
        let bare = self.is_bare();
        match self.untyped()?.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" => Some(true),
            "false" | "no" | "off" => Some(false),
            "1" | "y" | "t" if bare => Some(true),
            "0" | "n" | "f" if bare => Some(false),
            _ => None,
        }
    }

    /// As a whole number: of text by the rule of all text, in a file as YAML has it.
    pub fn as_int(&self) -> Option<i64> {
        let text = self.untyped()?;
        if self.is_bare() {
            return units::whole(text);
        }
        match (text.strip_prefix("0x"), text.strip_prefix("0o")) {
            (Some(hex), _) if digits(hex) => i64::from_str_radix(hex, 16).ok(),
            (_, Some(octal)) if digits(octal) => i64::from_str_radix(octal, 8).ok(),
            _ => text.parse().ok(),
        }
    }

    /// As a finite number, whole or not.
    pub fn as_number(&self) -> Option<f64> {
        let whole = self.as_int().map(|whole| whole as f64);
        whole.or_else(|| units::number(self.untyped()?))
    }

    /// Is it text from outside of any file?
    fn is_bare(&self) -> bool {
        matches!(self.data, Data::Scalar(_, Style::Bare))
    }

    /// As a text: quoted, or nothing else.
    pub fn as_text(&self) -> Option<&str> {
        match &self.data {
            Data::Scalar(text, Style::Quoted | Style::Bare) => Some(text),
            Data::Scalar(text, Style::Plain) => (!self.is_null()
                && !matches!(
                    text.as_str(),
                    "true" | "false" | "True" | "False" | "TRUE" | "FALSE"
                )
                && self.as_number().is_none())
            .then_some(text),
            _ => None,
        }
    }

    /// As it is written, if it is a scalar and not null: `010` stays `010`.
    pub fn as_written(&self) -> Option<&str> {
        match &self.data {
            Data::Scalar(text, _) if !self.is_null() => Some(text),
            _ => None,
        }
    }

    /// The text of a scalar that may be something else than text.
    fn untyped(&self) -> Option<&str> {
        match &self.data {
            Data::Scalar(text, Style::Plain | Style::Bare) => Some(text),
            _ => None,
        }
    }

    /// As JSON; numbers that JSON cannot say stay text.
    pub fn to_json(&self) -> serde_json::Value {
        use serde_json::Value;
        match &self.data {
            Data::List(list) => Value::Array(list.iter().map(YamlNode::to_json).collect()),
            Data::Map(map) => {
                Value::Object(map.iter().map(|(k, v)| (k.text.clone(), v.to_json())).collect())
            }
            Data::Scalar(text, _) => match (self.as_text(), self.as_int(), self.as_number()) {
                (Some(text), ..) => Value::from(text),
                (_, Some(whole), _) => Value::from(whole),
                (_, _, Some(number)) => Value::from(number),
                _ if self.is_null() => Value::Null,
                _ => self.as_bool().map_or_else(|| Value::from(text.as_str()), Value::from),
            },
        }
    }

    /// As JSON text, numbers digit for digit where JSON writes them so: an integer of thirty
    /// digits keeps them.
    pub fn to_json_text(&self) -> String {
        let mut text = String::new();
        self.write_json(&mut text);
        text
    }

    fn write_json(&self, out: &mut String) {
        match &self.data {
            Data::List(list) => {
                out.push('[');
                for (at, node) in list.iter().enumerate() {
                    out.push_str(if at > 0 { ", " } else { "" });
                    node.write_json(out);
                }
                out.push(']');
            }
            Data::Map(map) => {
                out.push('{');
                for (at, (key, node)) in map.iter().enumerate() {
                    out.push_str(if at > 0 { ", " } else { "" });
                    out.push_str(&serde_json::Value::from(key.text.as_str()).to_string());
                    out.push_str(": ");
                    node.write_json(out);
                }
                out.push('}');
            }
            Data::Scalar(text, _) if self.as_number().is_some() && is_json_number(text) => {
                out.push_str(text);
            }
            Data::Scalar(..) => out.push_str(&self.to_json().to_string()),
        }
    }

    /// As [`YamlNode::found`], of a value that may hold a secret: its kind alone.
    pub fn found_kind(&self) -> &'static str {
        match &self.data {
            Data::List(_) => "a list",
            Data::Map(_) => "a mapping",
            _ if self.is_null() => "null",
            _ if self.as_text().is_some() => "text",
            _ if self.as_number().is_some() => "a number",
            _ => "a truth value",
        }
    }

    /// What it is, for "found …".
    pub fn found(&self) -> String {
        match &self.data {
            Data::List(_) => "a list".into(),
            Data::Map(_) => "a mapping".into(),
            _ if self.is_null() => "null".into(),
            Data::Scalar(text, style) => {
                let short: String = text.chars().take(60).collect();
                let more = if short.len() < text.len() { "…" } else { "" };
                match style {
                    Style::Plain if self.as_text().is_none() => format!("{short}{more}"),
                    _ => format!("text {short:?}{more}"),
                }
            }
        }
    }
}

fn digits(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Is the text of a number one that JSON knows too? It writes no 010, +1, .5 or 0x1F.
fn is_json_number(text: &str) -> bool {
    let text = text.strip_prefix('-').unwrap_or(text);
    let whole = text.bytes().take_while(u8::is_ascii_digit).count();
    let is_decimal = text.bytes().all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b));
    let no_zeros = whole == 1 || !text.starts_with('0');
    is_decimal
        && whole > 0
        && no_zeros
        && !text.ends_with('.')
        && !text.contains(".e")
        && !text.contains(".E")
}

/// A text as YAML, in quotes only where it would be read as something else; fit to stand
/// in a flow collection too.
pub fn quote(text: &str) -> String {
    let flat = !text.contains(|c: char| c.is_control() || ",[]{}".contains(c));
    let written = serde_yaml::to_string(text).ok().filter(|_| flat);
    let written = written.map(|yaml| yaml.trim_end().to_string());
    let plain = |yaml: &String| {
        let node = YamlNode::scalar(0, yaml.clone(), Style::Plain);
        !yaml.starts_with(['\'', '"', '|', '>']) && node.as_text() != Some(text)
            || node.as_bool().is_some()
    };
    // JSON's quoting is YAML too.
    written.filter(|yaml| !plain(yaml)).unwrap_or_else(|| serde_json::Value::from(text).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::yaml::parse;
    use serde_json::json;

    #[test]
    fn quoted_text_reads_as_itself() {
        for text in [
            "", "a", "yes", "1", "1.5", "null", "~", "*x", "a: b", "- a", "#x", "a\nb", "é", "a:",
            "{", "x y",
        ] {
            let (node, found) = parse("t.yaml", &format!("k: {}", quote(text)));
            assert!(found.is_empty(), "{found:?}");
            assert_eq!(node.unwrap().to_json(), json!({"k": text}));
        }
        assert_eq!(quote("sqlite:///var/x.sqlite"), "sqlite:///var/x.sqlite");
    }

    #[test]
    fn values_are_those_that_another_reader_sees() {
        for text in [
            include_str!("../../etc/qworker.yaml"),
            include_str!("../../tasks.d/wasm.yaml"),
            "a: [1, 2.5, -3, x, 'y', \"z\\n\", null, ~, true]\nb: {c: {d: e}}\nf: |\n  g\n  h\ni: >-\n  j\n  k\n",
            "a: &x {b: 1}\nc: *x\n",
        ] {
            let ours = parse("t.yaml", text).0.map(|node| node.to_json()).unwrap_or_default();
            let theirs: serde_json::Value = serde_yaml::from_str(text).unwrap();
            assert_eq!(ours, theirs);
        }
    }

    #[test]
    fn json_text_keeps_digits() {
        let cases = [
            ("[1, 1.0, 1.10, -0.5, 1e3]", "[1, 1.0, 1.10, -0.5, 1e3]"),
            ("[123456789012345678901234567890]", "[123456789012345678901234567890]"),
            ("[0x1F, 010, +4, .5, 5., 1.e3]", "[31, 10, 4, 0.5, 5.0, 1000.0]"),
            (
                "{a: '1', b: [x, null, true], 'c\"': 2026-11-21}",
                r#"{"a": "1", "b": ["x", null, true], "c\"": "2026-11-21"}"#,
            ),
        ];
        for (text, json) in cases {
            let node = parse("t.yaml", text).0.unwrap();
            assert_eq!(node.to_json_text(), json);
            assert!(serde_json::from_str::<serde_json::Value>(json).is_ok(), "{json}");
        }
    }

    #[test]
    fn the_same_text_plain_quoted_and_bare() {
        let node = |style| move |text: &str| YamlNode::scalar(1, text.into(), style);
        let (plain, quoted, bare) = (node(Style::Plain), node(Style::Quoted), node(Style::Bare));
        assert_eq!(
            (plain("5").as_int(), quoted("5").as_int(), bare("5").as_int()),
            (Some(5), None, Some(5))
        );
        assert_eq!(
            (plain("5").as_text(), quoted("5").as_text(), bare("5").as_text()),
            (None, Some("5"), Some("5"))
        );
        assert_eq!(
            (plain("1").as_bool(), quoted("true").as_bool(), bare("1").as_bool()),
            (None, None, Some(true))
        );
        assert_eq!((plain("Yes").as_bool(), plain("Yes").as_text()), (Some(true), Some("Yes")));
        assert_eq!(
            (plain("").is_null(), quoted("").is_null(), bare("null").is_null()),
            (true, false, true)
        );
        assert_eq!((plain("010").as_written(), plain("~").as_written()), (Some("010"), None));
        assert_eq!(
            (plain("x").found(), plain("5").found()),
            ("text \"x\"".into(), "5".to_string())
        );
    }
}
