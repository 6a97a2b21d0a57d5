//! What must not be shown: passwords in URLs, and values whose name says that they are secret.

pub use crate::link::url::{is_secret, redact as redact_url};

/// A value to show for a variable, stars if the name says that it is secret, and
/// without the password if it is a URL.
pub fn redact_value(name: &str, value: &str) -> String {
    if is_secret(name) { "********".into() } else { redact_url(value) }
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
