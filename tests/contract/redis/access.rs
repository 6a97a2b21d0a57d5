//! Who is let in, and by which door: passwords, users, databases, sockets, TLS.

use super::*;
use crate::harness::redis::free_port;
use qworker::broker::Broker;
use qworker::client::{Client, ClientOptions};
use qworker::link::url::BrokerUrl;
use std::path::Path;
use std::process::Command;

/// The broker at this address.
fn broker(url: &str) -> Result<Broker, String> {
    let url = BrokerUrl::parse(url, Path::new("/")).unwrap();
    let client = Client::connect(&url, None, &ClientOptions::default());
    client.map(|client| client.broker).map_err(|error| error.to_string())
}

/// Sends one message and counts it.
async fn visit(url: &str) -> Result<u32, String> {
    let broker = broker(url)?;
    broker.producer().publish(vec![posting("a")]).await.map_err(|error| error.to_string())?;
    let begun = Redis::at(url).worker("one@test", &[QUEUE]).await;
    begun.0.close().await.map_err(|error| error.to_string())?;
    let purged = broker.admin().purge(vec![QUEUE.into()]).await;
    purged.map(|count| count as u32).map_err(|error| error.to_string())
}

/// It is refused with all of `parts`, and no secret.
#[track_caller]
fn refused(answer: Result<u32, String>, parts: &[&str]) {
    let error = answer.unwrap_err();
    for part in parts {
        assert!(error.contains(part), "no {part:?} in {error:?}");
    }
    assert!(!error.contains("geheim") && !error.contains('\n'), "{error}");
}

#[test]
fn passwords_users_and_databases() {
    block_on(async {
        let server = Server::start();
        let port = server.port();
        let mut direct = server.connect();
        let mut run = |words: &[&str]| {
            let mut command = redis::cmd(words[0]);
            command.arg(&words[1..]).query::<redis::Value>(&mut direct).unwrap();
        };
        run(&["CONFIG", "SET", "requirepass", "ge/he@im"]);
        run(&["ACL", "SETUSER", "me", "on", ">geheim", "~*", "&*", "+@all"]);
        run(&["ACL", "SETUSER", "reader", "on", ">geheim", "~*", "&*", "+@all", "-@write"]);
        let at = |user: &str, db: &str| format!("redis://{user}127.0.0.1:{port}/{db}");
        assert_eq!(visit(&at(":ge%2Fhe%40im@", "0")).await, Ok(1));
        assert_eq!(visit(&at("default:ge%2Fhe%40im@", "3")).await, Ok(1));
        assert_eq!(visit(&at("me:geheim@", "")).await, Ok(1));
        let host = format!("127.0.0.1:{port}");
        refused(visit(&at("", "0")).await, &[&host, "NOAUTH"]);
        refused(visit(&at(":geheim@", "0")).await, &[&host, "assword"]);
        refused(visit(&at("me:geheimer@", "0")).await, &[&host, "assword"]);
        refused(visit(&at("reader:geheim@", "0")).await, &[&host, "NOPERM"]);
        refused(visit(&at("me:geheim@", "99")).await, &[&host, "99"]);
    });
}

#[test]
fn databases_are_apart_and_a_socket_leads_to_the_same() {
    block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("redis.sock").display().to_string();
        let server = Server::with(&["--save", "", "--unixsocket", &socket]);
        let three = format!("redis://127.0.0.1:{}/3", server.port());
        broker(&three).unwrap().producer().publish(vec![posting("a")]).await.unwrap();
        let lists = |url: &str| {
            let mut connection = redis::Client::open(url).unwrap().get_connection().unwrap();
            redis::cmd("LLEN").arg(QUEUE).query::<u32>(&mut connection).unwrap()
        };
        assert_eq!([lists(&server.url()), lists(&three)], [0, 1]);
        let same = format!("redis+socket://{socket}?virtual_host=3");
        assert_eq!(broker(&same).unwrap().admin().purge(vec![QUEUE.into()]).await.unwrap(), 1);
        assert_eq!(visit(&same).await, Ok(1));
        let nowhere = format!("redis+socket://{}/no.sock", folder.path().display());
        refused(visit(&nowhere).await, &["no.sock", "No such file"]);
    });
}

/// Runs openssl in `folder`.
fn openssl(folder: &Path, line: &str) {
    let mut command = Command::new("openssl");
    let output = command.args(line.split(' ')).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
}

const KEY: &str = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";

/// An authority's certificate in `NAME.crt`.
fn authority(folder: &Path, name: &str) {
    let files = format!("-keyout {name}.key -out {name}.crt");
    openssl(folder, &format!("req -x509 {KEY} {files} -days 2 -subj /CN={name}"));
}

/// A certificate that `ca` vouches for, in `NAME.crt` and `NAME.key`.
fn certificate(folder: &Path, name: &str) {
    std::fs::write(folder.join("ext"), "subjectAltName=IP:127.0.0.1\n").unwrap();
    openssl(folder, &format!("req {KEY} -keyout {name}.key -out {name}.csr -subj /CN={name}"));
    let by = "-CA ca.crt -CAkey ca.key -CAcreateserial -extfile ext";
    openssl(folder, &format!("x509 -req -in {name}.csr {by} -days 2 -out {name}.crt"));
}

