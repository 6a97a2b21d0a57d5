//! Broker and result-store addresses, parsed once; a password cannot be printed.

use std::fmt;
use std::path::{Path, PathBuf};

/// Where messages or results are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Url {
    /// One SQLite file. `sqlite:///relative`, `sqlite:////absolute`; SQLAlchemy's
    /// spellings (`sqla+sqlite:`, `db+sqlite:`) mean the same.
    Sqlite(PathBuf),
    /// `disabled://`: no results.
    Disabled,
}

/// An address that this program cannot use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadUrl {
    /// The address, its password hidden.
    pub url: String,
    /// What is wrong with it.
    pub why: &'static str,
}

impl fmt::Display for BadUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.url, self.why)
    }
}

impl std::error::Error for BadUrl {}

impl Url {
    /// Parses `text`; a relative path is taken from `base` (the application's folder).
    pub fn parse(text: &str, base: &Path) -> Result<Url, BadUrl> {
        let bad = |why| BadUrl { url: redact(text), why };
        if text == "disabled://" || text == "disabled" {
            return Ok(Url::Disabled);
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(bad("not an address; expected one like sqlite:///var/qworker.sqlite"));
        };
        match scheme {
            "sqlite" | "sqla+sqlite" | "db+sqlite" => {
                let Some(path) = rest.strip_prefix('/') else {
                    return Err(bad(
                        "expected sqlite:///relative/path or sqlite:////absolute/path (three or four slashes)",
                    ));
                };
                if path.is_empty() || path == ":memory:" {
                    return Err(bad(
                        "names no file; workers and clients share one, so it cannot be in memory",
                    ));
                }
                Ok(Url::Sqlite(base.join(path)))
            }
            _ => Err(bad("unknown kind of store; expected sqlite:///path")),
        }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Url::Sqlite(path) => write!(f, "sqlite:///{}", path.display()),
            Url::Disabled => f.write_str("disabled://"),
        }
    }
}

/// A URL with `**` for its password and for parameters named like secrets; any other
/// text as it is.
pub fn redact(text: &str) -> String {
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

/// Whether a variable of this name holds a secret.
pub fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    ["PASS", "SECRET", "TOKEN", "KEY"].iter().any(|word| name.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_slashes_are_relative_and_four_absolute() {
        let base = Path::new("/srv/shop");
        for scheme in ["sqlite", "sqla+sqlite", "db+sqlite"] {
            assert_eq!(
                Url::parse(&format!("{scheme}:///var/q.db"), base),
                Ok(Url::Sqlite("/srv/shop/var/q.db".into()))
            );
            assert_eq!(
                Url::parse(&format!("{scheme}:////tmp/q.db"), base),
                Ok(Url::Sqlite("/tmp/q.db".into()))
            );
        }
        assert!(Url::parse("sqlite://x", base).is_err());
        assert!(Url::parse("kafka://x", base).is_err());
    }

    #[test]
    fn no_message_shows_a_password() {
        let error = Url::parse("amqp://me:secret@host/v", Path::new("/")).unwrap_err();
        assert!(!error.to_string().contains("secret"), "{error}");
        assert_eq!(redact("redis://:p@h/0"), "redis://:**@h/0");
        let odd =
            Url::parse("kafka://me:sec/ret@host/v?password=geheim", Path::new("/")).unwrap_err();
        assert!(!odd.to_string().contains("ret") && !odd.to_string().contains("geheim"), "{odd}");
    }
}
