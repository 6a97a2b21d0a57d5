//! What must not be shown: passwords in URLs, and values whose name says that they are secret.

pub use crate::link::address::redact as redact_url;

/// Variables whose values are shown: what machines have, and nobody keeps a secret in.
const SHOWN: [&str; 24] = [
    "COLUMNS",
    "DEBUG",
    "DISPLAY",
    "EDITOR",
    "HOME",
    "HOSTNAME",
    "LANG",
    "LANGUAGE",
    "LD_LIBRARY_PATH",
    "LINES",
    "LOGNAME",
    "NODE_ENV",
    "NO_COLOR",
    "PATH",
    "PWD",
    "PYTHONPATH",
    "PYTHONUNBUFFERED",
    "RAILS_ENV",
    "SHELL",
    "TERM",
    "TMPDIR",
    "TZ",
    "TZDIR",
    "USER",
];

/// What is shown of a variable that tasks get. The names of secrets are without end (`BEARER`,
/// `DSN`, `AUTH`), so those of what is none are listed; elsewhere a plain switch is none.
pub fn redact_value(name: &str, value: &str) -> String {
    let is_switch = ["", "0", "1", "true", "false", "yes", "no", "on", "off"]
        .iter()
        .any(|switch| value.eq_ignore_ascii_case(switch));
    match is_switch || SHOWN.contains(&name) || name.starts_with("LC_") {
        true => crate::link::address::redact_all(value),
        false => "********".into(),
    }
}

/// What is shown of a name in a mapping whose values may be secrets: who writes `NAME=SECRET`
/// where a mapping is expected has the secret in the name.
pub fn redact_key(key: &str) -> String {
    match key.find(['=', ':']).map(|at| key.split_at(at + 1)) {
        Some((name, rest)) if !rest.is_empty() => format!("{name}**"),
        _ => key.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_known_to_be_no_secret_is_shown() {
        for name in
            ["SMTP_PASSWORD", "api_key", "AUTH", "BEARER", "DATABASE_URL", "PIN", "URL", "X"]
        {
            assert_eq!(redact_value(name, "http://h/"), "********");
        }
        assert_eq!(redact_value("LANG", "C"), "C");
        for (key, shown) in [("A", "A"), ("A=", "A="), ("A=s", "A=**"), ("A:s=t", "A:**")] {
            assert_eq!(redact_key(key), shown);
        }
        assert_eq!(redact_value("LC_ALL", "C.UTF-8"), "C.UTF-8");
        assert_eq!(redact_value("VERBOSE", "true"), "true");
        assert_eq!(redact_value("PATH", "/bin:/usr/bin"), "/bin:/usr/bin");
        assert_eq!(redact_value("HOME", "redis://:p@h/0"), "redis://:**@h/0");
    }
}
