//! Broker and result-store addresses, parsed once; a password cannot be printed.

use super::address::{
    AddressParts, OF_CONNECTIONS, PARAMETERS, is_number, is_plain, parameters, port_of, redact, who,
};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Why an address of Redis cannot be used in some builds.
pub const NO_REDIS: &str = "Redis is not in this build; expected sqlite:///path, or a build with \
                            --features redis";

/// Where messages are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BrokerUrl {
    /// One SQLite file. `sqlite:///relative`, `sqlite:////absolute`; SQLAlchemy's spelling
    /// (`sqla+sqlite:`) means the same.
    Sqlite(PathBuf),
    /// A Redis server: `redis://`, `rediss://`, `redis+socket://`, as kombu has them.
    Redis(Arc<Server>),
}

/// Where results are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BackendUrl {
    /// One SQLite file, as above, or `db+sqlite:`.
    Sqlite(PathBuf),
    /// A Redis server, as above.
    Redis(Arc<Server>),
    /// `disabled://`: no results.
    Disabled,
}

/// A server on the net or on this machine, and one database of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Where it listens.
    pub endpoint: Endpoint,
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
pub enum Endpoint {
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
    /// The address, without its secrets.
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

impl BrokerUrl {
    /// Parses `text`; a relative path is taken from `base` (the application's folder).
    ///
    /// # Errors
    /// It is no address, or of no broker that there is.
    pub fn parse(text: &str, base: &Path) -> Result<BrokerUrl, BadUrl> {
        let why = match BackendUrl::read(text, base) {
            Ok(BackendUrl::Sqlite(path)) => return Ok(BrokerUrl::Sqlite(path)),
            Ok(BackendUrl::Redis(server)) => return Ok(BrokerUrl::Redis(server)),
            Ok(BackendUrl::Disabled) => {
                "names no broker; expected sqlite:///path or redis://host:6379/0".into()
            }
            Err(why) => why,
        };
        Err(BadUrl { url: redact(text), why })
    }
}

impl BackendUrl {
    /// The file that it names, if it names one.
    pub fn file(&self) -> Option<&Path> {
        match self {
            BackendUrl::Sqlite(file) => Some(file),
            BackendUrl::Redis(_) | BackendUrl::Disabled => None,
        }
    }

    /// Parses `text`; a relative path is taken from `base` (the application's folder).
    ///
    /// # Errors
    /// It is no address, or of no result store that there is.
    pub fn parse(text: &str, base: &Path) -> Result<BackendUrl, BadUrl> {
        BackendUrl::read(text, base).map_err(|why| BadUrl { url: redact(text), why })
    }

