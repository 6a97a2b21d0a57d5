//! Addresses as they may be shown: without their secrets, whether they are right or wrong.

use super::url::{BackendUrl, BadUrl, BrokerUrl};
use std::fmt;
use std::path::Path;

/// An address as it was written. Printing it prints no secret: its parts where it can
/// be read, and what is certainly none where it cannot.
#[derive(Clone, PartialEq, Eq)]
pub struct Address(String);

impl Address {
    /// What somebody wrote, right or wrong.
    pub fn new(text: impl Into<String>) -> Address {
        Address(text.into())
    }

    /// The text itself, its secrets included.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// The broker that it leads to; a relative path is taken from `base`.
    ///
    /// # Errors
    /// It is none that this program can use.
    pub fn broker(&self, base: &Path) -> Result<BrokerUrl, BadUrl> {
        BrokerUrl::parse(&self.0, base)
    }

    /// The result store that it leads to; likewise.
    ///
    /// # Errors
    /// As [`Address::broker`].
    pub fn backend(&self, base: &Path) -> Result<BackendUrl, BadUrl> {
        BackendUrl::parse(&self.0, base)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&redact(&self.0))
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", redact(&self.0))
    }
}

/// Parameters of an address of Redis, as redis-py and kombu have them, that say how a client
/// holds its connection: it is held in our own way, and they change nothing that is sent.
pub const OF_CONNECTIONS: [&str; 15] = [
    "health_check_interval",
    "max_connections",
    "retry_on_error",
    "retry_on_timeout",
    "socket_connect_timeout",
    "socket_keepalive",
    "socket_keepalive_options",
    "socket_read_size",
    "socket_timeout",
    "socket_type",
    "timeout",
    "client_name",
    "lib_name",
    "lib_version",
    "ssl_check_hostname",
];

/// Parameters that we read.
pub(super) const PARAMETERS: [&str; 6] =
    ["db", "virtual_host", "ssl_ca_certs", "ssl_cert_reqs", "ssl_certfile", "ssl_keyfile"];

/// The parts of `[[USER]:PASSWORD@]HOST[:PORT][/DB][?PARAMETERS]`.
pub(super) struct AddressParts<'a> {
    pub(super) user: Option<&'a str>,
    pub(super) password: Option<&'a str>,
    /// Host and port, database, and the parameters.
    pub(super) place: &'a str,
}

