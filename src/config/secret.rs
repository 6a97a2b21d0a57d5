//! What must not be shown: passwords in URLs, and values whose name says that they are secret.

/// Whether a variable of this name holds a secret.
pub fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    ["PASS", "SECRET", "TOKEN", "KEY"].iter().any(|word| name.contains(word))
}

/// A value to show for a variable, stars if the name says that it is secret, and
/// without the password if it is a URL.
pub fn redact_value(name: &str, value: &str) -> String {
    if is_secret(name) { "********".into() } else { redact_url(value) }
}

/// A URL with `**` for its password and for parameters named like secrets; any other
/// text as it is.
pub fn redact_url(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.into() };
    let (rest, query) =
        rest.split_once('?').map_or((rest, None), |(rest, query)| (rest, Some(query)));
    // Up to the last @: a password may hold a slash or an @ that nobody escaped, and a
    // little too many stars do no harm. A path, as SQLite's, has no password.
    let rest = match rest.rsplit_once('@') {
        Some((user, host)) if !rest.starts_with('/') => match user.split_once(':') {
            Some((user, _)) => format!("{user}:**@{host}"),
            None => rest.into(),
        },
        _ => rest.into(),
    };
    let query = query.map_or(String::new(), |query| {
        let shown: Vec<String> = query.split('&').map(redact_parameter).collect();
        format!("?{}", shown.join("&"))
    });
    format!("{scheme}://{rest}{query}")
}

fn redact_parameter(parameter: &str) -> String {
    match parameter.split_once('=') {
        Some((name, _)) if is_secret(name) => format!("{name}=**"),
        _ => parameter.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_of_urls() {
        let cases = [
            ("sqlite:///var/qworker.sqlite", "sqlite:///var/qworker.sqlite"),
            ("sqlite:////data/a:b@c.sqlite", "sqlite:////data/a:b@c.sqlite"),
            ("redis://:geheim@h:6379/0", "redis://:**@h:6379/0"),
            ("amqp://guest:gu/e@st@h//", "amqp://guest:**@h//"),
            ("amqp://guest@h//", "amqp://guest@h//"),
            ("redis://h/0?password=x&db=1", "redis://h/0?password=**&db=1"),
            ("nothing", "nothing"),
        ];
        for (text, shown) in cases {
            assert_eq!(redact_url(text), shown);
        }
    }

    #[test]
    fn names_of_secrets() {
        for name in ["SMTP_PASSWORD", "api_key", "Token", "MY_SECRET"] {
            assert_eq!(redact_value(name, "x"), "********");
        }
        assert_eq!(redact_value("URL", "http://u:p@h/"), "http://u:**@h/");
        assert_eq!(redact_value("LANG", "C"), "C");
    }
}
