//! Names of nodes and of their files: what stands behind a percent sign in `--pidfile`,
//! `--logfile` and `--hostname`. Celery's letters, for the worker; `multi` has its own meaning.

/// `template` with `%h` the host, `%n` the node's name part, `%d` the host's domain, `%p` the
/// whole node name, `%i` 0 and `%I` nothing (the numbers of a pool's processes, of which there is
/// one here), `%%` a percent sign.
///
/// # Errors
/// Another letter, or a percent sign at the end: a sentence that names it.
pub fn expand(template: &str, node: &str) -> Result<String, String> {
    let (name, host) = node.split_once('@').unwrap_or((node, ""));
    let domain = host.split_once('.').map_or("", |(_, domain)| domain);
    fill(template, "%n, %h, %d, %p, %i, %I or %%", |letter| match letter {
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
    let mut filled = String::new();
    let mut rest = template.chars();
    while let Some(letter) = rest.next() {
        if letter != '%' {
            filled.push(letter);
            continue;
        }
        match rest.next() {
            Some('%') => filled.push('%'),
            next => filled.push_str(next.and_then(&meaning).ok_or_else(|| {
                let next = next.map(String::from).unwrap_or_default();
                format!("{template}: %{next} means nothing; expected {letters}")
            })?),
        }
    }
    Ok(filled)
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
        for wrong in ["%N", "a%", "%x.log"] {
            assert!(expand(wrong, "w1@box").unwrap_err().starts_with(wrong));
        }
    }
}
