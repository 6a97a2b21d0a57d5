//! Names of nodes and of their files: what stands behind a percent sign in `--pidfile`,
//! `--logfile` and `--hostname`. Celery's letters, for the worker; `multi` has its own meaning.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

/// `template` with `%h` the host, `%n` the node's name part, `%d` the host's domain, `%p` the
/// whole node name, `%i` 0 and `%I` nothing (the numbers of a pool's processes, of which there is
/// one here), `%%` a percent sign.
///
/// # Errors
/// Another letter, or a percent sign at the end: a sentence that names it.
pub fn expand(template: &str, node: &str) -> Result<String, String> {
    text(expand_bytes(template.as_bytes(), node)?)
}

/// As [`expand`], for a path, which may be no text.
///
/// # Errors
/// As [`expand`].
pub fn expand_path(template: &OsStr, node: &str) -> Result<PathBuf, String> {
    Ok(PathBuf::from(OsString::from_vec(expand_bytes(template.as_bytes(), node)?)))
}

fn expand_bytes(template: &[u8], node: &str) -> Result<Vec<u8>, String> {
    let (name, host) = node.split_once('@').unwrap_or((node, ""));
    let domain = host.split_once('.').map_or("", |(_, domain)| domain);
    fill_bytes(template, "%n, %h, %d, %p, %i, %I or %%", |letter| match letter {
        'h' => Some(host),
        'n' => Some(name),
        'd' => Some(domain),
        'p' => Some(node),
        'i' => Some("0"),
        'I' => Some(""),
        _ => None,
    })
}

/// Refuses what is no name of a node: `multi` could not name it, give it options of its own or
/// a line of its own.
///
/// # Errors
/// A sentence that says why.
pub fn check(node: &str) -> Result<(), String> {
    let odd = |c: char| c.is_whitespace() || c.is_control() || matches!(c, ',' | '=');
    let name = node.split_once('@').map_or(node, |(name, _)| name);
    if name.is_empty() || name.starts_with('-') || node.contains(odd) {
        return Err(format!(
            "{}: expected NAME@HOST, a NAME that does not begin with -, and neither blanks, control \
             characters, commas nor = in it",
            node.escape_debug()
        ));
    }
    Ok(())
}

/// `template` with the meanings of the letters behind percent signs; `%%` is a percent sign.
///
/// # Errors
/// A letter without a meaning, or a percent sign at the end: a sentence that names it, and
/// `letters`, which have one.
pub fn fill<'a>(
    template: &str,
    letters: &str,
    meaning: impl Fn(char) -> Option<&'a str>,
) -> Result<String, String> {
    text(fill_bytes(template.as_bytes(), letters, meaning)?)
}

fn fill_bytes<'a>(
    template: &[u8],
    letters: &str,
    meaning: impl Fn(char) -> Option<&'a str>,
) -> Result<Vec<u8>, String> {
    let mut filled = Vec::new();
    let mut rest = template;
    while let Some(at) = rest.iter().position(|byte| *byte == b'%') {
        filled.extend(&rest[..at]);
        rest = &rest[at + 1..];
        let letter = rest.utf8_chunks().next().and_then(|chunk| chunk.valid().chars().next());
        let meant = if letter == Some('%') { Some("%") } else { letter.and_then(&meaning) };
        filled.extend(meant.map(str::as_bytes).ok_or_else(|| {
            let letter = letter.map(String::from).unwrap_or_default();
            let template = String::from_utf8_lossy(template);
            format!("{template}: %{letter} means nothing; expected {letters}")
        })?);
        rest = &rest[letter.map_or(0, char::len_utf8)..];
    }
    filled.extend(rest);
    Ok(filled)
}

/// What was text before it was filled is text.
fn text(filled: Vec<u8>) -> Result<String, String> {
    String::from_utf8(filled).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_multi_can_name() {
        for node in ["celery@box", "w-1@box.lan", "a%b@", "a@b@c", "é@h", "a:b@h"] {
            assert_eq!(check(node), Ok(()), "{node}");
        }
        for node in ["", "@h", "-a@h", "a b@h", "a@h ", "a\n@h", "a,b@h", "a=b@h"] {
            assert!(check(node).unwrap_err().contains("NAME@HOST"), "{node}");
        }
    }

    #[test]
    fn every_letter_has_its_meaning() {
        let all = expand("%n %h %d %p %i %I %%", "w1@box.example.com").unwrap();
        assert_eq!(all, "w1 box.example.com example.com w1@box.example.com 0  %");
        assert_eq!(expand("/run/%n%I.pid", "w1@box").unwrap(), "/run/w1.pid");
        let bytes = OsStr::from_bytes(b"/run/\xff%n%%\xff");
        let path = expand_path(bytes, "w\u{e9}@box").unwrap();
        assert_eq!(path.as_os_str().as_bytes(), b"/run/\xffw\xc3\xa9%\xff");
        let wrong = expand_path(OsStr::from_bytes(b"a%\xff"), "w1@box").unwrap_err();
        assert!(wrong.contains(": % means nothing"), "{wrong}");
        for wrong in ["%N", "a%", "%x.log"] {
            assert!(expand(wrong, "w1@box").unwrap_err().starts_with(wrong));
        }
    }
}
