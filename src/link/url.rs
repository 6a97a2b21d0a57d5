//! Broker and result-store addresses, parsed once; a password cannot be printed.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where messages or results are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Url {
    /// One SQLite file. `sqlite:///relative`, `sqlite:////absolute`; SQLAlchemy's
    /// spellings (`sqla+sqlite:`, `db+sqlite:`) mean the same.
    Sqlite(PathBuf),
    /// A Redis server: `redis://`, `rediss://`, `redis+socket://`, as kombu has them.
    Redis(Arc<Server>),
    /// `disabled://`: no results.
    Disabled,
}

/// A server on the net or on this machine, and one database of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Where it listens.
    pub place: Place,
    /// Who we are.
    pub user: Option<String>,
    /// What proves it.
    pub password: Option<Secret>,
    /// Number of the database.
    pub db: u32,
    /// The address for people: its password hidden.
    shown: String,
}

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// In the clear.
    Tcp(String, u16),
    /// Behind TLS.
    Tls(String, u16, Tls),
    /// A socket of this machine.
    Socket(PathBuf),
}

/// How the server proves itself, and we to it; files in PEM format.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tls {
    /// Take any certificate (`ssl_cert_reqs=none`).
    pub unverified: bool,
    /// Authorities to trust in place of the system's.
    pub authorities: Option<PathBuf>,
    /// Our certificate and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// A text that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("**")
    }
}

/// An address that this program cannot use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadUrl {
    /// The address, its password hidden.
    pub url: String,
    /// What is wrong with it.
    pub why: String,
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
        let bad = |why: &str| BadUrl { url: redact(text), why: why.into() };
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
                if let Some((file, parameters)) = path.split_once('?') {
                    let why = format!(
                        "found the parameters {parameters:?} after {file:?}, expected none; no \
                         name of a database has a ? in it"
                    );
                    return Err(bad(&why));
                }
                Ok(Url::Sqlite(base.join(path)))
            }
            "redis" | "rediss" | "redis+socket" => Server::parse(text)
                .map(Arc::new)
                .map(Url::Redis)
                .map_err(|why| BadUrl { url: redact(text), why }),
            _ => Err(bad("unknown kind of store; expected sqlite:///path or redis://host:port/db")),
        }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl Server {
    /// Reads `redis://[[USER]:PASSWORD@]HOST[:PORT][/DB]`, `rediss://…` with its `ssl_`
    /// parameters, and `redis+socket:///PATH?virtual_host=DB` (kombu 5.7 `utils/url.py`,
    /// `transport/redis.py`).
    fn parse(text: &str) -> Result<Server, String> {
        if text.contains(';') {
            return Err("names several servers; expected one".into());
        }
        let url = ::url::Url::parse(text).map_err(|error| error.to_string())?;
        let mut query: Vec<(String, String)> = url.query_pairs().into_owned().collect();
        let mut take = |name: &str| {
            let at = query.iter().position(|(key, _)| key == name)?;
            Some(query.swap_remove(at).1)
        };
        let (place, db) = if url.scheme() == "redis+socket" {
            let path = decoded(url.path());
            if path.is_empty() {
                return Err("names no socket; expected redis+socket:///path/to/redis.sock".into());
            }
            let db = take("virtual_host").or_else(|| take("db")).unwrap_or_default();
            (Place::Socket(path.into()), db)
        } else {
            let host = url.host_str().filter(|host| !host.is_empty()).unwrap_or("localhost");
            // As the resolver wants it: an IPv6 address without its brackets.
            let host = host.trim_start_matches('[').trim_end_matches(']').to_string();
            let port = url.port().unwrap_or(6379);
            let place = match url.scheme() {
                "rediss" => Place::Tls(host, port, tls(&mut take)?),
                _ => Place::Tcp(host, port),
            };
            (place, url.path().to_string())
        };
        if let Some((name, _)) = query.first() {
            return Err(format!("unknown parameter {name}"));
        }
        let db = db.trim_matches('/');
        let db = if db.is_empty() { Ok(0) } else { db.parse() };
        Ok(Server {
            place,
            user: Some(decoded(url.username())).filter(|user| !user.is_empty()),
            password: url.password().map(|password| Secret(decoded(password))),
            db: db.map_err(
                |_| "expected a number of a database after the port: redis://host:6379/0",
            )?,
            shown: redact(text),
        })
    }
}

