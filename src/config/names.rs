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
    let mut expanded = String::new();
    let mut letters = template.chars();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            expanded.push(letter);
            continue;
        }
        match letters.next() {
            Some('h') => expanded.push_str(host),
            Some('n') => expanded.push_str(name),
            Some('d') => expanded.push_str(domain),
            Some('p') => expanded.push_str(node),
            Some('i') => expanded.push('0'),
            Some('I') => {}
            Some('%') => expanded.push('%'),
            other => {
                let other = other.map(String::from).unwrap_or_default();
                return Err(format!(
                    "{template}: %{other} means nothing; expected %n, %h, %d, %p, %i, %I or %%"
                ));
            }
        }
    }
    Ok(expanded)
}

#[cfg(test)]
mod tests {
    use super::*;

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