impl<'a> AddressParts<'a> {
    /// Takes `rest` apart. What is a sign of the address itself, and stands in a password, is
    /// found by the @ behind it.
    pub(super) fn of(rest: &'a str) -> Result<AddressParts<'a>, String> {
        let authority = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let known = |name: &str| PARAMETERS.contains(&name);
        let in_parameter = |at: usize| {
            let before = rest[..at].rsplit(['?', '&']).next().unwrap_or_default();
            rest[..at].contains('?') && before.split_once('=').is_some_and(|(name, _)| known(name))
        };
        if let Some(at) = rest.rfind('@').filter(|at| *at > authority && !in_parameter(*at)) {
            let sign = rest[..at].chars().find(|c| matches!(c, '/' | '?' | '#')).unwrap_or('/');
            return Err(encode(sign));
        }
        if let Some((before, behind)) = rest.split_once('#')
            && !behind.is_empty()
        {
            let _ = before;
            return Err("found a # in it; expected host, port and database alone: a # of a \
                        password is written %23, and the password ends with @"
                .into());
        }
        let (who, place) = match rest[..authority].rsplit_once('@') {
            Some((who, _)) => (Some(who), &rest[who.len() + 1..]),
            None => (None, rest),
        };
        if who.is_some_and(|who| who.contains('@')) {
            return Err(encode('@'));
        }
        let (user, password) = match who.map(|who| who.split_once(':').unwrap_or((who, ""))) {
            Some((user, password)) => (Some(user), Some(password)),
            None => (None, None),
        };
        let given = |text: Option<&'a str>| text.filter(|text| !text.is_empty());
        Ok(AddressParts { user: given(user), password: given(password), place })
    }
}

/// What to do with a sign of addresses in a password.
fn encode(sign: char) -> String {
    format!(
        "its user name or password has a {sign} in it; expected it encoded, as %{:02X}",
        u32::from(sign)
    )
}

/// What may be shown of who we are: a name without a password may be the password itself.
pub(super) fn who(user: Option<&str>, password: Option<&str>) -> String {
    match (user, password) {
        (None, None) => String::new(),
        (Some(user), Some(_)) if is_plain(user) => format!("{user}:**@"),
        (None, Some(_)) => ":**@".into(),
        _ => "**@".into(),
    }
}

/// Host, path and parameters; the values of those that nobody knows are hidden.
pub(super) fn parameters(place: &str) -> String {
    let Some((place, query)) = place.split_once('?') else { return place.into() };
    let known = |name: &str| PARAMETERS.contains(&name) || OF_CONNECTIONS.contains(&name);
    let shown = query.split('&').map(|parameter| match parameter.split_once('=') {
        Some((name, _)) if known(name) => parameter.to_string(),
        Some((name, _)) if is_plain(name) => format!("{name}=**"),
        _ => "**".into(),
    });
    format!("{place}?{}", shown.collect::<Vec<_>>().join("&"))
}

/// The port of a place, as it is written.
pub(super) fn port_of(place: &str) -> Option<&str> {
    let host = place.split(['/', '?']).next().unwrap_or_default();
    let (name, port) = host.rsplit_once(':')?;
    (!name.starts_with('[') || name.ends_with(']')).then_some(port)
}

/// Is it a whole number, however long?
pub(super) fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// An address of any kind as it may be shown. Where it is not certain which part is a secret,
/// `**` stands for all of it: so it is of what has no scheme, which may be a password alone.
pub fn redact(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else {
        return if text.is_empty() { String::new() } else { "**".into() };
    };
    let of_scheme = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
    if scheme.is_empty() || !scheme.chars().all(of_scheme) {
        return "**".into();
    }
    // The address of a file has no password.
    if scheme.ends_with("sqlite") && rest.starts_with('/') && !rest.contains('?') {
        return text.into();
    }
    // What is encoded in the path of a socket is no secret.
    let of_path =
        |c: char| is_of_place(c) || c == '%' && scheme == "redis+socket" && rest.starts_with('/');
    let shown = AddressParts::of(rest).ok().filter(|parts| {
        let place = parts.place.split('?').next().unwrap_or_default();
        let (host, path) = place.split_once('/').unwrap_or((place, ""));
        let port = port_of(place);
        let name = port.map_or(host, |port| &host[..host.len() - port.len() - 1]);
        let port = port.unwrap_or("0");
        // Behind a password that ends with @ there is none; else a long number may be one.
        let is_short = port.len() <= "65535".len() || parts.user.or(parts.password).is_some();
        // Without a host, what looks like a port may be a password.
        let is_port = is_number(port) && is_short && (!name.is_empty() || !host.contains(':'));
        is_port
            && name.chars().all(|c| is_of_place(c) || "[:]".contains(c))
            && path.chars().all(of_path)
    });
    match shown {
        Some(AddressParts { user, password, place }) => {
            format!("{scheme}://{}{}", who(user, password), parameters(place))
        }
        None => format!("{scheme}://**"),
    }
}

/// Is it an address, or meant to be one?
pub fn is_address(text: &str) -> bool {
    let schemes = ["redis", "rediss", "redis+socket", "sqlite"];
    text.contains("://")
        || text.split_once(':').is_some_and(|(scheme, _)| schemes.contains(&scheme))
}

/// The letters of hosts and paths; each other one may divide a secret from what stands around it.
fn is_of_place(c: char) -> bool {
    c.is_alphanumeric() || "._-/~".contains(c)
}

/// Can it be the name of something?
pub(super) fn is_plain(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c))
}

/// Any text, with the addresses in it as they may be shown: for messages that repeat what
/// somebody typed.
pub fn redact_all(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let is_in = |c: char| !(c.is_whitespace() || c.is_control() || "'\"`<>".contains(c));
        let start = rest[..at].rfind(|c: char| !(c.is_ascii_alphanumeric() || "+-.".contains(c)));
        let start =
            start.map_or(0, |start| start + rest[start..].chars().next().map_or(1, char::len_utf8));
        let end = rest[at..].find(|c| !is_in(c)).map_or(rest.len(), |end| at + end);
        // What ends a part of the sentence is none of the address.
        let end = start + rest[start..end].trim_end_matches([':', ',', ';', '.', ')']).len();
        let end = end.max(at + "://".len());
        shown.push_str(&rest[..start]);
        shown.push_str(&redact(&rest[start..end]));
        rest = &rest[end..];
    }
    shown + rest
}