fn tls(take: &mut impl FnMut(&str) -> Option<String>) -> Result<Tls, String> {
    let unverified = match take("ssl_cert_reqs").as_deref() {
        None | Some("required" | "optional" | "CERT_REQUIRED" | "CERT_OPTIONAL") => false,
        Some("none" | "CERT_NONE") => true,
        Some(_) => return Err("ssl_cert_reqs: expected required, optional or none".into()),
    };
    let authorities = take("ssl_ca_certs").map(PathBuf::from);
    let identity = match (take("ssl_certfile"), take("ssl_keyfile")) {
        (None, None) => None,
        (Some(certificate), Some(key)) => Some((certificate.into(), key.into())),
        _ => return Err("expected both or neither of ssl_certfile and ssl_keyfile".into()),
    };
    Ok(Tls { unverified, authorities, identity })
}

fn decoded(text: &str) -> String {
    percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned()
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Url::Sqlite(path) => write!(f, "sqlite:///{}", path.display()),
            Url::Redis(server) => server.fmt(f),
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
        // As SQLAlchemy has it: nothing is encoded in the path, and parameters are none of it.
        let odd = Url::parse("sqlite:///a b%20#c@d.db", base);
        assert_eq!(odd, Ok(Url::Sqlite("/srv/shop/a b%20#c@d.db".into())));
        assert!(Url::parse("sqlite:///q.db?timeout=5", base).unwrap_err().why.contains("timeout"));
        assert!(Url::parse("sqlite://x", base).is_err());
        assert!(Url::parse("kafka://x", base).is_err());
    }

    fn server(text: &str) -> Arc<Server> {
        match Url::parse(text, Path::new("/")).unwrap() {
            Url::Redis(server) => server,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn servers_are_read_as_kombu_reads_them() {
        let plain = server("redis://");
        assert_eq!((&plain.place, plain.db), (&Place::Tcp("localhost".into(), 6379), 0));
        assert_eq!((&plain.user, &plain.password), (&None, &None));
        let full = server("redis://me:p%40ss%2Fword@[::1]:7000/3");
        assert_eq!((&full.place, full.db), (&Place::Tcp("::1".into(), 7000), 3));
        assert_eq!(full.user.as_deref(), Some("me"));
        assert_eq!(full.password.as_ref().map(Secret::reveal), Some("p@ss/word"));
        assert_eq!(server("redis://:p@h/").password.as_ref().map(Secret::reveal), Some("p"));
        let socket = server("redis+socket:///run/redis%20.sock?virtual_host=2");
        assert_eq!((&socket.place, socket.db), (&Place::Socket("/run/redis .sock".into()), 2));
        let tls = server("rediss://h?ssl_cert_reqs=none&ssl_ca_certs=/ca.pem");
        let expected =
            Tls { unverified: true, authorities: Some("/ca.pem".into()), identity: None };
        assert_eq!(tls.place, Place::Tls("h".into(), 6379, expected));
    }

    #[test]
    fn what_is_wrong_with_a_server_is_named() {
        for (text, why) in [
            ("redis://h/one", "number of a database"),
            ("redis://h:port/0", "port"),
            ("redis://h/0?timeout=3", "timeout"),
            ("redis://a/0;redis://b/0", "several"),
            ("rediss://h?ssl_cert_reqs=maybe", "ssl_cert_reqs"),
            ("rediss://h?ssl_certfile=/c", "ssl_keyfile"),
            ("redis+socket://", "socket"),
        ] {
            let error = Url::parse(text, Path::new("/")).unwrap_err();
            assert!(error.why.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn no_message_shows_a_password() {
        assert!(!format!("{:?}", server("redis://:geheim@h/0")).contains("geheim"));
        let error = Url::parse("amqp://me:secret@host/v", Path::new("/")).unwrap_err();
        assert!(!error.to_string().contains("secret"), "{error}");
        assert_eq!(redact("redis://:p@h/0"), "redis://:**@h/0");
        let odd =
            Url::parse("kafka://me:sec/ret@host/v?password=geheim", Path::new("/")).unwrap_err();
        assert!(!odd.to_string().contains("ret") && !odd.to_string().contains("geheim"), "{odd}");
    }
}