fn tls_server(folder: &Path, clients: &str) -> (Server, u16) {
    let port = free_port();
    let file = |name: &str| folder.join(name).display().to_string();
    let server = Server::with(&[
        "--save",
        "",
        "--tls-port",
        &port.to_string(),
        "--tls-cert-file",
        &file("server.crt"),
        "--tls-key-file",
        &file("server.key"),
        "--tls-ca-cert-file",
        &file("ca.crt"),
        "--tls-auth-clients",
        clients,
    ]);
    (server, port)
}

#[test]
fn tls_proves_the_server_and_the_client() {
    block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        authority(folder, "ca");
        authority(folder, "other");
        certificate(folder, "server");
        certificate(folder, "client");
        let at = |port: u16, query: &str| {
            let query = query.replace('=', &format!("={}/", folder.display()));
            format!("rediss://127.0.0.1:{port}/0?{query}")
        };
        let none = |port: u16| format!("rediss://127.0.0.1:{port}/0?ssl_cert_reqs=none");
        let (_open, port) = tls_server(folder, "no");
        assert_eq!(visit(&at(port, "ssl_ca_certs=ca.crt")).await, Ok(1));
        assert_eq!(visit(&none(port)).await, Ok(1));
        let host = format!("127.0.0.1:{port}");
        let other = visit(&at(port, "ssl_ca_certs=other.crt")).await;
        refused(other, &[&host, "certificate is of no authority that ", "other.crt has"]);
        refused(visit(&format!("rediss://{host}/0")).await, &[&host, "certificate"]);
        refused(visit(&at(port, "ssl_ca_certs=missing.crt")).await, &["missing.crt", "No such"]);
        refused(visit(&at(port, "ssl_ca_certs=ca.key")).await, &["ca.key"]);
        let (_strict, port) = tls_server(folder, "yes");
        let ours = "ssl_ca_certs=ca.crt&ssl_certfile=client.crt&ssl_keyfile=client.key";
        assert_eq!(visit(&at(port, ours)).await, Ok(1));
        let host = format!("127.0.0.1:{port}");
        refused(visit(&at(port, "ssl_ca_certs=ca.crt")).await, &[&host]);
        refused(visit(&at(port, "ssl_ca_certs=server.crt")).await, &[&host, "no authority"]);
        // In the clear, nobody understands the other.
        let plain = visit(&format!("redis://{host}/0")).await;
        refused(plain, &[&host]);
    });
}

/// A certificate that is its own authority, as `openssl req -x509` makes it and as Python takes it:
/// if it is the one that is named, for this host, and in its time.
#[test]
fn a_certificate_that_is_its_own_authority() {
    block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let own = |name: &str, host: &str, days: &str| {
            let files = format!("-keyout {name}.key -out {name}.crt");
            let host = format!("-subj /CN=x -addext subjectAltName={host}");
            openssl(folder, &format!("req -x509 {KEY} {files} {days} {host}"));
        };
        own("good", "IP:127.0.0.1", "-days 2");
        own("twin", "IP:127.0.0.1", "-days 2");
        own("elsewhere", "DNS:redis.example.com", "-days 2");
        let ca = "[ca]\ndefault_ca=d\n[d]\ndatabase=index\nserial=serial\nnew_certs_dir=.\n\
                  default_md=sha256\npolicy=p\n[p]\ncommonName=supplied\n";
        let extensions = "subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:TRUE\n";
        for (name, text) in [("ca.cnf", ca), ("index", ""), ("serial", "01\n"), ("ext", extensions)]
        {
            std::fs::write(folder.join(name), text).unwrap();
        }
        openssl(folder, &format!("req {KEY} -keyout late.key -out late.csr -subj /CN=x"));
        let dates = "-startdate 20200101000000Z -enddate 20200201000000Z";
        let files = "-in late.csr -keyfile late.key -out late.crt -extfile ext";
        openssl(folder, &format!("ca -config ca.cnf -selfsign -batch -notext {dates} {files}"));
        let serve = |name: &str| {
            let [certificate, key] = ["crt", "key"]
                .map(|end| folder.join(format!("{name}.{end}")).display().to_string());
            let port = free_port();
            let words =
                ["--save", "", "--tls-port", &port.to_string(), "--tls-cert-file", &certificate]
                    .map(str::to_string);
            let rest = [
                "--tls-key-file",
                &key,
                "--tls-ca-cert-file",
                &certificate,
                "--tls-auth-clients",
                "no",
            ];
            let all: Vec<&str> = words.iter().map(String::as_str).chain(rest).collect();
            (Server::with(&all), port)
        };
        let at = |port: u16, name: &str| {
            format!("rediss://127.0.0.1:{port}/0?ssl_ca_certs={}/{name}.crt", folder.display())
        };
        let (_good, port) = serve("good");
        assert_eq!(visit(&at(port, "good")).await, Ok(1));
        // Another of the same name is another.
        refused(visit(&at(port, "twin")).await, &["certificate"]);
        let (_elsewhere, port) = serve("elsewhere");
        let said = ["is for another host than 127.0.0.1", "redis.example.com"];
        refused(visit(&at(port, "elsewhere")).await, &said);
        let (_late, port) = serve("late");
        refused(visit(&at(port, "late")).await, &["the server's certificate has expired"]);
    });
}