    fn read(text: &str, base: &Path) -> Result<BackendUrl, String> {
        if text == "disabled://" || text == "disabled" {
            return Ok(BackendUrl::Disabled);
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            let expected = "not an address; expected one like sqlite:///var/qworker.sqlite or \
                            redis://host:6379/0";
            return Err(expected.into());
        };
        match scheme {
            "sqlite" | "sqla+sqlite" | "db+sqlite" => {
                file(rest).map(|path| BackendUrl::Sqlite(base.join(path)))
            }
            "redis" | "rediss" | "redis+socket" if !cfg!(feature = "redis") => Err(NO_REDIS.into()),
            "redis" | "rediss" | "redis+socket" => {
                Server::parse(text, scheme, rest).map(Arc::new).map(BackendUrl::Redis)
            }
            "sentinel" => Err("Redis behind Sentinel is not supported; expected the server's own \
                               address, redis://host:6379/0"
                .into()),
            _ => {
                Err("unknown kind of store; expected sqlite:///path or redis://host:6379/0".into())
            }
        }
    }
}

/// Results are with the messages, if nothing else is said.
impl From<BrokerUrl> for BackendUrl {
    fn from(url: BrokerUrl) -> BackendUrl {
        match url {
            BrokerUrl::Sqlite(path) => BackendUrl::Sqlite(path),
            BrokerUrl::Redis(server) => BackendUrl::Redis(server),
        }
    }
}

/// The path of a file of SQLite.
fn file(rest: &str) -> Result<&str, String> {
    let expected = "expected sqlite:///relative/path or sqlite:////absolute/path (three or four \
                    slashes)";
    let path = rest.strip_prefix('/').ok_or(expected)?;
    if path.is_empty() || path == ":memory:" {
        return Err(
            "names no file; workers and clients share one, so it cannot be in memory".into()
        );
    }
    // Python would open the file before it.
    let Some((_, parameters)) = path.split_once('?') else { return Ok(path) };
    let name = parameters.split('=').next().filter(|name| is_plain(name)).unwrap_or("**");
    Err(format!("found the parameter {name}, expected none; no name of a database has a ? in it"))
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
    fn parse(text: &str, scheme: &str, rest: &str) -> Result<Server, String> {
        if rest.contains(';') {
            return Err(
                "names several servers, or has a ; in its password (%3B); expected one".into()
            );
        }
        if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err("has a blank in it; expected none (in a password it is %20)".into());
        }
        let AddressParts { user, password, place: shown } = AddressParts::of(rest)?;
        // Without what is secret: no error of the parser can hold it.
        let url =
            ::url::Url::parse(&format!("{scheme}://{shown}")).map_err(|e| broken(&e, shown))?;
        let mut query: Vec<(String, String)> = url.query_pairs().into_owned().collect();
        query.retain(|(name, _)| !OF_CONNECTIONS.contains(&name.as_str()));
        let mut take = |name: &str| {
            let at = query.iter().position(|(key, _)| key == name)?;
            Some(query.swap_remove(at).1)
        };
        let (endpoint, db) = if scheme == "redis+socket" {
            let path = decoded(url.path());
            if path.is_empty() || path == "/" {
                return Err("names no socket; expected redis+socket:///path/to/redis.sock".into());
            }
            let db = take("virtual_host").or_else(|| take("db")).unwrap_or_default();
            (Endpoint::Socket(path.into()), db)
        } else {
            let host = url.host_str().filter(|host| !host.is_empty()).unwrap_or("localhost");
            // As the resolver wants it: an IPv6 address without its brackets.
            let host = host.trim_start_matches('[').trim_end_matches(']').to_string();
            let port = url.port().unwrap_or(6379);
            let endpoint = match scheme {
                "rediss" => Endpoint::Tls(host, port, tls(&mut take)?),
                _ => Endpoint::Tcp(host, port),
            };
            let of_path = url.path().trim_matches('/').to_string();
            (endpoint, if of_path.is_empty() { take("db").unwrap_or_default() } else { of_path })
        };
        if let Some((name, _)) = query.first() {
            // What is no name may be a part of a password.
            let is_name = is_plain(name) && shown.contains(&format!("{name}="));
            let name = if is_name { name } else { "**" };
            let expected = PARAMETERS.join(", ");
            return Err(format!("unknown parameter {name}; expected one of {expected}"));
        }
        let db = db.trim_matches('/');
        let db = if db.is_empty() { Ok(0) } else { db.parse() };
        Ok(Server {
            endpoint,
            user: user.map(decoded),
            password: password.map(|password| Secret(decoded(password))),
            db: db.map_err(
                |_| "expected a number of a database after the port: redis://host:6379/0",
            )?,
            shown: format!("{scheme}://{}{}", who(user, password), parameters(shown)),
        })
    }
}