#[cfg(test)]
mod tests {
    use super::super::url::{Secret, Server};
    use super::*;
    use std::sync::Arc;

    fn server(text: &str) -> Arc<Server> {
        match BackendUrl::parse(text, Path::new("/")).unwrap() {
            BackendUrl::Redis(server) => server,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn no_message_shows_a_password() {
        assert!(!format!("{:?}", server("redis://:geheim@h/0")).contains("geheim"));
        // Right and wrong ones, and in each of them the same secret.
        for text in [
            "redis://:ge?heim@h/0",
            "redis://:ge#heim@h/0",
            "redis://:ge/heim@h/0",
            "redis://ge@heim@h",
            "redis://geheim@h/0",
            "redis://geheim:@h/0",
            "redis:/u:geheim@h",
            "redis:geheim@h",
            "redis://:geheim",
            "redis://u:geheim",
            "redis://:12?geheim@h",
            "redis://h/0?pwd=geheim",
            "redis://h/0?auth=geheim",
            "redis://h/0?geheim",
            "redis://h:6379,password=geheim,ssl=True",
            "h:6380,password=geheim",
            "host=h;pwd=geheim",
            "amqp://me:geheim@host/v",
            "kafka://me:sec/geheim@host/v?password=geheim",
            "redis://:a@h;redis://:geheim@i/0",
            "redis://h/0#geheim",
            "redis://:geheim@h:port/0",
            "redis://:geheim@h/0;",
            "redis://:ge;heim@h",
            "redis://:geheim @h",
            "sqlite+pysqlcipher://:geheim@/x.db",
            "redis://h/geheim=x",
            "redis+socket:///s?virtual_host=0&password=geheim",
            "rediss://:geheim@h?ssl_cert_reqs=none",
            "redis://:geheim%40@h/0",
            "redis://h/0?x=1&pw=geheim",
            "redis://[::1:geheim@h",
        ] {
            let shown = format!(
                "{} {:?} {:?}",
                Address::new(text),
                Address::new(text),
                BackendUrl::parse(text, Path::new("/")).map(|url| url.to_string())
            );
            assert!(!shown.contains("heim"), "{text}: {shown}");
            let said = redact_all(&format!("error: unexpected '{text}' found\nUsage: {text}"));
            assert!(
                !text.contains("://") || !said.contains("geheim") || text.contains(' '),
                "{said}"
            );
        }
        for text in [
            "redis://h:6379/0",
            "redis://[::1]:6379/0",
            "sqlite:////data/a:b@c.sqlite",
            "disabled://",
            "redis+socket:///run/r.sock?virtual_host=2",
            "redis+socket:///run/a%20b.sock",
            "kafka://x",
            "redis://h/one",
            "rpc://",
            "",
            "rediss://h:1/0?ssl_cert_reqs=none&ssl_ca_certs=/a@b.pem",
        ] {
            assert_eq!(redact(text), text);
        }
        assert_eq!(redact("redis://:p@h/0"), "redis://:**@h/0");
        assert_eq!(redact("redis://h:99999/0"), "redis://h:99999/0");
        assert_eq!(redact("redis://:p@h:1234567"), "redis://:**@h:1234567");
        assert_eq!(redact("redis://h:1234567"), "redis://**");
        assert_eq!(redact("redis://me:p@h:7/0?timeout=1"), "redis://me:**@h:7/0?timeout=1");
        assert_eq!(server("redis://me:p%3F@h:7/0").to_string(), "redis://me:**@h:7/0");
        assert_eq!(server("redis://:a%3Fb@h/0").password.as_ref().map(Secret::reveal), Some("a?b"));
        assert_eq!(redact_all("a 'redis://:p@h/0', b"), "a 'redis://:**@h/0', b");
        assert_eq!(
            redact_all("redis://**: why (redis://:p@h/0)."),
            "redis://**: why (redis://:**@h/0)."
        );
        assert_eq!(redact_all("disabled://: x ://"), "disabled://: x **");
    }
}
