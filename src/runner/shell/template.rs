//! The items of an `exec` task: text with arguments in braces.
//!
//! `{name}` is an argument; `{1}` one by position; `{*}`, as a whole item, all those that
//! no other item names; `{{` and `}}` are braces.

/// A part of an item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// As it stands.
    Text(String),
    /// The text of the argument of this name, or number.
    Argument(String),
    /// An item each for all arguments that are not named.
    Rest,
}

/// Takes an item apart.
///
/// # Errors
/// A brace that neither opens nor closes an argument, or `{*}` within an item: a sentence about it.
pub fn parse(item: &str) -> Result<Vec<Piece>, String> {
    if item == "{*}" {
        return Ok(vec![Piece::Rest]);
    }
    let mut pieces = Vec::new();
    let mut text = String::new();
    let mut rest = item;
    while let Some(at) = rest.find(['{', '}']) {
        text.push_str(&rest[..at]);
        let (brace, after) = rest[at..].split_at(1);
        if let Some(after) = after.strip_prefix(brace) {
            text.push_str(brace);
            rest = after;
            continue;
        }
        let name = match (brace, after.split_once('}')) {
            ("{", Some((name, after))) => {
                rest = after;
                name
            }
            _ => {
                return Err(format!(
                    "single {brace} in {item:?}; write {brace}{brace} for a brace"
                ));
            }
        };
        if name == "*" {
            return Err(format!("{{*}} must stand alone, not in {item:?}"));
        }
        if name.is_empty() || name.contains('{') {
            return Err(format!(
                "{{{name}}} in {item:?} names no argument; write {{{{ and }}}} for braces"
            ));
        }
        if !text.is_empty() {
            pieces.push(Piece::Text(std::mem::take(&mut text)));
        }
        pieces.push(Piece::Argument(name.into()));
    }
    text.push_str(rest);
    if !text.is_empty() || pieces.is_empty() {
        pieces.push(Piece::Text(text));
    }
    Ok(pieces)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items() {
        let text = |text: &str| Piece::Text(text.into());
        let arg = |name: &str| Piece::Argument(name.into());
        for (item, pieces) in [
            ("", vec![text("")]),
            ("plain", vec![text("plain")]),
            ("{a}", vec![arg("a")]),
            ("--size={w}x{2}!", vec![text("--size="), arg("w"), text("x"), arg("2"), text("!")]),
            ("{{print $1}}", vec![text("{print $1}")]),
            ("{{{a}}}", vec![text("{"), arg("a"), text("}")]),
            ("{*}", vec![Piece::Rest]),
            ("{{*}}", vec![text("{*}")]),
        ] {
            assert_eq!(parse(item), Ok(pieces), "{item}");
        }
        for item in ["{", "a}", "{a", "{}", "x{*}", "{a{b}", "}{"] {
            assert!(parse(item).is_err(), "{item}");
        }
    }
}