/// What the parser of addresses says, in words about ours.
fn broken(error: &::url::ParseError, place: &str) -> String {
    let why = match error {
        ::url::ParseError::InvalidPort if is_number(port_of(place).unwrap_or_default()) => {
            return "the port is out of range: expected a number from 1 to 65535 after host:"
                .into();
        }
        ::url::ParseError::InvalidPort => {
            "invalid port: expected a number after host: (a password ends with @)".into()
        }
        ::url::ParseError::EmptyHost => "names no host; expected redis://host:6379/0".into(),
        other => other.to_string(),
    };
    format!("{why}; signs such as : / ? # @ in a password are written as %3A %2F %3F %23 %40")
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

impl fmt::Display for BackendUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BackendUrl::Sqlite(path) => write!(f, "sqlite:///{}", path.display()),
            BackendUrl::Redis(server) => server.fmt(f),
            BackendUrl::Disabled => f.write_str("disabled://"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_slashes_are_relative_and_four_absolute() {
        let base = Path::new("/srv/shop");
        for scheme in ["sqlite", "sqla+sqlite", "db+sqlite"] {
            assert_eq!(
                BackendUrl::parse(&format!("{scheme}:///var/q.db"), base),
                Ok(BackendUrl::Sqlite("/srv/shop/var/q.db".into()))
            );
            assert_eq!(
                BackendUrl::parse(&format!("{scheme}:////tmp/q.db"), base),
                Ok(BackendUrl::Sqlite("/tmp/q.db".into()))
            );
        }
        // As SQLAlchemy has it: nothing is encoded in the path, and parameters are none of it.
        let odd = BackendUrl::parse("sqlite:///a b%20#c@d.db", base);
        assert_eq!(odd, Ok(BackendUrl::Sqlite("/srv/shop/a b%20#c@d.db".into())));
        assert!(
            BackendUrl::parse("sqlite:///q.db?timeout=5", base)
                .unwrap_err()
                .why
                .contains("timeout")
        );
        assert!(BackendUrl::parse("sqlite://x", base).is_err());
        assert!(BackendUrl::parse("kafka://x", base).is_err());
        // Results may be nowhere, messages may not.
        assert_eq!(BackendUrl::parse("disabled://", base), Ok(BackendUrl::Disabled));
        let error = BrokerUrl::parse("disabled://", base).unwrap_err();
        assert!(error.to_string().starts_with("disabled://: names no broker"), "{error}");
    }

    fn server(text: &str) -> Arc<Server> {
        match BackendUrl::parse(text, Path::new("/")).unwrap() {
            BackendUrl::Redis(server) => server,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn servers_are_read_as_kombu_reads_them() {
        let plain = server("redis://");
        assert_eq!((&plain.endpoint, plain.db), (&Endpoint::Tcp("localhost".into(), 6379), 0));
        assert_eq!((&plain.user, &plain.password), (&None, &None));
        let full = server("redis://me:p%40ss%2Fword@[::1]:7000/3");
        assert_eq!((&full.endpoint, full.db), (&Endpoint::Tcp("::1".into(), 7000), 3));
        assert_eq!(full.user.as_deref(), Some("me"));
        assert_eq!(full.password.as_ref().map(Secret::reveal), Some("p@ss/word"));
        assert_eq!(server("redis://:p@h/").password.as_ref().map(Secret::reveal), Some("p"));
        let socket = server("redis+socket:///run/redis%20.sock?virtual_host=2");
        assert_eq!(
            (&socket.endpoint, socket.db),
            (&Endpoint::Socket("/run/redis .sock".into()), 2)
        );
        let tls = server("rediss://h?ssl_cert_reqs=none&ssl_ca_certs=/ca.pem");
        let expected =
            Tls { unverified: true, authorities: Some("/ca.pem".into()), identity: None };
        assert_eq!(tls.endpoint, Endpoint::Tls("h".into(), 6379, expected));
    }

    #[test]
    fn what_is_wrong_with_a_server_is_named() {
        for (text, why) in [
            ("redis://h/one", "number of a database"),
            ("redis://h:port/0", "port"),
            ("redis://h:99999", "redis://h:99999: the port is out of range"),
            ("redis://:p@[::1]:1234567/0", "redis://:**@[::1]:1234567/0: the port is out of range"),
            ("redis://h:1234567", "redis://**: the port is out of range"),
            ("redis://h/0?colour=3", "colour"),
            ("redis://:a?b@h/0", "%3F"),
            ("redis://:a#b@h/0", "%23"),
            ("redis://:a/b@h/0", "%2F"),
            ("redis://:a@b@h/0", "%40"),
            ("redis://me:12?b@h/0", "%3F"),
            ("redis://:hush", "no host"),
            ("redis://h/0#x", "%23"),
            ("redis://h h/0", "blank"),
            ("sqlite:///x.db?timeout=20", "parameter timeout"),
            ("sentinel://h:26379", "Sentinel"),
            ("redis://a/0;redis://b/0", "several"),
            ("rediss://h?ssl_cert_reqs=maybe", "ssl_cert_reqs"),
            ("rediss://h?ssl_certfile=/c", "ssl_keyfile"),
            ("redis+socket://", "socket"),
        ] {
            let error = BackendUrl::parse(text, Path::new("/")).unwrap_err();
            assert!(error.to_string().contains(why), "{text}: {error}");
        }
    }
}
